"""What methods label: the real forces, of the charge and spin that the structure has."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength

from painn_fast.errors import PaiNNFastError
from painn_fast.label import label, pyscf
from painn_fast.label.finite_field import Field, polarizability
from painn_fast.label.methods import How, of_calculator
from painn_fast.testing import assert_close
from painn_fast.train.data import read_file
from painn_fast.train.settings import DataFile
from painn_fast.units import BOHR, HARTREE


def _needs(name):
    return pytest.mark.skipif(find_spec(name) is None, reason=f"no {name}")


NEEDS_TBLITE, NEEDS_PYSCF = _needs("tblite"), _needs("pyscf")
METHODS = [
    How("model:ethanol"),
    How("ase.calculators.emt:EMT"),
    pytest.param(How("tblite"), marks=NEEDS_TBLITE),
    pytest.param(How("pyscf", "HF/STO-3G"), marks=NEEDS_PYSCF),
]
SMALLEST = "HF/STO-3G"


def water(seed=0):
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=seed)
    return atoms


@pytest.mark.parametrize("how", METHODS, ids=lambda how: how.method)
def test_forces_are_those_without_constraints(how):
    method, free, fixed = how.make(), water(), water()
    fixed.set_constraint([FixAtoms([0]), FixBondLength(0, 1)])
    expected = method(free, False)["forces"]
    assert np.abs(expected[0]).max() > 0.01
    assert_close(method(fixed, False)["forces"], expected, 1e-7)
    assert len(fixed.constraints) == 2, "the structure of the caller is left alone"


def test_stress_is_that_without_constraints_and_of_the_right_sign():
    atoms = bulk("Cu", cubic=True) * (1, 1, 2)
    atoms.set_cell(atoms.cell * [1.02, 1.0, 0.99], scale_atoms=True)
    atoms.rattle(0.05, seed=0)
    method = How("ase.calculators.emt:EMT").make()
    expected = method(atoms, False)["stress"]
    assert_close(expected, _stress_by_differences(EMT(), atoms, 2e-4), 1e-5)
    assert_close(method(_with(atoms, NoStress()), False)["stress"], expected, 1e-8)


@NEEDS_TBLITE
def test_stress_of_tblite_is_the_derivative_of_its_energy():
    from tblite.ase import TBLite

    atoms = Atoms("H2", [[0, 0, 0], [0.1, 0.2, 0.74]], cell=[3.0, 3.2, 3.4], pbc=True)
    found = How("tblite").make()(atoms, False)["stress"]
    assert_close(found, _stress_by_differences(TBLite(verbosity=0, accuracy=0.01), atoms), 2e-4)
    assert np.abs(found).max() > 2e-3


@pytest.mark.parametrize("level", ["GFN2-xTB", "GFN1-xTB"])
@NEEDS_TBLITE
def test_the_polarizability_of_tblite_is_the_curvature_of_its_energy_in_a_field(level):
    from tblite.ase import TBLite

    atoms, step = water(), 0.1  # V/Å
    atoms.info["charge"] = 1.0
    atoms.info["spin"] = 2
    found = How("tblite", level).make()(atoms, True)["polarizability"]
    assert np.array_equal(found, found.T)

    def energy(field):
        options = {"accuracy": 0.001, "electric_field": Field(field)}
        return of_calculator(TBLite(method=level, verbosity=0, **options))(atoms, False)["energy"]

    curvature = np.empty((3, 3))
    for i, j in np.ndindex(3, 3):
        corners = [(a * b, energy(step * (a * np.eye(3)[i] + b * np.eye(3)[j]))) for a in (1, -1) for b in (1, -1)]
        curvature[i, j] = -sum(sign * value for sign, value in corners) / (4 * step**2)  # e Å²/V
    assert_close(found, 14.399645 * curvature, 2e-3)


@NEEDS_TBLITE
def test_polarizabilities_of_tblite_do_not_depend_on_the_step_and_turn_with_the_molecule(monkeypatch):
    atoms, method = water(), How("tblite").make()
    found = method(atoms, True)["polarizability"]
    turned = atoms.copy()
    turned.rotate(70, (1, 2, 3))
    turn = np.linalg.lstsq(atoms.positions, turned.positions, rcond=None)[0]
    assert_close(method(turned, True)["polarizability"], turn.T @ found @ turn, 1e-3)
    monkeypatch.setattr("painn_fast.label.finite_field.STEP", 0.005)
    assert_close(method(atoms, True)["polarizability"], found, 2e-4)
    assert 0.3 < np.trace(found) / 3 / 1.45 < 0.4, "of the measured 1.45 Å³ of water"
    assert "polarizability" not in method(bulk("Si"), True)


@NEEDS_TBLITE
def test_the_size_of_polarizabilities_of_tblite_is_warned_of(tmp_path, capsys):
    ase.io.write(tmp_path / "water.xyz", [water(seed) for seed in range(2)])
    output = label(tmp_path / "water.xyz", tmp_path / "x.extxyz", method="tblite", workers=1, polarizability_every=2)
    assert "half the true size" in capsys.readouterr().err
    labelled = read_file(DataFile(file=output.name), tmp_path).labels["polarizability"]
    assert np.isfinite(labelled[0]).all()
    assert np.isnan(labelled[1]).all()
    label(tmp_path / "water.xyz", tmp_path / "y.extxyz", method="tblite", workers=1, polarizability_every=0)
    assert "half the true size" not in capsys.readouterr().err


class NoStress:
    """A constraint on the cell."""

    def adjust_positions(self, atoms, positions):
        pass

    def adjust_forces(self, atoms, forces):
        forces[:] = 0.0

    def adjust_stress(self, atoms, stress):
        stress[:] = 0.0


def _with(atoms, constraint):
    copy = atoms.copy()
    copy.set_constraint(constraint)
    return copy


def _stress_by_differences(calculator, atoms, step=1e-3):
    """[6] eV/Å³, of the energy under strain."""
    stress = []
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += 0.5 * sign * step
            strain[j, i] += 0.5 * sign * step
            one = atoms.copy()
            one.set_cell(atoms.cell @ strain, scale_atoms=True)
            one.calc = calculator
            energies.append(one.get_potential_energy())
        stress.append((energies[0] - energies[1]) / (2 * step) / atoms.get_volume())
    return np.array(stress)


@pytest.mark.parametrize(("pbc", "names"), [((1, 1, 0), {"energy", "forces"}), (False, {"energy", "forces", "dipole"})])
def test_properties_are_labelled_where_they_are_defined(pbc, names):
    atoms = water()
    atoms.set_cell([9, 9, 9])
    atoms.pbc = pbc
    model = "model:ethanol"
    assert set(How(model).make()(atoms, True)) == (names | {"polarizability"} if "dipole" in names else names)


@NEEDS_PYSCF
def test_pyscf_computes_the_ion_under_all_names_of_its_charge():
    method, neutral = How("pyscf", SMALLEST).make(), molecule("OH")
    neutral.info["spin_multiplicity"] = 2
    anion = molecule("OH")
    anion.info["total_charge"] = -1
    assert abs(method(neutral, False)["energy"] - method(anion, False)["energy"]) > 0.1
    option = How("pyscf", SMALLEST, (("charge", -1),)).make()
    assert option(molecule("OH"), False)["energy"] == method(anion, False)["energy"]


@NEEDS_PYSCF
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pbc": True, "cell": [9, 9, 9]}, "labels molecules in vacuum"),
        ({"info": {"charge": 0.5}}, "whole number"),
        ({"info": {"charge": "none"}}, "not a total charge"),
        ({"info": {"total_spin": 1}}, "2S, S or the multiplicity"),
    ],
)
def test_what_pyscf_does_not_compute(change, message):
    with pytest.raises(PaiNNFastError, match=message):
        How("pyscf", SMALLEST).make()(Atoms("H2", [[0, 0, 0], [0, 0, 0.74]], **change), False)


@NEEDS_PYSCF
@pytest.mark.parametrize(
    ("level", "name", "charge"),
    [("PBE/def2-SVP", "H2O", 0), ("HF/STO-3G", "H2O", 0), ("PBE0/STO-3G", "H2O", 1), ("HF/STO-3G", "H2", 0)],
)
def test_polarizabilities_of_pyscf_are_the_derivatives_of_its_dipole_by_a_field(level, name, charge):
    atoms = molecule(name)
    atoms.rotate(40, (1, 2, 3))
    atoms.info.update(charge=charge, spin=1 + charge)
    found = How("pyscf", level).make()(atoms, True)["polarizability"]
    assert np.array_equal(found, found.T)
    core = pyscf.field_of(atoms, level, {}).get_hcore()

    def dipole(strength):  # V/Å
        field = pyscf.field_of(atoms, level, {"conv_tol": 1e-12})
        position = field.mol.intor("int1e_r")
        field.get_hcore = lambda *_: core + np.einsum("x,xpq->pq", strength * BOHR / HARTREE, position)
        field.kernel()
        return field.dip_moment(unit="AU", verbose=0) * BOHR

    assert_close(found, polarizability(dipole), 2e-4)
    assert np.trace(found) > 0.3  # Å³


@NEEDS_PYSCF
@pytest.mark.parametrize(("alpha", "beta"), [(1, 0), (-0.7, 0), (1, 1), (2.5, -0.3)])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
def test_products_of_pyscf_by_numpy(turned, alpha, beta):
    from pyscf.lib import numpy_helper

    random = np.random.default_rng(0)
    a, b = (
        np.asarray(random.normal(size=shape), order="F" if other else "C")
        for shape, other in zip(((5, 3), (3, 4)), turned, strict=True)
    )
    before = random.normal(size=(5, 4))
    own = numpy_helper._dgemm
    with pyscf.products_by_numpy():
        assert numpy_helper._dgemm is not own
        result = before.copy()
        returned = numpy_helper.ddot(a, b, alpha, result, beta)
    assert numpy_helper._dgemm is own
    np.testing.assert_allclose(returned, alpha * (a @ b) + beta * before, rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(result, returned)


@NEEDS_PYSCF
def test_parts_of_matrices_are_multiplied_by_pyscf():
    from pyscf.lib import numpy_helper

    a, b, c = (np.random.default_rng(k).normal(size=(6, 6)) for k in range(3))
    own, expected = numpy_helper._dgemm, c.copy()
    expected[2:5, 1:3] = a[1:4, 2:6] @ b[2:6, 1:3]
    with pyscf.products_by_numpy():
        numpy_helper._dgemm("N", "N", 3, 2, 4, a, b, c, 1, 0, 8, 13, 13)
    np.testing.assert_allclose(c, expected, rtol=1e-13, atol=1e-13)
    assert numpy_helper._dgemm is own


@NEEDS_PYSCF
def test_another_pyscf_keeps_its_products(monkeypatch):
    from pyscf.lib import numpy_helper

    def other(a, b):
        raise AssertionError

    monkeypatch.setattr(numpy_helper, "_dgemm", other)
    with pyscf.products_by_numpy():
        assert numpy_helper._dgemm is other


@NEEDS_PYSCF
@pytest.mark.parametrize(
    ("level", "options", "message"),
    [
        ("PBE0", {}, "got: 'PBE0'; expected: a level such as PBE0/def2-SVPD"),
        (SMALLEST, {"grid": 3}, "got: grid; expected.*grid_level"),
    ],
)
def test_options_that_pyscf_does_not_understand(level, options, message):
    with pytest.raises(PaiNNFastError, match=message):
        How("pyscf", level, tuple(options.items())).make()


class WithoutForces(Calculator):
    """Energies and dipoles; forces that must not be asked for."""

    implemented_properties = ["energy", "forces", "dipole"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        assert "forces" not in properties
        self.results = {"energy": 1.0, "dipole": atoms.positions.sum(axis=0)}


@pytest.mark.parametrize(
    "how",
    [
        How("model:ethanol", properties=("dipole",)),
        How("test_methods:WithoutForces", properties=("dipole",)),
        pytest.param(How("pyscf", SMALLEST, properties=("dipole",)), marks=NEEDS_PYSCF),
    ],
    ids=lambda how: how.method,
)
def test_properties_that_are_asked_for_are_those_of_all_and_forces_cost_nothing(how, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    if how.method == "pyscf":
        monkeypatch.setattr("pyscf.grad.rhf.GradientsBase.kernel", None)
    labels = how.make()(water(), False)
    assert set(labels) == {"dipole"}
    monkeypatch.undo()
    if how.method != "test_methods:WithoutForces":
        assert_close(labels["dipole"], replace(how, properties=()).make()(water(), False)["dipole"], 1e-6)


def test_a_property_that_a_method_does_not_give_is_named():
    with pytest.raises(PaiNNFastError, match=r"does not give this.*got: dipole; expected: energy"):
        How("ase.calculators.emt:EMT", properties=("energy", "dipole")).make()(water(), False)


@NEEDS_TBLITE
def test_tblite_computes_the_charge_of_each_structure():
    method = How("tblite").make()
    energies = {}
    for charge, multiplicity in ((0, 1), (1, 2), (-1, 2), (0, 3), (0, 1)):
        atoms = water()
        atoms.info.update(charge=charge, spin=multiplicity)
        atoms.set_initial_charges([5.0, 0, 0])  # a guess of the user's, no total
        energy = method(atoms, False)["energy"]
        assert abs(energies.setdefault((charge, multiplicity), energy) - energy) < 1e-5
    assert len({round(energy, 2) for energy in energies.values()}) == 4


class Reading(Calculator):
    """Energies that encode the arguments of a calculator of another package."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        charge, moment = atoms.get_initial_charges().sum(), atoms.get_initial_magnetic_moments().sum()
        read = atoms.info.get("charge", 0), atoms.info.get("spin", 1)
        self.results = {"energy": charge + 10 * moment + 100 * read[0] + 1000 * read[1], "forces": atoms.positions * 0}


def test_a_calculator_of_another_package_receives_charge_and_spin():
    method = of_calculator(Reading())
    atoms = water()
    assert method(atoms, False)["energy"] == 1000
    how = How("other", options=(("charge", 1), ("multiplicity", 3)))
    assert abs(method(how.charged(atoms), False)["energy"] - (1 + 20 + 100 + 3000)) < 1e-9
    assert not atoms.has("initial_charges")


def test_options_that_contradict_the_structure():
    atoms = water()
    atoms.info["total_charge"] = 1
    assert How("pyscf", options=(("charge", 1),)).charged(atoms).info == {"charge": 1}
    with pytest.raises(PaiNNFastError, match=r"structure and options contradict.*'charge'; got: 1.0; expected: 0"):
        How("pyscf", options=(("charge", 0),)).charged(atoms)


def test_a_charge_by_option_stands_in_the_labels(tmp_path):
    molecule("OH").write(tmp_path / "in.xyz")
    path = label(
        tmp_path / "in.xyz", tmp_path / "out.xyz", method="ase.calculators.emt:EMT",
        options={"fixed_cutoff": True}, workers=1,
    )  # fmt: skip
    assert read_file(DataFile(file=path.name), tmp_path).charge.tolist() == [0]
    path = label(
        tmp_path / "in.xyz", tmp_path / "ion.xyz", method="model:ethanol",
        options={"charge": -1, "multiplicity": 3}, workers=1,
    )  # fmt: skip
    data = read_file(DataFile(file=path.name), tmp_path)
    assert (data.charge.tolist(), data.spin.tolist()) == ([-1], [3])


@pytest.mark.parametrize(
    ("how", "theory"),
    [
        (How("pyscf"), "PBE0/def2-SVPD, pyscf"),
        (How("pyscf", "HF/STO-3G", (("grid_level", 3), ("charge", 1))), "HF/STO-3G, pyscf, grid_level=3"),
        (How("tblite"), "GFN2-xTB, tblite"),
        (How("model:ethanol"), "model:ethanol"),
    ],
)
def test_the_level_of_theory_in_words(how, theory):
    assert how.theory == theory


def test_a_calculator_that_cannot_be_set_up_says_so():
    with pytest.raises(PaiNNFastError, match=r"the calculator cannot be set up; where: ase.calculators.eam:EAM"):
        How("ase.calculators.eam:EAM", options=(("potential", "nowhere.alloy"),)).make()
