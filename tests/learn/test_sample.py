"""`painn-fast sample`: what is sampled, and how structures are chosen."""

from collections import Counter
from importlib.util import find_spec

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from painn_fast.cli import main
from painn_fast.errors import PaiNNFastError
from painn_fast.label.methods import How
from painn_fast.learn import SampleSettings, sample
from painn_fast.learn.displaced import amplitudes, near, strained
from painn_fast.learn.minima import Minimum, conformers, embedded, modes
from painn_fast.learn.pick import descriptors, spread_out
from painn_fast.learn.surface import MethodForces
from painn_fast.units import KB
from painn_fast.vibrations import harmonic
from painn_fast.vibrations.conformers import ROUGHLY, SAME_ENERGY
from painn_fast.vibrations.isometries import isometries
from painn_fast.vibrations.torsions import connected

ETHANOL = How("model:ethanol")
NEEDS_RDKIT = pytest.mark.skipif(find_spec("rdkit") is None, reason="no rdkit")


@pytest.fixture(scope="module")
def minimum():
    ethanol = molecule("CH3CH2OH")
    with MethodForces(ETHANOL, ethanol) as surface:
        return modes(surface, conformers(surface, ethanol, seed=0, rdkit=False)[0])


def test_the_command_writes_all_kinds_with_the_bonds_of_the_molecule(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ase.io.write("ethanol.xyz", molecule("CH3CH2OH"))
    words = ["sample", "ethanol.xyz", "--with", "model:ethanol", "--count", "41", "--beads", "4", "-o", "chosen.xyz"]
    assert main(words) == 0
    frames = ase.io.read("chosen.xyz", ":")
    assert Counter(frame.info["kind"] for frame in frames) == {"beads": 21, "hot beads": 10, "near": 4, "strained": 6}
    bonds = connected(molecule("CH3CH2OH"))
    assert all((connected(one) == bonds).all() for one in frames if one.info["kind"] != "strained")
    assert not list(tmp_path.glob("*.sampling"))
    assert main(words) == 2  # the output exists


def test_the_seed_decides_what_is_sampled(tmp_path):
    def positions(seed, name):
        chosen = {"method": "model:ethanol", "count": 6, "beads": 2, "seed": seed, "output": str(tmp_path / name)}
        return np.array(
            [one.positions for one in ase.io.read(sample(SampleSettings(**chosen), molecule("CH3CH2OH")), ":")]
        )

    first = positions(3, "a.xyz")
    assert np.array_equal(first, positions(3, "b.xyz"))
    assert not np.array_equal(first, positions(4, "c.xyz"))


def test_conformers_of_a_surface_are_those_of_its_model():
    ethanol = molecule("CH3CH2OH")
    with MethodForces(ETHANOL, ethanol) as surface:
        found = conformers(surface, ethanol, seed=0, rdkit=False)
    assert len(found) == 2  # trans and gauche, of which the mirror image is no other


@NEEDS_RDKIT
@pytest.mark.skipif(find_spec("tblite") is None, reason="no tblite")
def test_rdkit_adds_conformers_and_loses_none():
    given = _of_smiles("OCC1CC1")  # a ring, and two torsions
    with MethodForces(How("tblite"), given, workers=1) as surface:
        plain, more = (conformers(surface, given, seed=0, rdkit=with_rdkit) for with_rdkit in (False, True))
        energies = [surface.evaluated(found)[0] for found in (plain, more)]
    assert len(plain) > 1
    assert all((connected(one) == connected(given)).all() for one in more)
    for one, energy in zip(plain, energies[0], strict=True):
        near = np.flatnonzero(np.abs(energies[1] - energy) < SAME_ENERGY)
        assert any(any(isometries(more[k], one, ROUGHLY)) for k in near)


@NEEDS_RDKIT
@pytest.mark.parametrize(("smiles", "charge"), [("OC1CCC1", 0), ("C[NH3+]", 1), ("CC(=O)[O-]", -1)])
def test_rdkit_embeds_the_bonds_of_the_molecule_in_the_order_of_its_atoms(smiles, charge):
    given = _of_smiles(smiles)
    found = embedded(given, 0, charge)
    assert len(found) == 32
    for one in found:
        assert (one.numbers == given.numbers).all()
        assert (connected(one) == connected(given)).all()
    assert np.array_equal(found[5].positions, embedded(given, 0, charge)[5].positions)
    assert not np.array_equal(found[5].positions, embedded(given, 1, charge)[5].positions)


@NEEDS_RDKIT
def test_what_rdkit_takes_for_no_molecule_has_no_conformers_of_it():
    with pytest.warns(UserWarning, match="RDKit finds no bonds"):
        assert embedded(_of_smiles("C[NH3+]"), 0, 0) == []


def _of_smiles(text):
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    made = Chem.AddHs(Chem.MolFromSmiles(text))
    rdDistGeom.EmbedMolecule(made, randomSeed=1)
    return Atoms([atom.GetSymbol() for atom in made.GetAtoms()], made.GetConformer().GetPositions())


def test_lines_of_a_method_are_those_of_the_harmonic_spectrum(minimum):
    import painn_fast as pf

    right = harmonic(pf.load("ethanol"), minimum.atoms)
    assert np.abs(minimum.wavenumber - right.wavenumber).max() < 1.0  # cm-1: relaxed to 1e-5 and to 3e-3 eV/Å
    assert np.corrcoef(minimum.intensity, right.intensity)[0, 1] > 0.999


def test_amplitudes_are_those_of_harmonic_oscillators():
    one = Minimum(molecule("H2"), 0.0, np.array([4000.0]), np.zeros((1, 2, 3)), None)
    # quantum at 0 K: sqrt(hbar / (2 omega)) = 0.0649 Å sqrt(amu); classical: sqrt(kB T) / omega = 0.0210
    assert amplitudes(one, 10.0, quantum=True)[0] == pytest.approx(0.06492, rel=1e-3)
    assert amplitudes(one, 300.0, quantum=False)[0] == pytest.approx(0.02096, rel=1e-3)


def test_near_structures_have_the_classical_energy(minimum):
    frames = near(minimum, 90, np.random.default_rng(0))
    with MethodForces(ETHANOL, minimum.atoms) as surface:
        energies, _ = surface.evaluated(frames)
    for k, kelvin in enumerate((30.0, 100.0)):
        mean = np.mean(energies[k::3]) - minimum.energy
        expected = 0.5 * len(minimum.wavenumber) * KB * kelvin
        assert 0.75 * expected < mean < 1.35 * expected  # standard error 5 %, anharmonicity some per cent


def test_strained_structures_move_each_mode_in_turn(minimum):
    count = len(minimum.wavenumber)
    frames = strained(minimum, 2 * count, 300.0, np.random.default_rng(0))
    root = minimum.atoms.get_masses()[:, None]
    q = np.array(
        [[(root * mode * (one.positions - minimum.atoms.positions)).sum() for mode in minimum.modes] for one in frames]
    )
    share = np.abs(q) / amplitudes(minimum, 300.0, quantum=True)
    own = share[np.arange(2 * count), np.arange(2 * count) % count]
    assert own.max() <= 2.5
    assert own.max() > 2.0


def test_each_choice_is_the_farthest_from_those_before():
    points = np.array([[0.0], [1.0], [2.0], [7.0], [10.0]])  # mean 4
    assert spread_out(points, 3).tolist() == [4, 0, 3]
    assert spread_out(points, 2, known=np.array([[0.0]])).tolist() == [4, 3]
    assert sorted(spread_out(points, 9).tolist()) == [0, 1, 2, 3, 4]


def test_descriptors_do_not_change_with_rotation_and_exchange():
    ethanol = molecule("CH3CH2OH")
    ethanol.rattle(0.1, seed=1)
    turned = ethanol.copy()
    turned.rotate(40.0, (1.0, 2.0, 3.0))
    hydrogens = np.flatnonzero(ethanol.numbers == 1)
    turned.positions[hydrogens] = turned.positions[hydrogens[::-1]]
    one, other = descriptors([ethanol, turned])
    assert np.allclose(one, other)
    ethanol.positions[0, 0] += 0.1
    assert not np.allclose(descriptors([ethanol])[0], other)


def test_a_method_that_always_fails_is_named():
    with (
        MethodForces(How("model:ethanol"), molecule("SiH4")) as surface,
        pytest.raises(PaiNNFastError, match="model:ethanol fails"),
    ):
        conformers(surface, molecule("SiH4"), seed=0, rdkit=False)
