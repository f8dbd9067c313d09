"""Conformers: torsions, duplicates and mirror images, populations."""

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.thermochemistry import IdealGasThermo

import painn_fast as pf
from painn_fast.io.find import MODELS
from painn_fast.units import KB
from painn_fast.vibrations import conformers
from painn_fast.vibrations.conformers import free_energy
from painn_fast.vibrations.isometries import isometries
from painn_fast.vibrations.torsions import angles, apart, starts, torsions


@pytest.fixture(scope="module")
def model():
    return pf.load("ethanol")


@pytest.fixture(scope="module")
def ethanol(model):
    return conformers(model, molecule("CH3CH2OH"))


def turned(atoms, mirror=False, seed=0):
    """A copy turned at random, reflected, and with its hydrogens in another order."""
    one, random = atoms.copy(), np.random.default_rng(seed)
    rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation)) * (-1 if mirror else 1)
    one.positions = one.positions @ rotation + random.normal(size=3)
    order = np.arange(len(one))
    hydrogens = np.flatnonzero(one.numbers == 1)
    order[hydrogens] = random.permutation(hydrogens)
    return one[order]


def test_ethanol_is_trans_and_twofold_gauche(ethanol):
    found = {one.name: one for one in ethanol.members}
    assert {name: (one.degeneracy, one.symmetry) for name, one in found.items()} == {"gauche": (2, 1), "trans": (1, 1)}
    assert ethanol.populations.sum() == pytest.approx(1.0)
    assert [round(abs(float(angle)), -1) for angle in found["gauche"].wells[:, 0]] == [60.0, 60.0]
    assert found["gauche"].wells.sum() == pytest.approx(0.0, abs=1.0), "both mirror images"
    assert found["trans"].energy == 0.0 < found["gauche"].energy < 0.02


@pytest.mark.parametrize("quantum", [True, False])
def test_populations_are_those_of_partition_functions(model, ethanol, quantum):
    """Ratio of products of the textbook: rotation, vibration, Boltzmann factor, number of mirror images."""
    temperature = 350.0
    found = conformers(model, molecule("CH3CH2OH"), temperature=temperature, quantum=quantum)
    z = {}
    for one in found.members:
        x = 1.4387769 * one.lines.wavenumber / temperature  # h c nu / kB T
        vibration = np.prod(np.exp(-0.5 * x) / (1.0 - np.exp(-x))) if quantum else np.prod(1.0 / x)
        rotation = np.sqrt(one.atoms.get_moments_of_inertia().prod())
        z[one.name] = one.degeneracy * rotation * vibration * np.exp(-one.energy / (KB * temperature))
    for one in found.members:
        assert one.population == pytest.approx(z[one.name] / sum(z.values()), rel=1e-5)


def test_free_energies_are_those_of_ase(ethanol):
    gibbs = []
    for one in ethanol.members:
        quanta = one.lines.wavenumber * 1.239841984e-4
        gas = IdealGasThermo(quanta, "nonlinear", 0.0, one.atoms, one.symmetry, 0)
        gibbs.append(gas.get_gibbs_energy(300.0, 101325.0, verbose=False))
    ours = [free_energy(one.lines, 300.0) for one in ethanol.members]
    assert ours[0] - ours[1] == pytest.approx(gibbs[0] - gibbs[1], abs=1e-5)


def test_any_start_gives_the_same_conformers(model, ethanol):
    one = molecule("CH3CH2OH")
    one.set_dihedral(1, 0, 2, 3, 75.0, indices=[3])
    again = conformers(model, turned(one))
    assert [c.name for c in again.members] == [c.name for c in ethanol.members]
    assert again.populations == pytest.approx(ethanol.populations, abs=1e-3)


def test_without_a_search_the_given_structures_alone(model, ethanol):
    trans = next(one.atoms for one in ethanol.members if one.name == "trans")
    alone = conformers(model, trans, search=False)
    assert [(one.name, one.population) for one in alone.members] == [("trans", 1.0)]
    both = conformers(model, [one.atoms for one in ethanol.members], search=False)
    assert both.populations == pytest.approx(ethanol.populations, abs=1e-3)


def test_structures_of_different_molecules_are_refused(model):
    with pytest.raises(pf.PaiNNFastError, match=r"conformers of different molecules.*structure 1"):
        conformers(model, [molecule("CH3CH2OH"), molecule("CH3OH")])


@pytest.mark.parametrize(
    ("name", "rotations", "chiral"),
    [("H2O", 2, False), ("NH3", 3, False), ("CH4", 12, False), ("C6H6", 12, False), ("H2O2", 2, True),
     ("CH3Cl", 3, False), ("C2H4", 4, False), ("CH3CH2OH", 1, False), ("trans-butane", 2, False),
     ("CO", 1, False), ("N2", 2, False), ("CO2", 2, False), ("C2H2", 2, False), ("HCN", 1, False)],
)  # fmt: skip
def test_symmetry_numbers_and_chirality(name, rotations, chiral):
    atoms = molecule(name)
    if name == "H2O2":
        atoms.set_dihedral(2, 0, 1, 3, 110.0, indices=[3])
    own = isometries(atoms, turned(atoms))
    assert own == (rotations, 0 if chiral else rotations)
    assert isometries(atoms, turned(atoms, mirror=True)) == own[::-1]


def test_another_structure_and_another_isotope_are_not_the_same():
    one = molecule("CH3CH2OH")
    other = one.copy()
    other.set_dihedral(1, 0, 2, 3, 60.0, indices=[3])
    heavy = one.copy()
    heavy.set_masses([2.014 if k == 3 else mass for k, mass in enumerate(one.get_masses())])
    assert isometries(one, other) == isometries(one, heavy) == (0, 0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("CH3CH2OH", ["C-C-O-H"]), ("trans-butane", ["C-C-C-C"]), ("C2H6", []), ("C6H6", []), ("C2H4", []),
     ("HCOOH", ["H-O-C-O"]), ("cyclobutane", []), ("CH3CN", []), ("H2O2", ["H-O-O-H"]), ("CO2", [])],
)  # fmt: skip
def test_rotatable_bonds(name, expected):
    assert sorted(torsion.name for torsion in torsions(molecule(name))) == expected


def test_angles_are_those_of_ase():
    atoms = molecule("trans-butane")
    found = torsions(atoms)
    for one in starts(atoms, found, 20, 0):
        assert apart(angles(one.positions, found), one.get_dihedral(*found[0].atoms)).max() < 1e-6


def test_many_torsions_start_from_a_bounded_choice_that_repeats():
    atoms = ase.io.read(MODELS / "aspirin.xyz")
    found = torsions(atoms)
    one, again, other = (starts(atoms, found, 5, seed) for seed in (0, 0, 1))
    assert len(found) == 4, [torsion.name for torsion in found]
    assert len(one) <= 5
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(one, again, strict=True))
    assert any(not np.array_equal(a.positions, b.positions) for a, b in zip(one, other, strict=False))


@pytest.mark.filterwarnings("ignore:the surface is rough")  # no molecule of this model
def test_a_molecule_without_torsions_has_the_minimum_alone(model):
    found = conformers(model, molecule("CH3OH"))
    assert (len(found), found.torsions) == (1, ())


def test_a_linear_molecule_is_one_whether_or_not_it_is_bent_by_a_hair():
    straight, bent = molecule("CO2"), turned(molecule("CO2"))
    bent.rattle(0.001, seed=1)
    assert isometries(straight, bent, 0.02) == isometries(bent, straight, 0.02) == (2, 2)
    assert isometries(molecule("CO"), molecule("N2")) == (0, 0)


def test_a_methyl_group_of_two_isotopes_turns():
    """CH2D-CH2OH: D anti or gauche to the oxygen are different conformers."""
    atoms = molecule("CH3CH2OH")
    masses = atoms.get_masses()
    masses[6] = 2.014  # 6 to 8 are of the methyl group
    atoms.set_masses(masses)
    assert [torsion.name for torsion in torsions(atoms)] == ["H-C-C-O", "C-C-O-H"]
    masses[6:9] = 2.014  # CD3 is one again
    atoms.set_masses(masses)
    assert [torsion.name for torsion in torsions(atoms)] == ["C-C-O-H"]


@pytest.mark.parametrize("temperature", [0.0, -5.0, float("nan"), float("inf")])
def test_populations_need_a_temperature(model, temperature):
    with pytest.raises(pf.PaiNNFastError, match=r"not a temperature; got: .* K; expected: a finite number above 0"):
        conformers(model, molecule("CH3CH2OH"), temperature=temperature)
