"""What ASE's own code relies on: the cache, properties that the model lacks, results that are handed on."""

import copy
import io
import itertools
import pickle

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError, compare_atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.md import MDLogger
from ase.md.verlet import VelocityVerlet

from painn_fast.ase import PaiNNCalculator
from painn_fast.ensemble import Ensemble
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.nn import (
    DipoleHead,
    ElectronicConfig,
    EnergyHead,
    PolarizabilityHead,
    PotentialConfig,
    RepresentationConfig,
)
from painn_fast.testing import assert_close, random_potential

HEADS = (EnergyHead(), DipoleHead(), PolarizabilityHead())


@pytest.fixture(scope="module")
def charged():
    """A model that depends on total charge and spin multiplicity, as SchNetPack's with electronic embeddings do."""
    representation = RepresentationConfig(
        n_features=16, n_layers=2, n_rbf=8, cutoff=4.0,
        charge_embedding=ElectronicConfig(), spin_embedding=ElectronicConfig(),
    )  # fmt: skip
    return random_potential(PotentialConfig(representation=representation, heads=HEADS))


@pytest.fixture
def water(charged):
    atoms = molecule("H2O")
    atoms.calc = PaiNNCalculator(charged)
    return atoms


@pytest.fixture
def crystal(charged):
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1.0]], cell=[5, 5, 5], pbc=True)
    atoms.calc = PaiNNCalculator(charged)
    return atoms


@pytest.mark.parametrize(
    ("key", "value"),
    [("charge", 1), ("total_charge", -1), ("Charge", np.array([1])), ("spin", 3), ("spin_multiplicity", 2)],
)
def test_charge_and_spin_are_inputs_that_the_cache_knows(water, charged, key, value):
    before = water.get_potential_energy(), water.get_forces()
    water.info[key] = value
    assert water.calc.check_state(water) == ["info"]
    assert water.calc.calculation_required(water, ["energy"])
    assert water.calc.get_property("energy", water, allow_calculation=False) is None
    expected = evaluate(charged, [water], ["energy", "forces"])
    assert abs(water.get_potential_energy() - expected["energy"][0]) < 1e-12
    assert abs(water.get_potential_energy() - before[0]) > 1e-6
    assert_close(water.get_forces(), expected["forces"][0], 1e-12)
    other = molecule("H2O")
    other.calc = water.calc
    assert other.get_potential_energy() == before[0]


def test_what_is_no_input_changes_nothing(water, monkeypatch):
    energy = water.get_potential_energy()
    monkeypatch.setattr(PaiNNCalculator, "calculate", lambda *_: pytest.fail("evaluated again"))
    water.info.update(charge=0, spin=1, name="water")
    water.set_initial_charges([0.5, -0.25, -0.25])
    water.set_initial_magnetic_moments([1, 0, 0])
    water.set_tags([1, 2, 3])
    water.set_constraint(FixAtoms([0]))
    assert water.calc.check_state(water) == []
    assert not water.calc.calculation_required(water, ["energy", "forces"])
    assert water.get_potential_energy() == energy


VALUES = (0.0, -0.0, 1e-16, 1e-15, 2e-15, 1.0, 1.0 + 1e-15, 1e300, np.inf, -np.inf)


@pytest.mark.parametrize("tolerance", [1e-15, 0.0, 1e-3])
def test_changes_are_those_that_ase_finds(water, tolerance):
    water.get_potential_energy()
    calculator = water.calc
    for before, after in itertools.product(itertools.product(VALUES, repeat=2), repeat=2):
        calculator.atoms.positions[0, :2], water.positions[0, :2] = before, after
        calculator.atoms.cell[1, :2], water.cell[1, :2] = before[::-1], after
        expected = compare_atoms(calculator.atoms, water, tolerance, calculator.ignored_changes)
        assert set(calculator.check_state(water, tolerance)) == set(expected), (before, after)
    for other in (molecule("H2O2"), molecule("SH2"), Atoms()):
        assert set(calculator.check_state(other)) == set(compare_atoms(calculator.atoms, other))


def test_a_charge_that_cannot_be_read_is_no_old_result(water):
    water.get_potential_energy()
    water.info["charge"] = "none"
    with pytest.raises(PaiNNFastError, match="not a total charge"):
        water.get_potential_energy()


@pytest.mark.parametrize(("pbc", "cell"), [((1, 1, 0), [5, 5, 20]), ((0, 0, 1), [9, 9, 5]), (False, None)])
def test_stress_where_it_is_not_defined(charged, pbc, cell):
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1.0]], cell=cell, pbc=pbc)
    atoms.calc = PaiNNCalculator(charged)
    energy = atoms.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError, match="stress needs a cell") as caught:
        atoms.get_stress()
    assert isinstance(caught.value, PaiNNFastError)
    assert atoms.get_potential_energy() == energy
    assert "stress" not in atoms.calc.results


@pytest.mark.parametrize("name", ["dipole", "charges", "polarizability"])
def test_what_is_not_defined_in_a_cell(crystal, name):
    with pytest.raises(PropertyNotImplementedError, match="not defined in a periodic cell") as caught:
        crystal.calc.get_property(name, crystal)
    assert isinstance(caught.value, PaiNNFastError)


@pytest.mark.parametrize("name", ["magmom", "stresses", "dipole", "nothing"])
def test_what_the_model_does_not_have(name):
    config = PotentialConfig(representation=RepresentationConfig(n_features=8, n_layers=1, n_rbf=5), heads=HEADS[:1])
    atoms, calculator = molecule("H2O"), PaiNNCalculator(random_potential(config))
    for ask in (
        lambda: calculator.get_property(name, atoms),
        lambda: calculator.get_property(name, atoms, allow_calculation=False),
        lambda: calculator.calculate(atoms, [name]),
    ):
        with pytest.raises(PropertyNotImplementedError, match="does not give this property") as caught:
            ask()
        assert isinstance(caught.value, PaiNNFastError)


def test_nothing_is_calculated_where_that_is_not_allowed(water, monkeypatch):
    monkeypatch.setattr(PaiNNCalculator, "calculate", lambda *_: pytest.fail("calculated"))
    assert water.calc.get_property("dipole", water, allow_calculation=False) is None
    assert water.calc.get_property("energy", None, allow_calculation=False) is None


def test_a_calculator_without_a_structure_says_so(charged):
    for ask in (PaiNNCalculator(charged).get_potential_energy, PaiNNCalculator(charged).calculate):
        with pytest.raises(PaiNNFastError, match="no structure to evaluate"):
            ask()


def test_results_are_copies(water):
    forces = water.get_forces()
    again = forces.copy()
    forces[:] = 0.0
    assert_close(water.get_forces(), again, 1e-15)
    old = water.calc.results
    water.positions[0, 2] += 0.1
    water.get_forces()
    assert_close(old["forces"], again, 1e-15)
    assert all(value.base is None for value in old.values() if isinstance(value, np.ndarray))


def test_results_of_another_structure_do_not_stay(water, charged):
    water.get_dipole_moment()
    water.get_potential_energy()
    assert {"energy", "dipole"} <= set(water.calc.results)
    water.calc.calculate(molecule("CH4"), ["energy"])
    assert "dipole" not in water.calc.results
    water.calc.reset()
    assert not water.calc.results
    assert abs(water.get_potential_energy() - evaluate(charged, [water], ["energy"])["energy"][0]) < 1e-12


def test_calculate_properties_of_ase(water, crystal):
    water.calc.get_property("polarizability", water)  # a name that ASE does not know is no obstacle
    values = water.get_properties(["energy", "forces", "dipole", "charges", "energies", "free_energy"])
    assert values["energy"] == water.get_potential_energy()
    assert_close(values["dipole"], water.get_dipole_moment(), 1e-15)
    assert_close(crystal.get_properties(["stress"])["stress"], crystal.get_stress(), 1e-15)
    with pytest.raises(PropertyNotImplementedError):
        water.get_properties(["stress"])


def test_results_make_a_single_point_calculator(water, charged):
    ensemble = PaiNNCalculator(Ensemble([charged, charged]))
    for calculator in (water.calc, ensemble):
        atoms = molecule("H2O")
        for name in ("energy", "dipole", "polarizability", "hessian")[: 3 + (calculator is water.calc)]:
            calculator.get_property(name, atoms)
        frozen = SinglePointCalculator(atoms, **calculator.results)
        assert frozen.get_potential_energy() == calculator.results["energy"]
        assert "polarizability" in calculator.results
        assert calculator.results.get("polarizability") is calculator.results["polarizability"]
        assert calculator.results.get("nothing", 3) == 3
    assert "energy_spread" in ensemble.results
    assert ensemble.results["energy_spread"] == 0.0
    with pytest.raises(KeyError):
        ensemble.results["nothing"]


def test_copies_of_a_calculator(water):
    water.calc.get_property("polarizability", water)
    energy = water.get_potential_energy()
    for calculator in (copy.deepcopy(water.calc), pickle.loads(pickle.dumps(water.calc)), copy.copy(water.calc)):
        assert calculator.results["energy"] == energy
        assert "polarizability" in calculator.results
        atoms = water.copy()
        atoms.calc = calculator
        atoms.rattle(0.1)
        assert atoms.get_potential_energy() != energy
        assert water.get_potential_energy() == energy


def test_positions_that_are_not_finite_end_in_words(water, crystal):
    for atoms in (water, crystal):
        atoms.get_potential_energy()
        atoms.positions[1, 2] = np.nan
        with pytest.raises(PaiNNFastError, match=r"positions are not finite.*structure 0.*atom 1"):
            atoms.get_forces()


def test_the_logger_of_ase_writes_stress_of_a_crystal(crystal, water):
    text = io.StringIO()
    dynamics = VelocityVerlet(crystal, 0.1)
    dynamics.attach(MDLogger(dynamics, crystal, text, stress=True))
    dynamics.run(2)
    assert "stress" in text.getvalue()
    with pytest.raises(PropertyNotImplementedError):
        MDLogger(None, water, io.StringIO(), stress=True)()


@pytest.mark.parametrize("name", ["x.xyz", "x.traj", "x.json", "x.db"])
def test_files_of_ase_keep_what_was_calculated(water, crystal, tmp_path, name):
    for atoms, wanted in ((water, ("energy", "forces", "dipole", "charges")), (crystal, ("energy", "stress"))):
        path = tmp_path / f"{atoms.get_chemical_formula()}-{name}"
        for one in (*wanted, *["polarizability"] * ("dipole" in wanted)):
            atoms.calc.get_property(one, atoms)
        ase.io.write(path, atoms)
        found = ase.io.read(path)
        for one in wanted:
            assert_close(found.calc.get_property(one), atoms.calc.get_property(one, atoms), 1e-7, one)


def test_arguments_of_another_kind_are_refused_in_words(charged):
    atoms = molecule("H2O")
    for wrong, match in (
        (lambda: evaluate(None, [atoms]), "not a model; got: NoneType"),
        (lambda: evaluate([charged], [atoms]), "not a model; got: list.*Ensemble"),
        (lambda: evaluate(charged, [atoms], None), "not a list of properties"),
        (lambda: evaluate(charged, [atoms], atoms_per_batch=0), "not a number of atoms"),
        (lambda: evaluate(charged, [atoms], atoms_per_batch="many"), "not a number of atoms"),
        (lambda: PaiNNCalculator(3), "not a model; got: int"),
        (lambda: PaiNNCalculator(charged, device="toaster"), "no such device; got: toaster"),
        (lambda: PaiNNCalculator(charged, energy_unit="eV"), "takes no more options; got: energy_unit"),
        (lambda: Ensemble("ethanol"), "one model where a list is expected"),
        (lambda: Ensemble([charged, None]), "not a model; got: NoneType"),
    ):
        with pytest.raises(PaiNNFastError, match=match):
            wrong()
