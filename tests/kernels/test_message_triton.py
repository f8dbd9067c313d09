"""The message on a GPU, or in Triton's interpreter: every kernel equals autograd of the reference, and itself."""

import math
import os
from dataclasses import dataclass, replace

import pytest
import torch
from ase import Atoms
from ase.build import molecule
from radial_functions import DEVICE, functions

from painn_fast.graph import batch_atoms
from painn_fast.kernels.launch import launches
from painn_fast.kernels.message.reference import message as reference
from painn_fast.kernels.radial.reference import Radial
from painn_fast.testing import TOLERANCE, assert_close

pytest.importorskip("triton")

from painn_fast.kernels.message import triton as kernels
from painn_fast.kernels.message import triton_adjoint as adjoint
from painn_fast.kernels.message.triton import message_force_bwd, message_fwd
from painn_fast.kernels.message.triton_adjoint import message_bwd, message_weight_bwd
from painn_fast.kernels.message.triton_second import message_bwd_tangent, message_tangent, message_weight_bwd_tangent

pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")
WATER, MONOXIDE = molecule("H2O"), Atoms("CO", [[0, 0, 0], [0, 0.3, 1.1]])
GRAPHS = {
    "one atom": [Atoms("H")],
    "no edges": [Atoms("H2", [[0, 0, 0], [0, 0, 9.0]])],
    "a lone atom in a batch": [WATER, Atoms("H"), MONOXIDE],
    "atoms that neighbour their own images": [
        Atoms("CuO", [[0, 0, 0], [1.3, 1.6, 1.2]], cell=[2.7, 2.8, 4.0], pbc=True)
    ],
}


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
