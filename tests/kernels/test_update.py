"""The update block: kernels equal plain torch, to the second derivative on a GPU and beyond it by torch."""

import os

import pytest
import torch

from painn_fast.kernels.update import cpu, ops, reference, triton
from painn_fast.testing import assert_close

EPSILON = 1e-8
SIZES = [(1, 1), (0, 16), (5, 16), (3, 63), (2, 96), (7, 130)]
DEVICE = os.environ["KERNELS_ON"]


@pytest.fixture
def device(monkeypatch):
    """Where the operations run by kernels; on a CPU in Triton's interpreter."""
    monkeypatch.setitem(ops.KERNELS, DEVICE, ops.on_gpu)
    return DEVICE


def inputs(n, f, device="cpu", dtype=torch.float64):
    """s, v, y, vw."""
    generator = torch.Generator().manual_seed(n + f)
    shapes = [(n, f), (n, 3, f), (n, 3 * f), (n, 3, 2 * f)]
    made = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [tensor.to(device=device, dtype=dtype).requires_grad_() for tensor in made]


def block(module, s, v, y, vw):
    """Norm and gate as in the update block, with something nonlinear in place of the network between them."""
    context, dot = module.norm(s, vw, EPSILON)
    gates = y * torch.cat([context, context[:, : s.shape[1]]], dim=1)
    return module.gate(s, v, gates, vw, dot)


def derivatives(module, given, seed=1):
    """Outputs, first derivatives, and derivatives of a mixture of these, which itself is not linear in them."""
    outputs = block(module, *given)
    generator = torch.Generator().manual_seed(seed)
    outer = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o).requires_grad_() for o in outputs]
    first = torch.autograd.grad(outputs, given, outer, create_graph=True)
    mixed = sum((k + 1) * (g**2).sum() for k, g in enumerate(first))
    second = torch.autograd.grad(mixed, [*given, *outer], materialize_grads=True)
    return [t.detach().cpu() for t in (*outputs, *first, *second)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("n", "f"), SIZES)
def test_equals_the_reference_with_its_first_and_second_derivatives(device, n, f, dtype, tolerance):
    given = inputs(n, f, device, dtype)
    got, expected = (
        derivatives(ops, given),
        derivatives(reference, [g.detach().double().requires_grad_() for g in given]),
    )
    for k, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.dtype == dtype
        assert_close(a, b, tolerance, f"result {k}")


def test_gradcheck_and_gradgradcheck_pass(device):
    given = inputs(2, 3, device)
    for function in (
        lambda s, v, y, vw: block(ops, s, v, y, vw),
        lambda s, v, y, vw: ops.norm(s, vw, EPSILON),
        lambda s, v, y, vw: ops.gate(s, v, y, vw, s * s),
    ):
        assert torch.autograd.gradcheck(function, given, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, given, fast_mode=True)


def test_the_third_derivative_is_that_of_the_reference(device):
    results = []
    for module in (ops, reference):
        given = inputs(2, 3, device)
        total = sum((o**2).sum() for o in block(module, *given))
        for _ in range(3):
            gradients = torch.autograd.grad(total, given, create_graph=True)
            total = sum((g**2).sum() for g in gradients)
        results.append(gradients)
    for got, expected in zip(*results, strict=True):
        assert_close(got.detach().cpu(), expected.detach().cpu(), 1e-10)


def test_strided_inputs_and_gradients_of_stride_0_give_the_same(device):
    results = []
    for strided in (False, True):
        leaves = [g.detach() for g in inputs(5, 16, device)]
        if strided:
            leaves = [g.transpose(0, -1).contiguous().transpose(0, -1) for g in leaves]
            assert not any(g.is_contiguous() for g in leaves)
        leaves = [g.requires_grad_() for g in leaves]
        s, v = block(ops, *leaves)
        first = torch.autograd.grad(s.sum() + v.sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.sum() for g in first), leaves, materialize_grads=True)
        results.append([t.detach() for t in (s, v, *first, *second)])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_two_runs_are_bitwise_equal_and_atoms_do_not_depend_on_their_batch(device):
    given = inputs(6, 63, device, torch.float32)
    twice = [derivatives(ops, given), derivatives(ops, given)]
    for a, b in zip(*twice, strict=True):
        assert torch.equal(a, b)
    alone = block(ops, *(g[4:5] for g in given))
    for a, b in zip(alone, block(ops, *given), strict=True):
        assert torch.equal(a, b[4:5])


def test_tensors_of_several_dtypes_run_in_plain_torch():
    s, v, y, vw = (g.detach() for g in inputs(2, 4))
    context, _ = ops.norm(s.float(), vw, EPSILON)
    assert context.dtype == torch.float64
    half = ops.gate(*(g.half() for g in (s, v, y, vw, s)))
    assert half[0].dtype == torch.float16


@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize(("n", "f"), [(0, 16), (1, 16), (3, 64), (6, 96)])
def test_the_engines_kernels_equal_the_derivatives_of_the_reference(n, f, vectors):
    s, v, y, vw = inputs(n, f)
    context, dot = reference.norm(s, vw, EPSILON)
    s_new, v_new = reference.gate(s, v, y, vw, dot)
    generator = torch.Generator().manual_seed(2)
    gs, gv, g_norm = (torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in (s, v, context))
    outputs, adjoints = ([s_new, v_new], [gs, gv]) if vectors else ([s_new], [gs])
    gy = torch.autograd.grad(outputs, y, adjoints, retain_graph=True)[0]
    g_s, g_vw = torch.autograd.grad([*outputs, context], [s, vw], [*adjoints, g_norm])
    expected = (context, dot, s_new, v_new if vectors else v, gy, g_s, g_vw)
    for name, module, device in (("numba", cpu, "cpu"), ("triton", triton, DEVICE)):
        got = _engine(module, device, vectors, [t.detach() for t in (s, v, y, vw, gs, gv, g_norm)])
        for k, (a, b) in enumerate(zip(got, expected, strict=True)):
            assert_close(a, b.detach(), 1e-10, f"{name}, result {k}")


def _engine(module, device, vectors, given):
    """Context, dot, s, v, gy, gs and g_vw by the kernels of `module`; memory that they must fill is NaN before."""
    s, v, y, vw, gs, gv, g_context = (t.clone().to(device) for t in given)
    context, dot, gy, g_vw = (torch.full_like(t, float("nan")) for t in (g_context, s, y, vw))
    v, gv = v.flatten(1), gv.flatten(1)
    plain = (lambda t: t.numpy()) if module is cpu else (lambda t: t)
    s, v, y, vw, gs, gv, g_context, context, dot, gy, g_vw = results = [
        plain(t) for t in (s, v, y, vw, gs, gv, g_context, context, dot, gy, g_vw)
    ]
    module.norm_fwd(s, vw, EPSILON, context, dot)
    if module is triton:
        module.gate_fwd(y, vw, dot, vectors, s, v)
    else:
        module.gate_fwd(y, vw, dot, s, v, v if vectors else v.copy())
    module.gate_bwd(gs, gv, vw, dot, vectors, gy)
    module.norm_bwd(gs, gv, y, vw, context, g_context, vectors, g_vw)
    s, v, y, vw, gs, gv, g_context, context, dot, gy, g_vw = (torch.as_tensor(t).cpu() for t in results)
    return context, dot, s, v.unflatten(1, (3, -1)), gy, gs, g_vw
