"""The bench of precisions: its numbers are right for an engine that is known, and without a GPU there is one line."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from ase.build import molecule
from bench_script import BENCH, bench_script

from painn_fast.bench.cases import CASES
from painn_fast.engine import CpuEngine
from painn_fast.io import load

DYNAMICS = {"trajectories": 2, "equilibration": "10 fs", "duration": "50 fs"}


@pytest.fixture(scope="module")
def precision():
    with bench_script("precision") as module:
        yield module


class Off(CpuEngine):
    """Forces that are wrong by a known number."""

    def __call__(self, work, positions, properties=("energy", "forces"), **options):
        results = super().__call__(work, positions, properties, **options)
        if self.checked and "forces" in results:
            results["forces"] = results["forces"] + self.by
        return results

    by = 0.0


def test_errors_of_forces_and_drift_of_a_known_engine(precision, monkeypatch):
    monkeypatch.setattr(precision, "sets", lambda device: {"one": (load("ethanol"), CASES["ethanol-1"].structures())})
    (result,) = precision.measure(lambda potential, _: CpuEngine(potential), ["ieee"], "cpu", **DYNAMICS)
    assert 1e-9 < result.force_rms["one"] <= result.force_max["one"] < 1e-3
    assert abs(result.drift) < 50
    assert 0 < result.drift_error < 50
    assert json.loads(json.dumps(asdict(result))) == asdict(result)
    text = precision.table([result])
    assert "ieee" in text
    assert f"{result.force_max['one']:.1e}" in text


def test_a_known_error_is_found(precision):
    potential = load("ethanol")
    engine = Off(potential)
    structures = CASES["ethanol-1"].structures()
    precision.force_error(engine, potential, structures)
    engine.by = 0.5
    largest, typical = precision.force_error(engine, potential, structures)
    assert largest == pytest.approx(0.5, abs=1e-3)
    assert typical == pytest.approx(0.5, abs=1e-3)


def test_forces_of_the_engine_are_those_of_its_copies(precision):
    potential, atoms = load("ethanol"), molecule("CH3CH2OH")
    forces = precision.EngineForces(CpuEngine(potential), atoms)
    positions = torch.tensor(atoms.positions).repeat(2, 1, 1)
    energy, force = forces(positions)
    assert energy.shape == (2,)
    assert force.shape == positions.shape
    assert torch.equal(force[0], force[1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    result = subprocess.run([sys.executable, BENCH / "precision.py"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "needs a GPU" in result.stderr
    assert "Traceback" not in result.stderr
