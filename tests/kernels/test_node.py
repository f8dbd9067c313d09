"""Everything between two messages: Triton, or its interpreter, equals plain torch and its adjoint."""

import math

import pytest
import torch

from painn_fast.testing import TOLERANCE, assert_close

pytest.importorskip("triton")

from painn_fast.kernels.node import triton as kernels
from painn_fast.kernels.node.reference import Mlp, node

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPSILON = 1e-8


def random(*shapes, dtype):
    generator = torch.Generator().manual_seed(sum(map(sum, shapes)))
    scales = [shape[0] ** -0.5 if len(shape) == 2 else 1.0 for shape in shapes]
    made = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [(scale * tensor).to(DEVICE, dtype) for scale, tensor in zip(scales, made, strict=True)]


def weights(f, hidden, dtype):
    """mix, update, following; `hidden` is the width of a readout, or None for another message."""
    mix, *update = random((f, 2 * f), (2 * f, f), (f,), (f, 3 * f), (3 * f,), dtype=dtype)
    if hidden is None:
        return mix, Mlp(*update), Mlp(*random((f, f), (f,), (f, 3 * f), (3 * f,), dtype=dtype))
    return mix, Mlp(*update), Mlp(*random((f, hidden), (hidden,), dtype=dtype), None, None)


def inputs(n, f, dtype):
    s, v = (t[: max(n, 0)] for t in random((n + 1, f), (n + 1, 3, f), dtype=dtype))
    return math.sqrt(n + 1) * s, v


def outputs(s, hidden):
    """What a kernel fills, NaN before: s, v, x or None, and what is kept."""
    n, f = s.shape

    def space(*shape):
        return torch.full((n, *shape), math.nan, dtype=s.dtype, device=s.device)

    kept = kernels.Kept(space(3, 2 * f), space(f), space(3 * f), space(hidden or f))
    return space(f), space(3, f), None if hidden else space(3 * f), kept


def forward(s, v, made, hidden, *, vectors=True):
    s_out, v_out, x, kept = outputs(s, hidden)
    norm = torch.full_like(s, math.nan)
    kernels.node_fwd(s, v, *made, EPSILON, kept, norm, s_out, v_out, x, vectors=vectors)
    return s_out, v_out, kept.next_hidden if x is None else x, kept


def backward(gs, gv, g_next, made, kept):
    mix, update, following = made
    out = torch.full_like(gs, math.nan), torch.full_like(gv, math.nan)
    scratch = torch.full_like(gs, math.nan), torch.full_like(gs, math.nan), torch.full_like(kept.vw, math.nan)
    second = None if following.second is None else following.second.T.contiguous()
    kernels.node_bwd(
        gs, gv, g_next, mix.T.contiguous(), (update.first.T.contiguous(), update.second.T.contiguous()),
        (following.first.T.contiguous(), second), EPSILON, kept, *scratch, *out,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("hidden", [None, 16], ids=["message", "readout"])
@pytest.mark.parametrize(("n", "f"), [(0, 16), (1, 16), (17, 16), (17, 32), (40, 32), (17, 96)])
def test_equals_the_reference_and_its_adjoint(n, f, hidden, dtype):
    made = weights(f, hidden, torch.float64)
    s, v = (t.requires_grad_() for t in inputs(n, f, torch.float64))
    expected = node(s, v, *made, EPSILON)
    inner = hidden is None
    gs, gv = inputs(n, f, torch.float64)
    g_next = torch.sin(expected[2].detach())
    adjoints = [gs, gv, g_next] if inner else [torch.zeros_like(gs), torch.zeros_like(gv), g_next]
    expected_g = torch.autograd.grad(expected, [s, v], adjoints)

    cast = [made[0].to(dtype), *(Mlp(*(t if t is None else t.to(dtype) for t in mlp)) for mlp in made[1:])]
    *got, kept = forward(s.detach().to(dtype), v.detach().to(dtype), cast, hidden)
    if not inner:
        gs, gv = torch.full_like(gs, math.nan), torch.full_like(gv, math.nan)  # must not be read
    got_g = backward(gs.to(dtype), gv.to(dtype), g_next.to(dtype), cast, kept)
    for name, a, b in zip(("s", "v", "x", "gs", "gv"), (*got, *got_g), (*expected, *expected_g), strict=True):
        assert a.dtype == dtype
        assert_close(a.cpu(), b.detach().cpu(), TOLERANCE[dtype], name)


def test_vectors_that_nobody_wants_are_not_made():
    made = weights(16, 16, torch.float64)
    s, v = inputs(3, 16, torch.float64)
    s_out, v_out, hidden, _ = forward(s, v, made, 16, vectors=False)
    expected = node(s, v, *made, EPSILON)
    assert_close(s_out.cpu(), expected[0].cpu(), 1e-10)
    assert_close(hidden.cpu(), expected[2].cpu(), 1e-10)
    assert v_out.isnan().all()


def test_an_atom_does_not_depend_on_the_others_and_two_runs_are_bitwise_equal():
    made = weights(32, None, torch.float32)
    s, v = inputs(40, 32, torch.float32)
    results = []
    for rows in (slice(0, 40), slice(0, 40), slice(33, 40)):
        *got, kept = forward(s[rows].contiguous(), v[rows].contiguous(), made, None)
        got += backward(s[rows].contiguous(), v[rows].contiguous(), got[2], made, kept)
        results.append(got)
    for a, b, c in zip(*results, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a[33:], c)


def test_the_adjoint_of_s_may_be_overwritten():
    made = weights(32, None, torch.float64)
    s, v = inputs(5, 32, torch.float64)
    *got, kept = forward(s, v, made, None)
    gs, gv = inputs(5, 32, torch.float64)
    expected, _ = backward(gs, gv, got[2], made, kept)
    mix, update, following = (made[0], made[1], made[2])
    scratch = torch.empty_like(gs), torch.empty_like(gs), torch.empty_like(kept.vw)
    kernels.node_bwd(
        gs, gv, got[2], mix.T.contiguous(), (update.first.T.contiguous(), update.second.T.contiguous()),
        (following.first.T.contiguous(), following.second.T.contiguous()), EPSILON, kept, *scratch, gs,
        torch.empty_like(gv),
    )  # fmt: skip
    assert torch.equal(gs, expected)


@pytest.mark.parametrize("processors", [108, 132, 304])
def test_programs_of_few_atoms_are_as_small_as_leaves_one_for_each_multiprocessor(processors):
    for atoms in (1, 2 * processors, 2 * processors + 1, 4 * processors + 1, 8 * processors):
        rows = kernels.shape_of("ieee", atoms, lanes=32, processors=processors).rows
        assert -(-atoms // rows) <= processors
        assert rows == 2 or -(-atoms // (rows // 2)) > processors
    assert kernels.shape_of("ieee", 8 * processors + 1, lanes=32, processors=processors).rows == 8


def test_a_file_of_launches_decides_and_only_how_many_atoms_a_program_has(monkeypatch):
    numbers = {name: dict(each) for name, each in kernels.launches().items()}
    monkeypatch.setattr(kernels, "launches", lambda device: numbers)
    before = kernels.shape_of("ieee", 300, lanes=32, processors=100)
    numbers["layer, 4 atoms a multiprocessor"]["atoms"] = 8
    after = kernels.shape_of("ieee", 300, lanes=32, processors=100)
    assert (before.rows, after.rows) == (4, 8)
    assert {(s.block, s.depth, s.warps, s.stages) for s in (before, after)} == {(128, 32, 8, 2)}
    assert {kernels.shape_of("tf32x3", n).rows for n in (1, 300, 10**5)} == {16}  # of a tensor core
