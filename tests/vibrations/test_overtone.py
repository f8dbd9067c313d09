"""Anharmonic lines beside those of an independent program, overtone-vpt2 0.1.0, of the same surface, GFN2-xTB."""

from __future__ import annotations

import ase
import numpy as np
import pytest
from ase.build import molecule
from ase.optimize import BFGS

from painn_fast.vibrations import perturbation
from painn_fast.vibrations.derivatives import differences
from painn_fast.vibrations.fourth_order import force_field
from painn_fast.vibrations.harmonic import normal_modes
from painn_fast.vibrations.perturbation import AnharmonicField, State, levels

THEIRS: dict[str, dict[State, float]] = {
    "H2O": {
        (0,): 1498.1, (1,): 3439.7, (2,): 3441.0, (0, 0): 2976.9, (0, 1): 4919.3, (0, 2): 4913.5, (1, 2): 6686.6,
        (1, 1): 6782.3, (2, 2): 6781.9,
    },
    "H2CO": {
        (0,): 1076.5, (1,): 1185.7, (2,): 1462.2, (3,): 1782.9, (4,): 2534.5, (5,): 2660.4, (0, 0): 2153.8,
        (0, 1): 2273.4, (1, 1): 2370.2, (0, 2): 2544.4, (1, 2): 2711.4, (0, 3): 2852.9, (2, 2): 2934.7, (1, 3): 2973.6,
        (2, 3): 3239.1, (3, 3): 3546.0, (0, 4): 3599.8, (1, 4): 3658.7, (0, 5): 3727.5, (1, 5): 3834.5, (2, 4): 3942.0,
        (2, 5): 4079.8, (3, 4): 4314.4, (3, 5): 4448.3, (4, 5): 5061.6, (4, 4): 5011.2, (5, 5): 5249.0,
    },
}  # fmt: skip
"""cm-1. That program knows Fermi resonances, but not that of Darling and Dennison between overtones of stretches."""
DARLING_DENNISON = {"H2O": {(1, 1), (2, 2)}, "H2CO": {(4, 4), (5, 5)}}


@pytest.fixture(scope="module")
def calculator():
    return pytest.importorskip("tblite.ase").TBLite(method="GFN2-xTB", verbosity=0, accuracy=1e-3)


def minimum(name: str, calculator) -> ase.Atoms:
    atoms = molecule(name)
    atoms.calc = calculator
    BFGS(atoms, logfile=None).run(fmax=1e-4, steps=200)
    return atoms


def field_of(name: str, calculator) -> AnharmonicField:
    def compute(moved):
        forces = []
        for atoms in moved:
            atoms.calc = calculator
            forces.append(atoms.get_forces())
        return {"forces": forces}

    atoms = minimum(name, calculator).copy()
    matrix = -differences(compute, atoms)["forces"].reshape(3 * len(atoms), -1)
    return force_field(compute, atoms, *normal_modes(atoms, 0.5 * (matrix + matrix.T)))


@pytest.mark.parametrize("name", THEIRS)
def test_lines_are_those_of_an_independent_program(name, calculator, monkeypatch):
    """All within 1 cm-1 once the resonances that it lacks are left out; with them, all but the overtones concerned."""
    field = field_of(name, calculator)
    found = levels(field)
    own = dict(zip(found.states, found.energy, strict=True))
    for state in THEIRS[name].keys() - DARLING_DENNISON[name]:
        assert own[state] == pytest.approx(THEIRS[name][state], abs=1.0), state
    assert max(abs(own[state] - THEIRS[name][state]) for state in DARLING_DENNISON[name]) > 10.0
    monkeypatch.setattr(perturbation, "DARLING_RATIO", 1e9)
    found = levels(field)
    own = dict(zip(found.states, found.energy, strict=True))
    for state, expected in THEIRS[name].items():
        assert own[state] == pytest.approx(expected, abs=1.0), state


@pytest.mark.parametrize("name", THEIRS)
def test_the_lines_of_the_independent_program_are_these(name, calculator, tmp_path):
    """Where it is installed, in whatever version."""
    overtone = pytest.importorskip("overtone")
    engine = pytest.importorskip("overtone.engines.serial_engine").SerialEngine(restart=False)
    atoms = minimum(name, calculator)
    result = overtone.calculate_anharmonics(
        atoms, lambda: calculator, tmp_path, engine=engine, derivative_source="forces", max_quanta=2
    )
    linear = 6  # modes before the first vibration
    for line in result.get_transitions():
        state = tuple(sorted(mode - linear for mode, count in line.quanta.items() for _ in range(count)))
        assert line.energy == pytest.approx(THEIRS[name][state], abs=1.0), np.round(line.energy, 1)
