"""The check of a bundled model has a measure that does not vanish with the forces."""

import pytest
import torch

from painn_fast import doctor


@pytest.fixture
def off(monkeypatch):
    """Forces of one dtype become wrong by a share."""
    right = doctor.evaluate

    def by(dtype, share):
        def evaluate(model, molecules, properties=("energy", "forces"), **options):
            results = right(model, molecules, properties, **options)
            if model.dtype is dtype and "forces" in results:
                results["forces"] = [forces * (1 + share) for forces in results["forces"]]
            return results

        monkeypatch.setattr(doctor, "evaluate", evaluate)

    return by


@pytest.fixture(scope="module")
def differences():
    """Central differences that a check has made: those of energies, which no test here changes."""
    return {}


@pytest.fixture(autouse=True)
def made_once(differences, monkeypatch):
    def make(model, atoms, make=doctor._central_differences):
        if "forces" not in differences:
            differences["forces"] = make(model, atoms)
        return differences["forces"]

    monkeypatch.setattr(doctor, "_central_differences", make)


def test_a_bundled_model_is_right():
    assert doctor.check_model("ethanol").state == "ok"


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-3), (torch.float64, 1e-4)])
def test_forces_that_are_off_by_a_small_share_are_found(off, dtype, share):
    off(dtype, share)
    check = doctor.check_model("ethanol")
    assert check.state == "fail"
    assert ("reference" in check.fix) == (dtype is torch.float32)
