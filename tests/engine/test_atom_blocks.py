"""A large molecule shared by threads."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from painn_fast.engine import CpuEngine, atom_blocks
from painn_fast.graph import batch_atoms
from painn_fast.nn import DipoleHead, EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import TOLERANCE, assert_close, random_potential

CONFIG = PotentialConfig(
    representation=RepresentationConfig(n_features=24, n_layers=3, n_rbf=8, cutoff=4.0),
    heads=(EnergyHead(), DipoleHead()),
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Sizes at which a test need not be large."""
    monkeypatch.setattr("painn_fast.engine.chunks.CHUNK_ATOMS", 20)
    monkeypatch.setattr("painn_fast.engine.atom_blocks.BLOCK_ATOMS", 9)


def crystal():
    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True).repeat((2, 2, 1))  # the cut-off reaches an atom's own images
    atoms.rattle(0.05, seed=0)
    return atoms


def cluster(atoms=47):
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)[:atoms] * 1.5
    return Atoms(rng.choice(["C", "H", "O"], atoms), grid + rng.normal(scale=0.05, size=(atoms, 3)))


@pytest.mark.parametrize("atoms", [crystal(), cluster(), cluster(21)], ids=["crystal", "cluster", "few"])
def test_each_pair_has_its_place_and_tasks_of_a_round_share_no_atom(atoms):
    potential = random_potential(CONFIG)
    batch = batch_atoms([atoms], potential.cutoff)
    work = CpuEngine(potential, threads=3).workspace(batch)
    (chunk,) = work.chunks
    division = chunk.blocks
    seen = np.concatenate([np.arange(*task) for round_ in division.rounds for share in round_ for task in share])
    assert sorted(seen) == list(range(len(batch.receiver) // 2))
    for shares in division.rounds:
        touched = [
            set(chunk.pairs.receiver[a:b].tolist() + chunk.pairs.sender[a:b].tolist())
            for share in shares for a, b in share
        ]  # fmt: skip
        assert sum(map(len, touched)) == len(set().union(*touched))
    rows = np.concatenate([np.arange(*task) for share in division.atoms for task in share])
    assert sorted(rows) == list(range(len(atoms)))
    all_pairs = np.concatenate([np.arange(*task) for share in division.pairs for task in share])
    assert sorted(all_pairs) == sorted(seen)


def test_threads_share_no_memory_but_that_of_atoms_and_of_pairs(monkeypatch):
    """What belongs to neither is of one task at a time, and tasks of a round run at once."""
    batch = batch_atoms([cluster()], 4.0)
    n, pairs = len(batch.numbers), len(batch.receiver) // 2
    assert n != pairs
    own, step = {}, atom_blocks.step

    def noted(w, g, m, *given):
        step(w, g, m, *given)
        which, k, share = given[-3:]
        arrays = [(name, array) for name, array in m._asdict().items() if isinstance(array, np.ndarray)]
        own.setdefault((which, k), []).append(
            (share.tolist(), {name: array for name, array in arrays if array.shape[0] not in (n, pairs)})
        )

    monkeypatch.setattr(atom_blocks, "step", noted)
    engine = CpuEngine(random_potential(CONFIG), threads=3)
    engine(engine.workspace(batch), batch.positions, ["energy", "forces"])
    together = max(own.values(), key=len)
    assert len(together) > 2
    assert together[0][1], "no such memory: this test is not needed"
    ids = [{array.__array_interface__["data"][0] for array in arrays.values()} for _, arrays in together]
    assert len(set.union(*ids)) >= 3 * len(together[0][1]), "three threads, each with memory of its own"


@pytest.mark.parametrize("atoms", [crystal(), cluster()], ids=["crystal", "cluster"])
def test_shared_by_threads_it_equals_the_reference(atoms):
    potential = random_potential(CONFIG, dtype=torch.float64)
    batch = batch_atoms([atoms], potential.cutoff)
    engine = CpuEngine(potential, threads=2)
    names = ["energy", "energies", "forces", *(["stress"] if atoms.pbc.all() else ["dipole"])]
    got = engine(engine.workspace(batch), batch.positions, names)
    with potential.reference():
        expected = potential(batch, names)
    for name in names:
        assert_close(got[name], expected[name].detach(), TOLERANCE[torch.float64], name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_same_bits_with_any_number_of_threads_and_in_any_batch(dtype):
    potential = random_potential(CONFIG, dtype=dtype)
    structures = [molecule("H2O"), cluster(), molecule("CH4"), cluster(30)]
    one, whole = batch_atoms(structures[1:2], potential.cutoff), batch_atoms(structures, potential.cutoff)
    names = ("energies", "forces", "charges")
    engines = [CpuEngine(potential, threads=n) for n in (1, 2, 3, 5)]
    alone = [engine(engine.workspace(one), one.positions, names) for engine in engines]
    together = [engine(engine.workspace(whole), whole.positions, names) for engine in engines]
    part = slice(3, 3 + len(structures[1]))
    for name in names:
        for other in alone[1:]:
            assert torch.equal(other[name], alone[0][name]), name
        for other in together:
            assert torch.equal(other[name], together[0][name]), name
            assert name == "charges" or torch.equal(other[name][part], alone[0][name]), name


def test_an_error_in_a_thread_is_not_lost(monkeypatch):
    def failing(*args):
        raise RuntimeError("lost")

    potential = random_potential(CONFIG, dtype=torch.float32)
    batch = batch_atoms([cluster()], potential.cutoff)
    engine = CpuEngine(potential, threads=2)
    work = engine.workspace(batch)
    engine(work, batch.positions)
    monkeypatch.setattr(atom_blocks, "step", failing)
    with pytest.raises(RuntimeError, match="lost"):
        engine(work, batch.positions)
