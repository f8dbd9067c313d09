"""Bonds that break and bonds that are exchanged: every back end does what the specification does."""

import dataclasses
import os

import pytest
import torch

from painn_fast.kernels.bonds import CONTACT, STRETCH, Bonds, Contacts, cpu, nearest_image, reference, triton
from painn_fast.kernels.bonds.ops import update_bonds
from painn_fast.testing import assert_close

DEVICE = os.environ["KERNELS_ON"]
EVERY = [reference, cpu, triton]
H, O, C = 0.31, 0.66, 0.76
STEP = 2**33 + 7


def contacts(radii, cell=None):
    box = torch.zeros(3, 3, dtype=torch.float64) if cell is None else torch.tensor(cell, dtype=torch.float64)
    values = torch.tensor(radii, dtype=torch.float64)
    return Contacts(values, values == H, box, torch.linalg.pinv(box), cell is not None)


def bonds(pairs, length, S=1):
    atoms = torch.tensor(pairs).expand(S, -1, -1).clone()
    start = torch.tensor(length, dtype=torch.float64).expand(S, -1).clone()
    return Bonds(atoms, start, torch.zeros(start.shape, dtype=torch.int64), torch.zeros_like(start))


def updated(backend, positions, made, which, *, stop=True, stopped=None, step=STEP):
    """What becomes of bonds and of the marks of trajectories."""
    device = DEVICE if backend is triton else "cpu"
    mark = torch.zeros(len(positions), dtype=torch.int64) if stopped is None else stopped
    after = Bonds(*(getattr(made, f.name).clone().to(device) for f in dataclasses.fields(made)))
    values = {f.name: getattr(which, f.name) for f in dataclasses.fields(which)}
    fixed = Contacts(**{k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in values.items()})
    mark = mark.clone().to(device)
    backend.update_bonds(positions.to(device), mark, after, fixed, step, stop)
    return Bonds(*(getattr(after, f.name).cpu() for f in dataclasses.fields(after))), mark.cpu()


def line(*positions):
    """One trajectory of one bead with atoms on a line, Å."""
    x = torch.zeros(1, 1, len(positions), 3, dtype=torch.float64)
    x[0, 0, :, 0] = torch.tensor(positions, dtype=torch.float64)
    return x


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize("stop", [True, False])
def test_a_bond_is_broken_beyond_twice_its_length(backend, stop):
    made, which = bonds([[0, 1]], [1.0]), contacts([O, H])
    for length, step in ((0.9, 0), (1.99, 0), (2.01, STEP)):
        after, mark = updated(backend, line(0.0, length), made, which, stop=stop)
        assert after.broken_at.tolist() == [[step]]
        assert mark.tolist() == [step if stop else 0]
        assert after.atoms.tolist() == [[[0, 1]]]
    assert_close(after.reached, [[2.01]], 1e-12)


@pytest.mark.parametrize("backend", EVERY)
def test_a_proton_that_has_a_new_partner_is_not_lost_until_it_loses_that_one(backend):
    made, which = bonds([[0, 1]], [0.96]), contacts([O, H, O])
    assert CONTACT * (O + H) > 1.0
    moved, mark = updated(backend, line(0.0, 2.0, 3.0), made, which)
    assert mark.tolist() == [0]
    assert moved.broken_at.tolist() == [[0]]
    assert sorted(moved.atoms[0, 0].tolist()) == [1, 2]
    assert_close(moved.length, [[O + H]], 1e-12)
    back, mark = updated(backend, line(0.0, 1.0, 3.0), moved, which)  # 2.0 from the new partner, 1.0 from the old
    assert sorted(back.atoms[0, 0].tolist()) == [0, 1]
    lost, mark = updated(backend, line(0.0, -2.5, 3.0), back, which)
    assert mark.tolist() == [STEP]
    assert lost.broken_at.tolist() == [[STEP]]


@pytest.mark.parametrize("backend", EVERY)
def test_the_hydrogen_must_have_the_new_partner_not_the_atom_that_it_left(backend):
    # atom 0 loses hydrogen 1, while it touches hydrogen 2 of another atom
    which = contacts([O, H, H, O])
    after, mark = updated(backend, line(0.0, -2.5, 1.2, 2.4), bonds([[0, 1], [2, 3]], [1.0, 1.0]), which)
    assert after.broken_at.tolist() == [[STEP, 0]]
    assert mark.tolist() == [STEP]


@pytest.mark.parametrize("backend", EVERY)
def test_either_of_two_heavy_atoms_may_have_a_new_partner(backend):
    for order in ([[0, 1]], [[1, 0]]):  # atom 2 is the new partner
        after, mark = updated(backend, line(0.0, 3.2, -1.5), bonds(order, [1.5]), contacts([C, C, C]))
        assert mark.tolist() == [0]
        assert after.atoms[0, 0].tolist() == [0, 2]


@pytest.mark.parametrize("backend", EVERY)
def test_two_hydrogens_that_leave_together_are_one_bond_too_few(backend):
    which, made = contacts([C, H, H]), bonds([[0, 1], [0, 2]], [1.1, 1.1])
    after, mark = updated(backend, line(0.0, 2.5, 3.24), made, which)
    assert sorted(after.atoms[0, 0].tolist()) == [1, 2]
    assert after.broken_at.tolist() == [[0, STEP]]
    assert mark.tolist() == [STEP]


@pytest.mark.parametrize("backend", EVERY)
def test_the_nearest_of_several_new_partners_is_taken(backend):
    x = line(0.0, 2.5, 3.7, 2.5)
    x[0, 0, 3, 1] = 1.0
    after, _ = updated(backend, x, bonds([[0, 1]], [1.0]), contacts([O, H, O, O]))
    assert after.atoms[0, 0].tolist() == [1, 3]


@pytest.mark.parametrize("backend", EVERY)
def test_centroids_count_not_beads(backend):
    x = line(0.0, 1.0).repeat(1, 3, 1, 1)
    x[0, 0, 1, 0] = 3.5  # of one of three beads
    after, mark = updated(backend, x, bonds([[0, 1]], [1.0]), contacts([O, H]))
    assert mark.tolist() == [0]
    x[0, 1, 1, 0] = 2.5
    after, mark = updated(backend, x, bonds([[0, 1]], [1.0]), contacts([O, H]))
    assert mark.tolist() == [STEP]
    assert_close(after.reached, [[7.0 / 3.0]], 1e-12)


@pytest.mark.parametrize("backend", EVERY)
def test_nan_and_no_bond_break_nothing_and_stopped_trajectories_and_broken_bonds_are_left(backend):
    made = bonds([[0, 1], [0, 0]], [1.0, float("inf")], S=4)
    made.broken_at[3, 0] = 5
    x = line(0.0, 2.5).repeat(4, 1, 1, 1)
    x[1, 0, 1, 0] = float("nan")
    after, mark = updated(backend, x, made, contacts([O, H]), stopped=torch.tensor([0, 0, 3, 0]))
    assert mark.tolist() == [STEP, 0, 3, 0]
    assert after.broken_at.tolist() == [[STEP, 0], [0, 0], [0, 0], [5, 0]]


@pytest.mark.parametrize("backend", EVERY)
def test_images_in_a_cell_are_the_nearest(backend):
    cell = [[6.0, 0.0, 0.0], [2.0, 7.0, 0.0], [0.0, 0.0, 0.0]]  # a slab
    which = contacts([O, H, O], cell)
    made = bonds([[0, 1]], [1.0])
    x = line(0.0, 0.9, 3.0)
    x[0, 0, 1, :2] += torch.tensor([6.0 - 4.0, -14.0])  # beyond the cell by a - 2 b
    after, mark = updated(backend, x, made, which)
    assert after.atoms[0, 0].tolist() == [0, 1]
    assert mark.tolist() == [0]
    x[0, 0, 1, 0] += 1.3  # 2.2 from one, 0.8 from the other
    after, mark = updated(backend, x, made, which)
    assert after.atoms[0, 0].tolist() == [1, 2]
    x[0, 0, 1, 2] += 2.0  # no image in this direction
    after, mark = updated(backend, x, made, which)
    assert mark.tolist() == [STEP]


def crowd(S, P, N, B, generator):
    """Atoms at random in a small box, some with bonds at random: many stretched, many within reach of others."""
    centre = 8.0 * torch.rand(S, 1, N, 3, dtype=torch.float64, generator=generator)
    x = centre + 0.2 * torch.randn(S, P, N, 3, dtype=torch.float64, generator=generator)
    pairs = torch.triu_indices(N, N, 1).T
    atoms = torch.stack([pairs[torch.randperm(len(pairs), generator=generator)[:B]] for _ in range(S)])
    length = 0.6 + 2.0 * torch.rand(S, B, dtype=torch.float64, generator=generator)
    none = torch.zeros(S, B, dtype=torch.int64)
    return x, Bonds(atoms, length, none, torch.zeros_like(length))


@pytest.mark.parametrize("backend", [cpu, triton])
@pytest.mark.parametrize("P", [1, 5])
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("small", [False, True])
def test_back_ends_equal_the_specification(backend, P, periodic, small, monkeypatch):
    if small:  # several rounds for one trajectory
        monkeypatch.setattr(triton, "TOGETHER", 4)
    generator = torch.Generator().manual_seed(3)
    x, made = crowd(6, P, 12, 11, generator)
    radii = [[H, C, O][k] for k in torch.randint(3, (12,), generator=generator)]
    which = contacts(radii, [[5.0, 0.0, 0.0], [1.0, 5.0, 0.0], [0.5, 1.0, 5.0]] if periodic else None)
    stopped = torch.tensor([0, 0, 9, 0, 0, 0])
    expected, mark = updated(reference, x, made, which, stopped=stopped)
    got, marked = updated(backend, x, made, which, stopped=stopped)
    assert int((expected.broken_at > 0).sum()) > 1
    assert int((expected.atoms != made.atoms).any(2).sum()) > 1
    assert torch.equal(marked, mark)
    assert torch.equal(got.atoms, expected.atoms)
    assert torch.equal(got.broken_at, expected.broken_at)
    assert_close(got.reached, expected.reached, 1e-12)
    assert_close(got.length, expected.length, 1e-12)


def test_the_operation_is_the_compiled_one_on_a_cpu():
    made, mark = bonds([[0, 1]], [1.0]), torch.zeros(1, dtype=torch.int64)
    update_bonds(line(0.0, STRETCH + 0.1), mark, made, contacts([O, H]), 4, True)
    assert mark.tolist() == [4]


def test_the_nearest_image_of_a_vector():
    which = contacts([O], [[4.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
    r = torch.tensor([[3.0, 9.0, -3.0], [-1.0, 0.0, 12.4]], dtype=torch.float64)
    assert_close(nearest_image(r, which), [[-1.0, 9.0, 2.0], [-1.0, 0.0, 2.4]], 1e-12)
