"""Cells and positions that no list can be made for are refused in words, at once and without memory for them."""

import time
import tracemalloc

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from painn_fast.errors import PaiNNFastError
from painn_fast.graph import batch_arrays, batch_atoms
from painn_fast.graph.neighbors import neighbor_list
from painn_fast.graph.skin import SkinList

T, F = True, False
REFUSED = {
    "parallel": ([[3, 0, 0], [6, 0, 0], [0, 0, 9]], (T, T, F), "cell vectors are parallel.*3.0, 0.0.*6.0, 0.0"),
    "antiparallel": ([[3, 0, 0], [-3, 0, 0], [0, 0, 9]], (T, T, T), "cell vectors are parallel"),
    "in a plane": ([[3, 0, 0], [0, 3, 0], [3, 3, 0]], (T, T, T), "cell vectors are parallel"),
    "nearly parallel": ([[3, 0, 0], [3, 1e-7, 0], [0, 0, 9]], (T, T, F), "cell vectors are parallel"),
    "oblique": ([[3, 0, 0], [3, 1e-4, 0], [0, 0, 9]], (T, T, T), r"too oblique.*images within 5 Å, cell.*niggli"),
    "zero": (np.zeros((3, 3)), (T, T, T), "periodic without a cell vector"),
    "a vector of zeros": ([[3, 0, 0], [0, 0, 0], [0, 0, 9]], (T, T, F), "periodic without a cell vector"),
    "NaN": ([[3, 0, 0], [0, np.nan, 0], [0, 0, 9]], (T, T, T), "cell is not finite"),
    "infinite": ([[3, 0, 0], [0, np.inf, 0], [0, 0, 9]], (T, T, T), "cell is not finite"),
    "NaN where nothing is periodic": (np.full((3, 3), np.nan), (F, F, F), "cell is not finite"),
    "tiny": (0.1 * np.eye(3), (T, T, T), r"too many neighbours.*an atom within 5 Å.*at most 10000 an atom"),
    "tinier": (1e-3 * np.eye(3), (T, T, T), "cell is too small"),
    "too small a number to square": (1e-200 * np.eye(3), (T, T, T), "cell"),
    "a tiny period": (1e-3 * np.eye(3), (F, F, T), "too many neighbours"),
    "huge": (1e9 * np.eye(3), (T, T, T), "cell is absurdly large"),
    "huger": (1e200 * np.eye(3), (T, F, T), "cell is absurdly large"),
}


def refused(what):
    cell, pbc, message = REFUSED[what]
    return np.array(cell, dtype=float), np.array(pbc), message


@pytest.mark.parametrize("what", REFUSED)
def test_such_a_cell_is_refused_soon_and_named(what):
    cell, pbc, message = refused(what)
    atoms = Atoms("CH", [[0, 0, 0], [0.3, 0.4, 1.0]], cell=cell, pbc=pbc)
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(PaiNNFastError, match=message) as raised:
        batch_atoms([bulk("Cu"), atoms], 5.0)
    assert time.perf_counter() - began < 2.0
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert "structure 1 (CH)" in str(raised.value)
    with pytest.raises(PaiNNFastError, match=message):
        neighbor_list(atoms.positions, cell, pbc, 5.0)


@pytest.mark.parametrize(
    ("cell", "pbc"), [([[3, 0, 0], [6, 0, 0], [0, 0, 9]], (T, F, T)), (np.zeros((3, 3)), (F, F, F))]
)
def test_vectors_of_open_directions_do_not_matter(cell, pbc):
    edges = neighbor_list(np.array([[0, 0, 0], [0, 0, 1.0]]), np.array(cell, float), np.array(pbc), 5.0)
    assert len(edges.receiver) == (10 if any(pbc) else 2)


def test_a_left_handed_cell_is_as_good_as_a_right_handed_one():
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.1, seed=0)
    mirrored = atoms.copy()
    mirrored.set_cell(atoms.cell.array[[1, 0, 2]])
    assert mirrored.cell.handedness == -atoms.cell.handedness
    here, there = (batch_atoms([one], 4.0) for one in (atoms, mirrored))
    vectors = [np.round(b.edge_vectors().numpy(), 9) for b in (here, there)]
    assert sorted(map(tuple, vectors[0])) == sorted(map(tuple, vectors[1]))


@pytest.mark.parametrize("length", [1e4, 1e6, 9e7])
@pytest.mark.parametrize("pbc", [(T, T, T), (T, T, F)])
def test_a_cell_may_be_a_large_box_in_one_direction(length, pbc):
    positions = np.array([[0, 0, 0], [1.0, 1.0, 1.0]])
    expected = neighbor_list(positions, np.diag([3.0, 4.0, 100.0]), np.array(pbc), 5.0)
    got = neighbor_list(positions, np.diag([3.0, 4.0, length]), np.array(pbc), 5.0)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("pbc", [(T, F, T), (T, T, T), (F, F, F)])
def test_atoms_spread_over_a_thread_of_a_cell_are_refused_not_fatal(pbc):
    positions = np.linspace(0, 1, 2000)[:, None] * np.array([0.1, 2e6, 0.1])
    with pytest.raises(PaiNNFastError, match="too long and thin"):
        neighbor_list(positions, np.diag([3.0, 3e6, 9.0]), np.array(pbc), 5.0)


def test_atoms_crowded_in_a_corner_are_refused_before_their_pairs_are_listed():
    positions = np.random.default_rng(0).random((20_000, 3))
    tracemalloc.start()
    for cell, pbc in ((np.zeros((3, 3)), F), (300.0 * np.eye(3), T)):
        with pytest.raises(PaiNNFastError, match=r"too many neighbours within the cut-off.*fix: check the cell"):
            neighbor_list(positions, cell, np.full(3, pbc), 5.0)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


WRONG = {
    "positions are not finite": {"positions": [[0, 0, 0], [0, 0, np.inf]]},
    "positions are absurdly large": {"positions": [[0, 0, 0], [0, 0, 1e300]]},
    "arrays of a structure": {"positions": np.zeros((2, 2))},
    "arrays of a structure .*complex": {"positions": np.array([[0, 0, 0], [0, 0, 1j]])},
    "arrays of a structure .*object": {"positions": np.array([[0, 0, 0], [0, 0, None]], dtype=object)},
    "arrays of a structure that are not what": {"numbers": np.array([1.5, 1.0])},
}


@pytest.mark.parametrize("message", WRONG)
def test_arrays_that_are_no_positions_or_elements_are_named(message):
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 1]])
    for name, values in WRONG[message].items():
        atoms.arrays[name] = np.asarray(values)
    with pytest.raises(PaiNNFastError, match=message) as raised:
        batch_atoms([Atoms("He"), atoms], 5.0)
    assert "structure 1" in str(raised.value)


@pytest.mark.parametrize("given", [None, "H2O", 3, np.zeros(3)])
def test_what_is_no_structure_is_named(given):
    with pytest.raises(PaiNNFastError, match="not a structure; where: structure 1"):
        batch_atoms([Atoms("H"), given], 5.0)


@pytest.mark.parametrize(
    ("numbers", "positions"),
    [([1, 1], np.zeros((2, 3))), ([1, 1], np.zeros((4, 3, 3))), ([1.5, 1], np.zeros((4, 2, 3))), (["H"], None)],
)
def test_copies_of_a_molecule_need_numbers_and_positions_that_fit(numbers, positions):
    with pytest.raises(PaiNNFastError, match="not a"):
        batch_arrays(numbers, positions)


def test_a_copy_without_a_list_is_at_nan_while_others_go_on():
    atoms = bulk("MgO", "rocksalt", a=4.2)
    lists = SkinList(batch_atoms([atoms], 3.0), 3.0)
    positions = torch.tensor(np.stack([atoms.positions] * 4))
    lists.batch(positions)
    positions[1, 0] = float("nan")
    positions[2, 1] = 1e12
    positions[3, 0, 0] += 0.9
    batch = lists.batch(positions)
    assert batch.positions.view(4, 2, 3).isnan().all((1, 2)).tolist() == [False, True, True, False]
    assert lists.builds == 5
    positions[1:3] = positions[0]
    assert lists.batch(positions).positions.isfinite().all()
