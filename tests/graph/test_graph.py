"""Neighbour lists against brute force and ASE, and what a batch refuses."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule
from ase.neighborlist import neighbor_list as ase_neighbor_list

from painn_fast.errors import PaiNNFastError
from painn_fast.graph import batch_arrays, batch_atoms

SYSTEMS = {
    "small cell, many images": bulk("Cu"),
    "skewed": bulk("MgO", "rocksalt", a=4.2),
    "slab, open along z": fcc111("Al", (2, 2, 3), vacuum=None, a=4.05),
    "graphene, no third vector": graphene(a=2.46),
    "molecule": molecule("C6H6"),
    "wire": Atoms(
        "C4", [[0, 0, 0], [1.3, 0, 0], [2.6, 0.4, 0], [3.9, 0, 0.3]], cell=[5.2, 0, 0], pbc=[True, False, False]
    ),
}


def edges(batch):
    vectors = batch.edge_vectors().numpy().round(9)
    return sorted(zip(batch.receiver.tolist(), batch.sender.tolist(), map(tuple, vectors.tolist()), strict=True))


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("cutoff", [3.1, 5.0])
def test_list_is_that_of_ase(system, cutoff):
    atoms = SYSTEMS[system].copy()
    atoms.rattle(0.02, seed=3)
    batch = batch_atoms([atoms], cutoff, neighbors="list")
    i, j, d = ase_neighbor_list("ijD", atoms, cutoff)
    assert edges(batch) == sorted(zip(i.tolist(), j.tolist(), map(tuple, d.round(9).tolist()), strict=True))


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_edge_has_its_mirror_image_and_rows_are_sorted(system):
    batch = batch_atoms([SYSTEMS[system], SYSTEMS[system]], 4.0)
    mirrored = sorted((j, i, tuple(-x + 0.0 for x in r)) for i, j, r in edges(batch))
    assert [(i, j, tuple(x + 0.0 for x in r)) for i, j, r in edges(batch)] == mirrored
    assert bool((batch.receiver.diff() >= 0).all())
    degree = torch.bincount(batch.receiver, minlength=batch.n_total)
    assert torch.equal(batch.row_ptr.diff(), degree)


def test_molecules_of_a_batch_do_not_touch():
    batch = batch_atoms([molecule("H2O"), Atoms("H"), molecule("CH4")], 5.0)
    assert torch.equal(batch.molecule[batch.receiver], batch.molecule[batch.sender])
    assert batch.n_atoms.tolist() == [3, 1, 5]
    assert batch.molecule.tolist() == [0] * 3 + [1] + [2] * 5


def test_copies_of_one_molecule_equal_the_batch_of_atoms():
    atoms = molecule("CH3CH2OH")
    a = batch_atoms([atoms] * 3, 5.0)
    b = batch_arrays(atoms.numbers, np.repeat(atoms.positions[None], 3, axis=0))
    for name in a.__dataclass_fields__:
        assert torch.equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "without atoms"),
        (Atoms("H2", [[0, 0, 0], [0, 0, np.nan]]), "atom 1"),
        (Atoms("OH", [[0, 0, 0], [0, 0, 0.01]]), "on top of each other.*atoms 0 and 1"),
        (Atoms("H2", [[0, 0, 0], [0, 0, 5]], cell=[0, 0, 5], pbc=[False, False, True]), "on top of each other"),
        (Atoms("H", pbc=True), "without a cell vector"),
    ],
)
def test_invalid_structures_are_refused(atoms, message):
    with pytest.raises(PaiNNFastError, match=message):
        batch_atoms([molecule("H2O"), atoms], 5.5)


def test_an_invalid_structure_is_named_by_its_index_in_the_list():
    with pytest.raises(PaiNNFastError, match="structure 1"):
        batch_atoms([molecule("H2O"), Atoms()], 5.0)


def test_no_structure_and_unknown_kind_are_refused():
    with pytest.raises(PaiNNFastError, match="empty list"):
        batch_atoms([], 5.0)
    with pytest.raises(PaiNNFastError, match="auto"):
        batch_atoms([molecule("H2O")], 5.0, neighbors="magic")


def test_a_batch_for_another_device_knows_what_would_be_read_back_from_there():
    batch = batch_atoms([molecule("H2O"), bulk("Si", cubic=True)], 4.0)
    moved = batch.to("meta")  # which has no numbers to read
    assert moved.elements == {1, 8, 14}
    assert moved.periodic.tolist() == [[False] * 3, [True] * 3]
    assert moved.with_positions(moved.positions).elements == {1, 8, 14}
