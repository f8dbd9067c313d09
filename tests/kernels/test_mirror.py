"""Mirrors of lists in any order: those that a batch has, and which lists have none."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from painn_fast.graph import batch_atoms
from painn_fast.kernels.neighbors.mirror_cpu import ACROSS, ASYMMETRIC, INSIDE, mirrors

STRUCTURES = {
    "molecules": [molecule("CH3CH2OH"), molecule("H2O"), molecule("H")],
    "images": [bulk("NaCl", "rocksalt", a=4.2), bulk("Cu")],
}


def matched(receiver, sender, r, numbers, tolerance=1e-14):
    row_ptr = np.empty(len(numbers) + 1, np.int64)
    order, mirror = np.empty((2, len(receiver)), np.int64)
    return mirrors(receiver, sender, r, numbers, tolerance, row_ptr, order, mirror), row_ptr, order, mirror


def edges(name):
    batch = batch_atoms(STRUCTURES[name], 5.0, neighbors="list")
    return batch, [t.numpy() for t in (batch.receiver, batch.sender, batch.edge_vectors(), batch.molecule)]


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("shuffle", [False, True])
def test_each_edge_has_its_opposite(name, shuffle):
    batch, (receiver, sender, r, numbers) = edges(name)
    if shuffle:
        at = np.random.default_rng(0).permutation(len(receiver))
        receiver, sender, r = receiver[at], sender[at], r[at]
    result, row_ptr, order, mirror = matched(receiver, sender, r, numbers)
    assert result == INSIDE
    assert torch.equal(torch.from_numpy(row_ptr), batch.row_ptr)
    assert sorted(order) == list(range(len(order)))
    receiver, sender, r = receiver[order], sender[order], r[order]
    assert (np.diff(receiver) >= 0).all()
    assert (mirror[mirror] == np.arange(len(mirror))).all()
    assert (receiver[mirror] == sender).all()
    np.testing.assert_allclose(r[mirror], -r, atol=1e-13)


@pytest.mark.parametrize("fault", ["missing", "moved", "nan", "coincident", "index", "negative"])
def test_lists_without_opposites_are_noticed(fault):
    _, (receiver, sender, r, numbers) = edges("molecules")
    receiver, sender, r = receiver.copy(), sender.copy(), r.copy()
    if fault == "missing":
        receiver, sender, r = receiver[1:], sender[1:], r[1:]
    elif fault == "moved":
        r[3] += 1e-6
    elif fault == "nan":
        r[:] = np.where(receiver[:, None] == 2, np.nan, r)
    elif fault == "coincident":
        r[:] = 0.0
    else:
        sender[4] = len(numbers) if fault == "index" else -1
    assert matched(receiver, sender, r, numbers)[0] == ASYMMETRIC


def test_edges_across_molecules_are_noticed():
    _, (receiver, sender, r, numbers) = edges("molecules")
    numbers = numbers.copy()
    numbers[4:] += 1
    assert matched(receiver, sender, r, numbers)[0] == ACROSS
    assert matched(receiver, sender, r, numbers[::-1].copy())[0] == ACROSS
