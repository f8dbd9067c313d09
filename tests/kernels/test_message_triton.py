"""The message on a GPU, or in Triton's interpreter: every kernel equals autograd of the reference, and itself."""

import math
import os
from dataclasses import dataclass, replace

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from painn_fast.graph import batch_atoms
from painn_fast.kernels.launch import launches
from painn_fast.kernels.message.reference import message as reference
from painn_fast.kernels.radial.reference import Radial, cutoff_function, filter_basis, radial_basis
from painn_fast.testing import TOLERANCE, assert_close

triton = pytest.importorskip("triton")
tl = triton.language

from painn_fast.kernels.message import triton as kernels  # noqa: E402
from painn_fast.kernels.message import triton_adjoint as adjoint  # noqa: E402
from painn_fast.kernels.message.triton import message_force_bwd, message_fwd  # noqa: E402
from painn_fast.kernels.message.triton_adjoint import message_bwd, message_weight_bwd  # noqa: E402
from painn_fast.kernels.message.triton_second import (  # noqa: E402
    message_bwd_tangent,
    message_tangent,
    message_weight_bwd_tangent,
)
from painn_fast.kernels.radial.triton import constants, edge_geometry, radial_values, sine_cosine  # noqa: E402

DEVICE = os.environ["KERNELS_ON"]
WATER, MONOXIDE = molecule("H2O"), Atoms("CO", [[0, 0, 0], [0, 0.3, 1.1]])
GRAPHS = {
    "one atom": [Atoms("H")],
    "no edges": [Atoms("H2", [[0, 0, 0], [0, 0, 9.0]])],
    "a lone atom in a batch": [WATER, Atoms("H"), MONOXIDE],
    "atoms that neighbour their own images": [
        Atoms("CuO", [[0, 0, 0], [1.3, 1.6, 1.2]], cell=[2.7, 2.8, 4.0], pbc=True)
    ],
}


@pytest.fixture(autouse=True)
def fresh_memory_is_nan(monkeypatch):
    """Whatever a kernel does not write shows."""

    def poisoned(make):
        def made(*arguments, **options):
            tensor = make(*arguments, **options)
            return tensor.fill_(math.nan) if tensor.is_floating_point() else tensor

        return made

    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(torch.Tensor.new_empty))


def functions(basis="sinc", cutoff="cosine", count=4, reach=2.6):
    if basis == "gaussian":
        first, widths = torch.linspace(0.3, reach, count, dtype=torch.float64), torch.full((count,), 0.5)
    elif basis == "gaussians":
        first, widths = torch.tensor([0.3, 1.1, 1.4, 2.9][:count]), torch.linspace(0.4, 0.7, count)
    else:
        first, widths = math.pi / reach * torch.arange(1, count + 1, dtype=torch.float64), torch.ones(count)
    if basis == "sines":
        first = first * torch.linspace(0.9, 1.0, count)  # no multiples of one frequency
    kind = {"sines": "sinc", "gaussians": "gaussian"}.get(basis, basis)
    return Radial(kind, first.double().to(DEVICE), widths.double().to(DEVICE), cutoff, reach, 0.8)


@dataclass
class Problem:
    """Arguments of the operation and vectors to contract its outputs and derivatives with."""

    radial: Radial
    graph: tuple  # row_ptr, sender, mirror
    receiver: torch.Tensor
    inputs: tuple  # x, v, r, weight
    adjoints: tuple  # gs, gv
    tangents: tuple  # of the inputs

    def to(self, dtype):
        cast = [
            tuple(t if t is None else t.to(dtype) for t in group)
            for group in (self.inputs, self.adjoints, self.tangents)
        ]
        first, widths = self.radial.first.to(dtype), self.radial.widths.to(dtype)
        radial = replace(self.radial, first=first, widths=widths)
        return Problem(radial, self.graph, self.receiver, *cast)


def problem(atoms, features, radial, *, symmetric=False):
    batch = batch_atoms(atoms, 3.2)
    generator = torch.Generator().manual_seed(features)
    n, e = batch.n_total, len(batch.receiver)
    shapes = [(n, 3 * features), (n, 3, features), (e, 3), (radial.first.numel() + 1, 3 * features)]

    def random(shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = [random(shape) for shape in shapes]
    inputs[2] = batch.edge_vectors() + (0 if symmetric else 0.05 * inputs[2])  # an edge and its mirror may differ
    adjoints = random((n, features)), random((n, 3, features))
    groups = [tuple(t.to(DEVICE) for t in g) for g in (inputs, adjoints, [random(shape) for shape in shapes])]
    graph = tuple(t.to(DEVICE) for t in (batch.row_ptr, batch.sender, batch.mirror))
    return Problem(radial, graph, batch.receiver.to(DEVICE), *groups)


def expected(p):
    """By autograd of the reference."""
    inputs = [t.clone().requires_grad_() for t in p.inputs]
    adjoints = [t.clone().requires_grad_() for t in p.adjoints]
    x, v, r, weight = inputs
    ds, dv = reference(x, v, r, weight, p.radial, p.receiver, p.graph[1])
    total = (ds * adjoints[0]).sum() + (dv * adjoints[1]).sum()
    first = torch.autograd.grad(total, inputs, create_graph=True, materialize_grads=True)
    gx, gv_in, gr, gw = first
    force = torch.zeros_like(x[:, :3]).index_add(0, p.receiver, gr).index_add(0, p.graph[1], -gr)
    moved = sum((g * t).sum() for g, t in zip(first, p.tangents, strict=True))
    second = torch.autograd.grad(moved, [*adjoints, *inputs], materialize_grads=True)
    results = {"ds": ds, "dv": dv, "gx": gx, "gv_in": gv_in, "gr": gr, "gw": gw, "force": force}
    results |= zip(("tds", "tdv", "hx", "hv", "hr", "hw"), second, strict=True)
    return {name: value.detach().cpu() for name, value in results.items()}


def got(p):
    row_ptr, sender, mirror = p.graph
    x, v, r, _ = p.inputs
    graph = (p.radial, row_ptr, sender)
    results = dict(zip(("ds", "dv"), message_fwd(*p.inputs, *graph), strict=True))
    results |= zip(("gx", "gv_in", "gr"), message_bwd(*p.adjoints, *p.inputs, *graph, mirror), strict=True)
    results["gw"] = message_weight_bwd(*p.adjoints, x, v, r, *graph)
    results |= zip(("tds", "tdv"), message_tangent(*p.inputs, *p.tangents, *graph), strict=True)
    second = message_bwd_tangent(*p.adjoints, *p.inputs, *p.tangents, *graph, mirror)
    results |= zip(("hx", "hv", "hr"), second, strict=True)
    results["hw"] = message_weight_bwd_tangent(*p.adjoints, x, v, r, *p.tangents[:3], *graph)
    return {name: value.cpu() for name, value in results.items()}


def got_forces(p):
    given = (*p.adjoints, *p.inputs, p.radial, *p.graph[:2])
    return dict(zip(("gx", "gv_in", "force"), message_force_bwd(*given), strict=True))


def check(results, wanted, dtype):
    for name, value in results.items():
        assert value.dtype == dtype, name
        assert_close(value.cpu(), wanted[name], TOLERANCE[dtype], name)


SLOW = pytest.mark.slow
CASES = [
    ("one atom", 16, functions(), torch.float64),
    ("no edges", 16, functions("gaussian"), torch.float32),
    ("a lone atom in a batch", 16, functions("sinc", "cosine"), torch.float64),
    ("a lone atom in a batch", 96, functions("gaussian", "mollifier"), torch.float32),
    pytest.param("a lone atom in a batch", 160, functions("sinc", "switch"), torch.float64, marks=SLOW),
    pytest.param("a lone atom in a batch", 16, functions("sinc", "mollifier"), torch.float32, marks=SLOW),
    pytest.param("a lone atom in a batch", 160, functions("gaussian", "cosine"), torch.float32, marks=SLOW),
    ("a lone atom in a batch", 96, functions("gaussians", "switch"), torch.float64),
    ("a lone atom in a batch", 16, functions("sines", "mollifier"), torch.float64),
    ("a lone atom in a batch", 16, functions("sinc", "cosine", count=20, reach=5.0), torch.float32),
    pytest.param(
        "a lone atom in a batch", 16, functions("gaussian", "switch", count=20, reach=5.0), torch.float32, marks=SLOW
    ),
    ("atoms that neighbour their own images", 16, functions("sinc", "switch", reach=3.1), torch.float64),
    ("atoms that neighbour their own images", 16, functions("gaussian", "cosine", reach=3.1), torch.float32),
]


@pytest.mark.parametrize(("graph", "features", "radial", "dtype"), CASES)
def test_every_kernel_equals_autograd_of_the_reference(graph, features, radial, dtype):
    p = problem(GRAPHS[graph], features, radial).to(dtype)
    check(got(p), expected(p.to(torch.float64)), dtype)
    p = problem(GRAPHS[graph], features, radial, symmetric=True).to(dtype)
    check(got_forces(p), expected(p.to(torch.float64)), dtype)


@pytest.mark.parametrize("still", [(0,), (1,), (2,), (3,), (0, 1, 2, 3)])
def test_a_tangent_that_is_none_is_zero(still):
    p = problem([WATER], 16, functions())
    p.tangents = tuple(None if k in still else t for k, t in enumerate(p.tangents))
    wanted = expected(replace(p, tangents=tuple(map(_or_zeros, p.tangents, p.inputs))))
    check(got(p), wanted, torch.float64)


def _or_zeros(tangent, like):
    return torch.zeros_like(like) if tangent is None else tangent


@pytest.mark.parametrize("features", [16, 160])
def test_a_first_layer_never_reads_its_vectors(features):
    p = problem([WATER], features, functions(), symmetric=True)
    x, v, r, weight = p.inputs
    p.inputs = (x, torch.zeros_like(v), r, weight)
    wanted = expected(p)
    inputs = (x, torch.full_like(v, math.nan), r, weight, p.radial, *p.graph[:2])
    results = dict(zip(("ds", "dv"), message_fwd(*inputs, vectors=False), strict=True))
    gx, gv_in, results["gr"] = message_bwd(*p.adjoints, *inputs, p.graph[2], vectors=False)
    *nothing, results["force"] = message_force_bwd(*p.adjoints, *inputs, vectors=False)
    assert gv_in is None
    assert nothing == [None, None]
    check(results | {"gx": gx}, wanted, torch.float64)


def test_weights_that_do_not_fit_in_registers_give_the_same(monkeypatch):
    """The same bits, but for which products and sums a compiler fuses."""
    p = problem([WATER], 16, functions()).to(torch.float32)
    held = got(p) | got_forces(p)
    monkeypatch.setattr(kernels, "MOST_HELD", 0)
    for name, value in (got(p) | got_forces(p)).items():
        if "TRITON_INTERPRET" in os.environ:
            assert torch.equal(value, held[name]), name
        assert_close(value.cpu(), held[name].cpu(), TOLERANCE[torch.float32], name)


def test_a_program_with_many_atoms_gives_the_same_bits(monkeypatch):
    p = problem(GRAPHS["a lone atom in a batch"], 16, functions())
    alone = got(p) | got_forces(p)
    for numbers in launches(torch.device(DEVICE)).values():
        if "programs" in numbers:
            monkeypatch.setitem(numbers, "programs", 2)
    for name, value in (got(p) | got_forces(p)).items():
        assert torch.equal(value, alone[name]), name


@pytest.mark.parametrize("most", [1, 4])
def test_a_gradient_of_the_weight_is_complete_however_many_programs_share_it(monkeypatch, most):
    monkeypatch.setattr(adjoint, "MOST_PARTIALS", most)
    p = problem(GRAPHS["a lone atom in a batch"], 16, functions())
    assert adjoint.partials(6) == {1: 1, 4: 3}[most]
    wanted, results = expected(p), got(p)
    check({name: results[name] for name in ("gw", "hw")}, wanted, torch.float64)


def test_no_atoms_at_all_are_no_error():
    p = problem([Atoms("H")], 16, functions())
    x, v, r, weight = p.inputs
    p.inputs, p.adjoints = (x[:0], v[:0], r, weight), tuple(t[:0] for t in p.adjoints)
    p.tangents = (*(t[:0] for t in p.tangents[:2]), *p.tangents[2:])
    p.graph = (p.graph[0][:1], *p.graph[1:])
    results = got(p) | got_forces(p)
    assert results["gx"].shape == (0, 48)
    assert not results["gw"].any()
    assert results["gw"].shape == weight.shape


def test_strided_inputs_give_the_same_bits():
    p = problem([WATER], 16, functions())
    groups = {name: tuple(map(_strided, getattr(p, name))) for name in ("inputs", "adjoints", "tangents")}
    assert not any(t.is_contiguous() for group in groups.values() for t in group)
    graph = tuple(torch.stack([t, t], 1)[:, 0] for t in p.graph)
    strided = replace(p, **groups, graph=graph)
    plain = got(p)
    for name, value in got(strided).items():
        assert torch.equal(value, plain[name]), name


def _strided(tensor):
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def test_two_runs_are_bitwise_equal_and_a_molecule_does_not_feel_its_batch():
    p = problem([MONOXIDE, WATER, Atoms("H")], 16, functions()).to(torch.float32)
    first, second = got(p), got(p)
    alone = problem([WATER], 16, functions()).to(torch.float32)

    def part(tensor):  # of water: 3 of 6 atoms, 6 of 8 edges, all of the weights
        return {6: tensor[2:5], 8: tensor[2:8]}.get(len(tensor), tensor)

    for group in ("inputs", "adjoints", "tangents"):
        setattr(alone, group, tuple(part(t) for t in getattr(p, group)))
    apart = got(alone)
    for name, value in first.items():
        assert torch.equal(second[name], value), name
        if name not in ("gw", "hw"):  # sums over the batch
            assert torch.equal(apart[name], part(value)), name


def test_edges_from_the_cutoff_on_contribute_nothing():
    p = problem([WATER], 16, functions(reach=1.2))
    x, v, r, weight = p.inputs
    near = torch.linalg.vector_norm(r, dim=1) < 1.2
    assert 0 < int(near.sum()) < len(r)
    r = torch.where(near[:, None], r, torch.tensor([0.0, 0.0, 1e20]).to(r))
    r[(~near).nonzero()[0]] = torch.tensor([0.0, 1.2, 0.0]).to(r)  # exactly on it
    p.inputs = x, v, r, weight
    results = got(p)
    assert not results["gr"][~near.cpu()].any()
    p.receiver = p.receiver[near]
    sender = p.graph[1][near]
    ds, dv = reference(x, v, r[near], weight, p.radial, p.receiver, sender)
    check({"ds": results["ds"], "dv": results["dv"]}, {"ds": ds.cpu(), "dv": dv.cpu()}, torch.float64)


@triton.jit
def _sine_cosine_kernel(p_d, p_sine, p_cosine, RATE: tl.constexpr):
    i = tl.program_id(0) * 64 + tl.arange(0, 64)
    sine, cosine = sine_cosine(tl.load(p_d + i), RATE)
    tl.store(p_sine + i, sine)
    tl.store(p_cosine + i, cosine)


def test_sine_and_cosine_of_a_float_are_exact_to_its_rounding():
    rate = math.pi / 5.0
    d = torch.linspace(0.0, 5.0, 4096, device=DEVICE)
    sine, cosine = torch.empty_like(d), torch.empty_like(d)
    _sine_cosine_kernel[64,](d, sine, cosine, rate)
    assert (sine.double() - (rate * d.double()).sin()).abs().max() < 3e-7
    assert (cosine.double() - (rate * d.double()).cos()).abs().max() < 3e-7


@triton.jit
def _radial_kernel(p_r, p_first, p_widths, p_values, C: tl.constexpr):
    K: tl.constexpr = C.count
    e = tl.program_id(0)
    d, inverse, _, _, _ = edge_geometry(p_r, e)
    psi, g, fc = radial_values(d, inverse, p_first, p_widths, C, 2)
    p = p_values + e * (3 * K + 3)
    for k in tl.static_range(K):
        tl.store(p + k, g[0] * psi[0][k])
        tl.store(p + K + 1 + k, g[1] * psi[0][k] + g[0] * psi[1][k])
        tl.store(p + 2 * K + 2 + k, g[2] * psi[0][k] + 2.0 * g[1] * psi[1][k] + g[0] * psi[2][k])
    tl.store(p + K, fc[0])
    tl.store(p + 2 * K + 1, fc[1])
    tl.store(p + 3 * K + 2, fc[2])


@pytest.mark.parametrize("cutoff", ["cosine", "mollifier", "switch"])
@pytest.mark.parametrize("basis", ["sinc", "sines", "gaussian", "gaussians"])
def test_radial_functions_and_two_derivatives_equal_autograd_of_the_reference(basis, cutoff):
    radial = functions(basis, cutoff, reach=5.0)
    assert constants(radial, torch.float64).basis == basis
    d = torch.tensor([0.31, 0.799, 0.801, 2.7, 4.6], dtype=torch.float64, device=DEVICE).requires_grad_()
    columns = torch.cat([radial_basis(d, radial), torch.ones_like(d)[:, None]], 1)
    value = columns * cutoff_function(d, radial)[:, None]
    slope, bend = torch.empty_like(value), torch.empty_like(value)
    for k in range(value.shape[1]):
        (first,) = torch.autograd.grad(value[:, k].sum(), d, create_graph=True)
        slope[:, k] = first.detach()
        bend[:, k] = torch.autograd.grad(first.sum(), d, retain_graph=True)[0]
    got = torch.empty(5, 3 * value.shape[1], dtype=torch.float64, device=DEVICE)
    r = torch.stack([0.6 * d, torch.zeros_like(d), -0.8 * d], 1).detach()
    _radial_kernel[5,](r, radial.first, radial.widths, got, constants(radial, torch.float64))
    assert_close(got.cpu(), torch.cat([value.detach(), slope, bend], 1).cpu(), 1e-12)


@pytest.mark.parametrize("cutoff", ["cosine", "mollifier", "switch"])
def test_radial_functions_of_floats_are_finite_up_to_the_cutoff_and_vanish_there(cutoff):
    for reach in (1.7, 2.1, 3.3, 4.7, 5.0):
        radial = functions("gaussian", cutoff, reach=reach)
        radial = replace(radial, first=radial.first.float(), widths=radial.widths.float())
        d = torch.full((4,), reach, dtype=torch.float32, device=DEVICE)
        for k in range(4):
            d[: k + 1] = torch.nextafter(d[: k + 1], torch.zeros_like(d[: k + 1]))
        d[3] = radial.switch_on
        values = torch.empty(4, 15, device=DEVICE)
        r = torch.stack([torch.zeros_like(d), d, torch.zeros_like(d)], 1)
        _radial_kernel[4,](r, radial.first, radial.widths, values, constants(radial, torch.float32))
        assert values.isfinite().all(), (reach, values)
        assert values[:3, :5].abs().max() < 1e-6
        assert values[3, 4] > 0.05


def test_unknown_functions_are_refused():
    with pytest.raises(ValueError, match=r"radial basis 'bump': expected sinc \| gaussian"):
        constants(replace(functions(), basis="bump"), torch.float32)
    with pytest.raises(ValueError, match=r"cut-off function 'step': expected cosine \| mollifier \| switch"):
        constants(replace(functions(), cutoff_function="step"), torch.float32)


def test_frequencies_that_change_in_place_are_read_again():
    radial = functions()
    before = constants(radial, torch.float64)
    assert constants(radial, torch.float64) is before
    radial.first[0] *= 1.5
    assert (before.basis, constants(radial, torch.float64).basis) == ("sinc", "sines")


def test_residuals_and_sums_in_memory_that_is_there():
    """What the engine asks for: s + ds, v + dv; gv within gv_in, and forces added to those of other layers."""
    p = problem([WATER], 16, functions(), symmetric=True)
    row_ptr, sender, _ = p.graph
    x, v, r, weight = p.inputs
    graph = (p.radial, row_ptr, sender)
    ds, dv = message_fwd(x, v, r, weight, *graph)
    s = torch.sin(ds)
    out = torch.empty_like(ds), torch.empty_like(dv)
    message_fwd(x, v, r, weight, *graph, s=s, out=out)
    assert_close(out[0].cpu(), (s + ds).cpu(), 1e-14)
    assert_close(out[1].cpu(), (v + dv).cpu(), 1e-14)
    gs, gv = p.adjoints
    gx, gv_in, force = message_force_bwd(gs, gv, x, v, r, weight, *graph)
    out = torch.empty_like(gx), torch.empty_like(gv_in), torch.ones_like(force)[None]
    message_force_bwd(gs, gv, x, v, r, weight, *graph, residual=True, add=True, out=out)
    assert_close(out[0].cpu(), gx.cpu(), 1e-14)
    assert_close(out[1].cpu(), (gv + gv_in).cpu(), 1e-14)
    assert_close(out[2][0].cpu(), (1.0 + force).cpu(), 1e-14)


@pytest.mark.parametrize("unit", [0.1, 1.0, 1.9, 100.0])  # of length, in Å: a cut-off of 5 Å and others
@pytest.mark.parametrize("basis", ["sinc", "gaussian"])
@pytest.mark.parametrize(("function", "on"), [("cosine", 0.0), ("mollifier", 0.0), ("switch", 4.8)])
def test_radial_functions_times_their_scale_are_numbers_of_float16(unit, basis, function, on):
    cutoff, count = 5.0 / unit, 31
    k = torch.arange(1, count + 1, dtype=torch.float64)
    first = k * math.pi / cutoff if basis == "sinc" else (k - 1) * cutoff / (count - 1)
    radial = Radial(basis, first, torch.full_like(first, cutoff / (count - 1)), function, cutoff, on / unit)
    d = torch.linspace(1e-3 * cutoff, cutoff, 2001, dtype=torch.float64)[:-1].requires_grad_()
    values = filter_basis(d, radial)
    slopes = [torch.autograd.grad(column.sum(), d, retain_graph=True)[0] for column in values.T]
    scale = constants(radial, torch.float32).scale
    largest = scale * max(float(values.detach().abs().max()), *(float(slope.abs().max()) for slope in slopes))
    assert math.log2(scale) % 1 == 0
    assert 2.0**10 < largest < 2.0**15
