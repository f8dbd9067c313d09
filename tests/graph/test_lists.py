"""Neighbour lists against lists made in another way: brute force over images, for large systems a k-d tree."""

import time

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.spatial import KDTree

from painn_fast.errors import PaiNNFastError
from painn_fast.graph import batch_atoms
from painn_fast.graph.neighbors import _names, molecule_lists, neighbor_list
from painn_fast.graph.skin import SkinList
from painn_fast.md.forces import ModelForces
from painn_fast.nn import PotentialConfig, RepresentationConfig
from painn_fast.testing import assert_close, random_potential

SKEWED = np.array([[7.0, 0.0, 0.0], [-3.2, 6.1, 0.0], [2.4, -2.9, 6.6]])
FLAT = np.array([[9.0, 0.0, 0.0], [8.0, 2.5, 0.0], [7.5, 2.0, 3.0]])
CELLS = {
    "cubic": 8.0 * np.eye(3),
    "skewed": SKEWED,
    "very skewed, heights under the cut-off": FLAT,
    "left-handed": SKEWED[[1, 0, 2]],
    "smaller than the cut-off": np.diag([2.1, 2.6, 3.3]),
    "much smaller than the cut-off": np.array([[1.7, 0.2, 0.0], [0.0, 1.5, 0.4], [0.3, 0.0, 1.6]]),
}
PERIODIC = {"crystal": (1, 1, 1), "slab": (1, 1, 0), "wire": (0, 1, 0), "molecule": (0, 0, 0)}


def brute_force(positions, cell, pbc, cutoff):
    """Receiver, sender and image [E, 5] of all pairs within the cut-off, sorted, from every image that could matter."""
    home = np.zeros((len(positions), 3), int)
    reach = np.zeros(3, int)
    if pbc.any():
        reciprocal = np.linalg.pinv(cell[pbc])  # [3, periodic], of the subspace
        home[:, pbc] = np.floor(positions @ reciprocal).astype(int)
        reach[pbc] = np.ceil(cutoff * np.linalg.norm(reciprocal, axis=0)).astype(int) + 1
    inside = positions - home @ cell
    steps = np.stack(np.meshgrid(*[np.arange(-k, k + 1) for k in reach], indexing="ij"), -1).reshape(-1, 3)
    r = inside[None, None] - inside[None, :, None] + (steps @ cell)[:, None, None]  # [images, i, j, 3]
    near = (r**2).sum(-1) < cutoff**2
    near &= (steps != 0).any(1)[:, None, None] | ~np.eye(len(positions), dtype=bool)
    image, i, j = near.nonzero()
    found = np.column_stack([i, j, steps[image] + home[i] - home[j]])
    return found[np.lexsort(found.T[::-1])]


def assert_right(edges, positions, cell, pbc, cutoff):
    """The pairs of brute force with their vectors, in order, each with its opposite."""
    expected = brute_force(positions, cell, pbc, cutoff)
    i, j = edges.receiver.numpy(), edges.sender.numpy()
    assert len(i) == len(expected), f"got {len(i)} edges, expected {len(expected)}"
    shift = edges.shift.numpy()
    order = np.lexsort([*(expected[:, 2:] @ cell).round(6).T[::-1], expected[:, 1], expected[:, 0]])
    mine = np.lexsort([*shift.round(6).T[::-1], j, i])
    np.testing.assert_array_equal(np.column_stack([i, j])[mine], expected[order, :2])
    np.testing.assert_allclose(shift[mine], (expected[:, 2:] @ cell)[order], atol=1e-9)
    assert (np.diff(i) >= 0).all(), "rows are not in order"
    back = edges.mirror.numpy()
    np.testing.assert_array_equal(np.sort(back), np.arange(len(i)))
    np.testing.assert_array_equal(i[back], j)
    np.testing.assert_array_equal(j[back], i)
    np.testing.assert_allclose(shift[back], -shift, atol=1e-12)


@pytest.mark.parametrize("periodic", PERIODIC)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("outside", [0, 1, 7], ids=lambda k: f"up to {k} cells outside")
def test_lists_are_those_of_brute_force(cell, periodic, outside):
    cell, pbc = CELLS[cell].copy(), np.array(PERIODIC[periodic], dtype=bool)
    for seed in range(3):
        rng = np.random.default_rng([seed, outside])
        n = 1 + int(rng.integers(9))
        fractional = rng.uniform(size=(n, 3)) + rng.integers(-outside, outside + 1, (n, 3))
        positions = fractional @ cell
        cutoff = float(rng.uniform(2.5, 5.5))
        cell[~pbc] *= rng.integers(2)  # with or without a vector in an open direction
        assert_right(neighbor_list(positions, cell, pbc, cutoff), positions, cell, pbc, cutoff)
        if not pbc.any():
            assert_right(molecule_lists(positions, np.array([n]), cutoff), positions, cell, pbc, cutoff)


def test_a_crystal_on_its_lattice_has_whole_shells():
    """Where many pairs have the same distance: the cut-off is between shells, atoms on the faces of the cell."""
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3) * 2.0
    cell, pbc = 6.0 * np.eye(3), np.ones(3, dtype=bool)
    edges = neighbor_list(grid, cell, pbc, 4.1)
    assert_right(edges, grid, cell, pbc, 4.1)
    assert np.bincount(edges.receiver).tolist() == [6 + 12 + 8 + 6] * 27


@pytest.mark.parametrize("periodic", [True, False])
def test_a_hundred_thousand_atoms_have_the_pairs_of_a_kd_tree(periodic):
    box, cutoff, n = np.array([100.0, 96.0, 104.0]), 3.0, 100_000
    positions = np.random.default_rng(0).uniform(size=(n, 3)) * box
    outside = positions + np.random.default_rng(1).integers(-2, 3, (n, 3)) * box if periodic else positions
    began = time.perf_counter()
    edges = neighbor_list(outside, np.diag(box), np.full(3, periodic), cutoff)
    ours = time.perf_counter() - began
    pairs = KDTree(positions, boxsize=box if periodic else None).query_pairs(cutoff, output_type="ndarray")
    print(f"{len(edges.receiver)} edges in {ours:.1f} s, a k-d tree in {time.perf_counter() - began - ours:.1f} s")
    i, j = edges.receiver.numpy(), edges.sender.numpy()
    one_way = i < j
    got, expected = i[one_way] * n + j[one_way], pairs.min(1) * n + pairs.max(1)
    assert len(i) == 2 * len(pairs) > 1_000_000
    np.testing.assert_array_equal(np.sort(got), np.sort(expected))
    r = outside[j] - outside[i] + edges.shift.numpy()
    assert (r**2).sum(1).max() < cutoff**2
    assert (i[edges.mirror] == j).all()


def test_atoms_so_far_outside_the_cell_that_images_cannot_be_numbered_are_an_error():
    positions = np.random.default_rng(0).uniform(0, 6, (8, 3))
    cell, pbc = 6.0 * np.eye(3), np.ones(3, dtype=bool)
    near = neighbor_list(positions, cell, pbc, 4.0)
    for cells in (1e3, 1e5):
        positions[0, 0] += 6.0 * cells
        far = neighbor_list(positions, cell, pbc, 4.0)
        assert torch.equal(far.receiver, near.receiver)
        assert torch.equal(far.sender, near.sender)
    for cells in (1e7, 1e10, 1e20):
        positions[0, 0] += 6.0 * cells
        with pytest.raises(PaiNNFastError, match=r"atoms too far outside the cell.*fix: put them back"):
            neighbor_list(positions, cell, pbc, 4.0)


def test_many_atoms_may_be_less_far_outside():
    edges = np.arange(100_000)
    for reach, fits in ((400, True), (600, False)):
        image = np.array([[0, 0, reach], *[[0, 0, 0]] * 99_999])
        if fits:
            assert (_names(edges, edges, image)[1:] >= 0).all()
        else:
            with pytest.raises(PaiNNFastError, match="too far outside the cell; got: 600 cells"):
                _names(edges, edges, image)


CUTOFF, SKIN = 4.0, 0.8
GRID = np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 3)[:40] * 2.3


def two_clusters(apart):
    """Two molecules of 20 atoms as one system: too large for all pairs."""
    positions = np.concatenate([GRID[:20], GRID[:20] + np.array([0, 0, apart])])
    return Atoms("Ne40", positions=positions + np.random.default_rng(0).normal(size=(40, 3)) * 0.1)


@pytest.fixture
def field():
    representation = RepresentationConfig(n_features=8, n_layers=2, n_rbf=5, cutoff=CUTOFF)
    return random_potential(PotentialConfig(representation=representation))


def fresh(field, systems):
    """Energy [M] and forces [M, 40, 3] with a new list."""
    batch = batch_atoms([Atoms("Ne40", positions=place.numpy()) for place in systems], CUTOFF, neighbors="list")
    with torch.no_grad(), field.reference():
        results = field(batch, ("energy", "forces"))
    return results["energy"], results["forces"].view(-1, 40, 3)


@pytest.mark.parametrize("sign", [1, -1], ids=["towards the other", "away"])
def test_of_two_molecules_of_a_system_one_may_drift_and_no_list_is_stale(field, sign):
    """Each step is far below the skin; only their sum is not."""
    atoms = two_clusters(16.0 if sign > 0 else 9.5)
    forces = ModelForces(field, atoms, backend="reference", skin=SKIN)
    skin = forces._parts[0][1].list
    assert isinstance(skin, SkinList)
    positions = torch.tensor(atoms.positions)[None].repeat(2, 1, 1)  # of two copies one drifts
    met = set()
    for _ in range(80):
        positions[1, 20:, 2] -= 0.1 * sign
        energy, gradient = forces(positions)
        expected = fresh(field, positions)
        assert_close(energy, expected[0], 1e-10, "energy")
        assert_close(gradient, expected[1], 1e-9, "forces")
        met.add(bool((torch.cdist(positions[1, :20], positions[1, 20:]) < CUTOFF).any()))
    assert met == {True, False}, "they should meet or part on the way"
    assert torch.equal(skin.reference[0], positions[0]), "the copy that stands still needs no new list"
    assert 2 + 80 // 5 <= skin.builds <= 2 + 80 // 4, "the other has one whenever it has moved by half a skin"


def test_of_two_systems_of_a_batch_one_may_drift_through_the_other_and_no_list_is_stale(field):
    still, drifting = two_clusters(7.5), two_clusters(9.0)
    forces = ModelForces(field, [still, drifting], backend="reference", skin=SKIN)
    places = [torch.tensor(atoms.positions)[None].clone() for atoms in (still, drifting)]
    for step in range(40):
        places[1][0, :, 0] += 0.1  # as a whole
        places[1][0, 20:, 2] -= 0.03
        places[0][0, 3, 1] += 0.019 * (step % 2 * 2 - 1) + 0.01  # wanders, slower than the other
        results = forces.together(places)
        expected = fresh(field, [place[0] for place in places])
        for k, (energy, gradient, _) in enumerate(results):
            assert_close(energy[0], expected[0][k], 1e-10, f"energy of system {k}")
            assert_close(gradient[0], expected[1][k], 1e-9, f"forces of system {k}")
    builds = [part.list.builds for _, part in forces._parts]
    assert builds[1] > builds[0] == 2, builds
