"""What a force field of the caller's returns is checked, before anything is written."""

import numpy as np
import pytest
import torch
from ase.build import molecule

from painn_fast.errors import PaiNNFastError
from painn_fast.md import ForceField, MDSettings, Trajectory, run

WATER = molecule("H2O")


class Returns(ForceField):
    """Returns what it was made with, computed from the positions."""

    def __init__(self, result):
        self.result = result

    def __call__(self, positions):
        return self.result(positions)


def free(x):
    return x.new_zeros(len(x)), torch.zeros_like(x)


def settings(folder, **changes):
    values = {"output": str(folder), "beads": 2, "ensemble": "rpmd", "duration": "1 fs", "equilibration": "2 fs"}
    return MDSettings.parse({**values, **changes})


WRONG = {
    "None": (lambda x: None, r"energy and forces; .*got: None; expected: energy \[2\] eV and forces \[2, 3, 3\]"),
    "energy alone": (lambda x: free(x)[0], r"energy and forces; .*got: Tensor \[2\]"),
    "three": (lambda x: (*free(x), {}), r"energy and forces; .*got: tuple of Tensor \[2\], Tensor \[2, 3, 3\], dict"),
    "flat forces": (
        lambda x: (free(x)[0], x.flatten(1)),
        r"forces; .*got: Tensor \[2, 9\]; expected: a tensor \[2, 3, 3\]",
    ),
    "one energy": (lambda x: (free(x)[0].sum(), x), r"energy; .*got: Tensor \[\]; expected: a tensor \[2\] in eV"),
    "column": (lambda x: (free(x)[0][:, None], x), r"energy; .*got: Tensor \[2, 1\]"),
    "numpy": (lambda x: (free(x)[0], x.numpy()), r"forces; .*got: ndarray \[2, 3, 3\]; expected: a tensor"),
}


@pytest.mark.parametrize("name", WRONG)
def test_energies_and_forces_that_are_none_are_named(tmp_path, name):
    result, message = WRONG[name]
    with pytest.raises(PaiNNFastError, match=f"returned no valid {message}") as caught:
        run(settings(tmp_path / "run"), force_field=Returns(result), atoms=WATER)
    assert "where: Returns" in str(caught.value)
    assert not (tmp_path / "run").exists()


class Dipole(Returns):
    """Free atoms with an observed property."""

    def __init__(self, observed):
        super().__init__(free)
        self.observed = observed

    def observe(self, positions, properties):
        return self.observed(positions)


OBSERVED = {
    "nothing": (lambda x: None, r"properties; where: Dipole; got: None; expected: a dict of dipole"),
    "another": (lambda x: {"charges": x}, r"dipole; where: Dipole; got: None; expected: a tensor \[2, 3\] in e Å"),
    "transposed": (lambda x: {"dipole": x.sum(1).mT}, r"dipole; where: Dipole; got: Tensor \[3, 2\]"),
}


@pytest.mark.parametrize("name", OBSERVED)
def test_a_dipole_of_the_wrong_kind_is_named_before_the_equilibration(tmp_path, name):
    observed, message = OBSERVED[name]
    with pytest.raises(PaiNNFastError, match=f"returned no valid {message}"):
        run(settings(tmp_path / "run", dipole_every="0.5 fs"), force_field=Dipole(observed), atoms=WATER)
    assert not (tmp_path / "run").exists()


def test_a_force_field_without_a_dipole_is_refused_before_the_equilibration(tmp_path):
    message = "the force field gives no dipole; where: Returns; .*observe.*; fix: record none: without dipole_every"
    with pytest.raises(PaiNNFastError, match=message):
        run(settings(tmp_path / "run", dipole_every="0.5 fs"), force_field=Returns(free), atoms=WATER)
    assert not (tmp_path / "run").exists()


def test_a_dipole_is_recorded(tmp_path):
    path = run(
        settings(tmp_path, dipole_every="0.5 fs", positions_every="0.5 fs"),
        force_field=Dipole(lambda x: {"dipole": x.sum(1)}),
        atoms=WATER,
    )
    trajectory = Trajectory(path)
    np.testing.assert_allclose(trajectory.dipole, trajectory.positions.sum(3).mean(2), rtol=1e-12)


def test_a_result_that_is_wrong_later_stops_the_trajectories_that_it_is_of(tmp_path):
    def sometimes(x):
        return None if float(x[:, 0, 2].max()) > WATER.positions[0, 2] + 1e-3 else free(x)

    with pytest.raises(PaiNNFastError, match=r"guards stopped every trajectory.*returned no valid energy and forces"):
        run(settings(tmp_path, duration="50 fs"), force_field=Returns(sometimes), atoms=WATER)
