"""Energies and their adjoint by kernels: those of plain torch and of the model's own head."""

import os

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from painn_fast.graph import batch_atoms
from painn_fast.kernels.readout import reference, triton
from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import assert_close, random_potential

DEVICE = os.environ["KERNELS_ON"]
SIZES = {
    "one atom": [1],
    "no atoms": [],
    "empty molecules": [0, 3, 0, 0, 5, 0],
    "molecules": [9, 1, 21],
    "a molecule larger than a program reads at once": [2, 300],
}


def inputs(sizes, hidden, dtype):
    generator = torch.Generator().manual_seed(hidden)
    n = sum(sizes)
    h, w, b = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((n, hidden), (hidden,), (1,))
    )
    table = -500 * torch.rand(20, generator=generator, dtype=torch.float64)
    numbers = torch.randint(1, 20, (n,), generator=generator)
    atom_ptr = torch.tensor([0, *sizes]).cumsum(0)
    return [h.to(dtype), w.to(dtype), b.to(dtype), table, numbers, atom_ptr]


def run(given, *, adjoint=True):
    """atomic, total, g; memory that must be filled is NaN before."""
    h, *rest = (t.to(DEVICE) for t in given)
    atomic = torch.full((len(h),), float("nan"), dtype=torch.float64, device=DEVICE)
    total = torch.full((len(rest[-1]) - 1,), float("nan"), dtype=torch.float64, device=DEVICE)
    g = torch.full_like(h, float("nan"), memory_format=torch.contiguous_format) if adjoint else None
    triton.readout(h, *rest, atomic, total, g)
    return [atomic.cpu(), total.cpu(), *([g.cpu()] if adjoint else [])]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("hidden", [1, 63, 64, 150])
@pytest.mark.parametrize("system", SIZES)
def test_equals_the_reference(system, hidden, dtype, tolerance):
    given = inputs(SIZES[system], hidden, dtype)
    given[3] *= 0 if dtype == torch.float32 else 1  # the network's part must not hide behind the references
    exact = [t.double() if t.is_floating_point() else t for t in given]
    expected = [*reference.readout(*exact), reference.adjoint(*exact[:2])]
    got = run(given)
    assert [t.dtype for t in got] == [torch.float64, torch.float64, dtype]
    for name, a, b in zip(("atomic", "total", "adjoint"), got, expected, strict=True):
        assert_close(a, b, tolerance, name)
    for a, b in zip(run(given, adjoint=False), got[:2], strict=True):
        assert torch.equal(a, b)


def test_the_adjoint_is_the_gradient():
    h, *rest = inputs([3, 4], 7, torch.float64)
    h.requires_grad_()
    expected = torch.autograd.grad(reference.readout(h, *rest)[1].sum(), h)[0]
    assert_close(reference.adjoint(h.detach(), rest[0]), expected, 1e-14)


def test_energies_are_those_of_the_models_head():
    config = PotentialConfig(representation=RepresentationConfig(n_features=16, n_rbf=4), heads=(EnergyHead(),))
    potential = random_potential(config)
    head = potential.heads["energy"]
    batch = batch_atoms([molecule("CH3CH2OH"), Atoms("H"), molecule("CH4")], 5.0)
    s = torch.randn(batch.n_total, 16, dtype=torch.float64)
    with torch.no_grad():
        total, atomic = head(s, batch)
        first, last = head.network[0], head.network[2]
        atom_ptr = torch.cat([batch.n_atoms.new_zeros(1), batch.n_atoms.cumsum(0)])
        given = [first(s), last.weight[0], last.bias, head.atomic_reference + head.mean, batch.numbers, atom_ptr]
        got = run(given)
    assert_close(got[0], atomic, 1e-12, "atomic energies")
    assert_close(got[1], total, 1e-12, "energies")


def test_two_runs_are_bitwise_equal_and_molecules_do_not_depend_on_their_batch():
    h, w, b, table, numbers, atom_ptr = inputs([9, 1, 21], 64, torch.float32)
    together = run([h, w, b, table, numbers, atom_ptr])
    for a, c in zip(together, run([h, w, b, table, numbers, atom_ptr]), strict=True):
        assert torch.equal(a, c)
    alone = run([h[10:], w, b, table, numbers[10:], torch.tensor([0, 21])])
    for a, c in zip(alone, (together[0][10:], together[1][2:], together[2][10:]), strict=True):
        assert torch.equal(a, c)


def test_inputs_may_have_any_strides():
    h, w, *rest = inputs([2, 3], 16, torch.float32)
    strided = [h.T.contiguous().T, w.repeat_interleave(2)[::2], *rest]
    assert not strided[0].is_contiguous()
    assert not strided[1].is_contiguous()
    for a, b in zip(run(strided), run([h, w, *rest]), strict=True):
        assert torch.equal(a, b)
