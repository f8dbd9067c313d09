"""Energies and forces: of a graph, of a list of Atoms, by a calculator: `pytest bench/test_energy_forces.py`."""

import pytest

from painn_fast.bench.cases import CASES


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if "energy_forces" in case.modes])
def test_energy_and_forces(measure, case, side):
    measure(case, "energy_forces", side)


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if "evaluate" in case.modes])
def test_from_atoms_to_arrays(measure, case, side):
    measure(case, "evaluate", side)


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if "calculator" in case.modes])
def test_by_the_calculator_of_ase(measure, case, side):
    measure(case, "calculator", side)
