"""Neighbour lists with a skin, copy by copy."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from painn_fast.errors import PaiNNFastError
from painn_fast.graph import batch_atoms
from painn_fast.graph.skin import SkinList

CUTOFF, SKIN = 4.0, 0.8


@pytest.fixture
def crystal():
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.positions += np.random.default_rng(0).normal(size=(8, 3)) * 0.1
    return atoms


@pytest.fixture
def lists(crystal):
    return SkinList(batch_atoms([crystal], CUTOFF), CUTOFF, skin=SKIN)


def pairs_within(positions, batch):
    """Distances below the cut-off by receiver and sender, sorted."""
    r = (positions[batch.sender] - positions[batch.receiver] + batch.shift).norm(dim=1)
    near = r < CUTOFF
    found = zip(
        batch.receiver[near].tolist(), batch.sender[near].tolist(), r[near].round(decimals=9).tolist(), strict=True
    )
    return sorted(found)


def fresh(crystal, positions):
    copies = [Atoms(crystal.numbers, positions=p.numpy(), cell=crystal.cell, pbc=True) for p in positions]
    return batch_atoms(copies, CUTOFF)


def test_lists_stay_complete_while_atoms_wander_through_cell_boundaries(crystal, lists):
    generator = torch.Generator().manual_seed(1)
    positions = torch.tensor(np.stack([crystal.positions] * 3))
    drift = torch.tensor([[0.0, 0, 0], [0.15, 0.05, 0.0], [-0.4, 0.1, 0.2]], dtype=torch.float64)[:, None]
    for _ in range(40):
        positions = positions + drift + 0.02 * torch.randn(positions.shape, generator=generator, dtype=torch.float64)
        batch = lists.batch(positions)
        expected = fresh(crystal, positions)
        assert pairs_within(batch.positions, batch) == pairs_within(expected.positions, expected)
    assert float((positions[2] - torch.tensor(crystal.positions)).abs().max()) > 2 * 5.6, "should leave the cell"


def test_only_copies_that_moved_are_rebuilt(crystal, lists):
    positions = torch.tensor(np.stack([crystal.positions] * 3))
    lists.batch(positions)
    assert lists.builds == 3
    positions[1, 2, 0] += 0.49 * SKIN
    lists.batch(positions)
    assert lists.builds == 3
    positions[1, 2, 0] += 0.02 * SKIN
    lists.batch(positions)
    assert lists.builds == 4
    assert torch.equal(lists.reference[1], positions[1])


def test_an_atom_put_back_into_the_cell_is_noticed(crystal, lists):
    positions = torch.tensor(crystal.positions)[None]
    lists.batch(positions)
    positions = positions + torch.tensor([5.6, 0, 0])  # the same crystal, every atom in the next cell
    positions[0, 3, 0] -= 5.6
    batch = lists.batch(positions)
    expected = fresh(crystal, positions)
    assert lists.builds == 2
    assert pairs_within(batch.positions, batch) == pairs_within(expected.positions, expected)


def test_lists_of_an_earlier_run_come_back_edge_by_edge(crystal, lists):
    positions = torch.tensor(np.stack([crystal.positions] * 2))
    lists.batch(positions)
    positions += 0.1  # within the skin: a new list would have other edges
    now = lists.batch(positions)
    again = SkinList(batch_atoms([crystal], CUTOFF), CUTOFF, skin=SKIN)
    again.rebuild_at(lists.reference)
    then = again.batch(positions)
    for name in ("receiver", "sender", "shift", "row_ptr", "positions"):
        assert torch.equal(getattr(now, name), getattr(then, name)), name


def test_positions_that_are_not_finite_are_named(crystal, lists):
    positions = torch.tensor(np.stack([crystal.positions] * 2))
    positions[1, 0, 0] = float("nan")
    with pytest.raises(PaiNNFastError, match="not finite; where: copy 1"):
        lists.batch(positions)


def test_charge_and_spin_go_to_every_copy(crystal):
    crystal.info.update(charge=1.0, spin=2.0)
    lists = SkinList(batch_atoms([crystal], CUTOFF), CUTOFF)
    batch = lists.batch(torch.tensor(np.stack([crystal.positions] * 3)))
    assert batch.total_charge.tolist() == [1.0] * 3
    assert batch.spin_multiplicity.tolist() == [2.0] * 3
