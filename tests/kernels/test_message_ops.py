"""The fused message of GPUs as a torch operation: every order of derivative equals that of the reference."""

import math
import os
from dataclasses import replace

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from painn_fast.graph import batch_atoms
from painn_fast.kernels.message import ops, triton_second
from painn_fast.kernels.message.reference import message as reference
from painn_fast.kernels.radial.reference import Radial
from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.nn import fused as nn_fused
from painn_fast.testing import assert_close, random_potential

pytest.importorskip("triton")

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
def on_gpu(monkeypatch):
    """On a CPU the kernels run in Triton's interpreter."""
    monkeypatch.setattr(nn_fused, "BY_OPERATION", {DEVICE})


def functions(basis="sinc", count=4, reach=2.6, dtype=torch.float64):
    first = torch.arange(1, count + 1, dtype=dtype, device=DEVICE) * (math.pi / reach)
    if basis == "gaussian":
        first = torch.linspace(0.3, reach, count, dtype=dtype, device=DEVICE)
    return Radial(basis, first, torch.full_like(first, 0.5), "cosine", reach)


def inputs(batch, features, columns, dtype=torch.float64):
    """x, v, r, weight; an edge is not quite the opposite of its mirror."""
    generator = torch.Generator().manual_seed(features)
    n, e = batch.n_total, len(batch.receiver)
    shapes = [(n, 3 * features), (n, 3, features), (e, 3), (columns + 1, 3 * features)]
    made = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    made[2] = batch.edge_vectors() + 0.05 * made[2]
    return [t.to(DEVICE, dtype).requires_grad_() for t in made]


def fused(batch, radial, x, v, r, weight):
    graph = (t.to(DEVICE) for t in (batch.row_ptr, batch.sender, batch.mirror))
    return ops.message(x, v, weight, ops.Edges(r, radial, *graph))


def plain(batch, radial, x, v, r, weight):
    return reference(x, v, r, weight, radial, batch.receiver.to(DEVICE), batch.sender.to(DEVICE))


def derivatives(function, given):
    """Outputs, first derivatives, and derivatives of a mixture of these."""
    outputs = function(*given)
    generator = torch.Generator().manual_seed(1)
    outer = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t).requires_grad_() for t in outputs]
    first = torch.autograd.grad(outputs, given, outer, create_graph=True, materialize_grads=True)
    mixed = sum((k + 1) * (g**2).sum() for k, g in enumerate(first))
    second = torch.autograd.grad(mixed, [*given, *outer], materialize_grads=True)
    return [t.detach().cpu() for t in (*outputs, *first, *second)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("basis", ["sinc", "gaussian"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_equals_its_reference_with_its_first_and_second_derivatives(graph, basis, dtype, tolerance):
    batch = batch_atoms(GRAPHS[graph], 3.2, neighbors="list")
    given = inputs(batch, 16, 4, dtype)
    got = derivatives(lambda *t: fused(batch, functions(basis, dtype=dtype), *t), given)
    exact = [t.detach().double().requires_grad_() for t in given]
    expected = derivatives(lambda *t: plain(batch, functions(basis), *t), exact)
    for k, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.dtype == dtype
        assert_close(a, b, tolerance, f"result {k}")


def test_gradcheck_and_gradgradcheck_pass():
    batch = batch_atoms([MONOXIDE], 5.0)
    given = inputs(batch, 2, 2)

    def function(*t):
        return fused(batch, functions(count=2), *t)

    assert torch.autograd.gradcheck(function, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, given, fast_mode=True)


def test_third_derivatives_equal_those_of_the_reference():
    batch, thirds = batch_atoms([WATER], 5.0), []
    given = inputs(batch, 2, 3)
    for function in (fused, plain):
        scalar = sum((t**3).sum() for t in function(batch, functions(count=3), *given))
        for _ in range(3):
            gradients = torch.autograd.grad(scalar, given, create_graph=True)
            scalar = sum((k + 1) * (g**2).sum() for k, g in enumerate(gradients))
        thirds.append([g.detach().cpu() for g in gradients])
    for got, expected in zip(*thirds, strict=True):
        assert_close(got, expected, 1e-9)


@pytest.mark.parametrize("trained", [True, False])
def test_an_adjoint_that_nothing_asks_for_is_not_computed(monkeypatch, trained):
    calls = []

    def counted(module, name):
        kernel = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: calls.append(name) or kernel(*given))

    counted(ops, "_weight_adjoint")
    for name in ("message_tangent", "message_bwd_tangent", "message_weight_bwd_tangent"):
        counted(triton_second, name)
    batch = batch_atoms([MONOXIDE], 5.0)
    x, v, r, weight = inputs(batch, 2, 2)
    ds, dv = fused(batch, functions(count=2), x, v, r, 1.0 * weight.requires_grad_(trained))
    (force,) = torch.autograd.grad((ds**2).sum() + (dv**2).sum(), r, create_graph=True)
    assert calls == []
    (force**2).sum().backward()
    expected = ["message_tangent", "message_bwd_tangent"] + trained * ["message_weight_bwd_tangent", "_weight_adjoint"]
    assert sorted(calls) == sorted(expected)
    assert (weight.grad is not None) == trained


@pytest.mark.parametrize("values", [{}, {"shared_filters": True, "radial_basis": "gaussian"}])
def test_energies_forces_and_training_gradients_of_the_network_equal_those_of_the_reference(values):
    representation = RepresentationConfig(n_features=16, n_layers=2, n_rbf=4, **values)
    config = PotentialConfig(representation=representation, heads=(EnergyHead(),))
    batch = batch_atoms([WATER, MONOXIDE, Atoms("H")], 5.0)
    assert len(batch.mirror)  # by the CPU
    batch, numbers = batch.to(DEVICE), []
    for backend in ("reference", "fused"):
        potential = random_potential(config).to(DEVICE)
        potential.backend = backend
        assert potential.fused == (backend == "fused")
        results = potential(batch, ("energy", "forces"), create_graph=True)
        (results["energy"].sum() + results["forces"].square().sum()).backward()
        numbers.append(results | {name: p.grad for name, p in potential.named_parameters()})
    for name, expected in numbers[0].items():
        assert_close(numbers[1][name].detach().cpu(), expected.detach().cpu(), 1e-10, name)


def test_the_functions_are_read_back_from_the_device_once_however_often_a_network_runs():
    """Each reading waits for the device."""
    from painn_fast.kernels.radial import triton

    config = PotentialConfig(representation=RepresentationConfig(n_features=16, n_layers=2, n_rbf=4))
    potential, batch = random_potential(config).to(DEVICE), batch_atoms([MONOXIDE], 5.0)
    assert len(batch.mirror)
    potential.backend = "fused"
    triton._constants.cache_clear()
    for _ in range(2):
        potential(batch.to(DEVICE), ("energy", "forces"), create_graph=True)["forces"].square().sum().backward()
    assert triton._constants.cache_info().misses == 1


def test_functions_of_a_filter_are_equal_if_they_are_made_of_the_same_tensors():
    """They are looked up in caches, where equal numbers would have to be read from the device."""
    one = functions()
    assert one == replace(one)
    assert hash(one) == hash(replace(one))
    assert one != replace(one, first=one.first.clone())
    assert one != replace(one, widths=one.widths.clone())
    assert one != replace(one, cutoff=one.cutoff + 1)


def test_strided_inputs_and_gradients_of_stride_0_give_the_same_bits():
    batch, results = batch_atoms([WATER], 5.0), []
    for strided in (False, True):
        given = [t.detach() for t in inputs(batch, 16, 4)]
        if strided:
            given = [t.transpose(0, -1).contiguous().transpose(0, -1) for t in given]
        leaves = [t.requires_grad_() for t in given]
        ds, dv = fused(batch, functions(), *leaves)
        first = torch.autograd.grad(ds.sum() + dv.sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.sum() for g in first), leaves, materialize_grads=True)
        results.append([t.detach() for t in (ds, dv, *first, *second)])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_as_one_graph_with_its_gradient(backend, request):
    if request.config.emulator is not None:
        pytest.skip("torch.compile does not run within the mode that fills new memory of the emulator")
    batch = batch_atoms([MONOXIDE], 5.0)
    assert len(batch.mirror)
    given, radial = inputs(batch, 16, 4), functions()

    def square(*t):
        ds, dv = fused(batch, radial, *t)
        return (ds**2).sum() + (dv**2).sum()

    expected = torch.autograd.grad(square(*given), given)
    got = torch.autograd.grad(torch.compile(square, backend=backend, fullgraph=True)(*given), given)
    for a, b in zip(got, expected, strict=True):
        assert_close(a.cpu(), b.cpu(), 1e-12)


def test_the_operations_do_what_is_declared_to_torch():
    batch = batch_atoms([MONOXIDE], 5.0)
    assert len(batch.mirror)
    x, v, r, weight = (t.detach() for t in inputs(batch, 2, 2))
    radial = functions(count=2)
    graph = [t.to(DEVICE) for t in (batch.row_ptr, batch.sender, batch.mirror)]
    rest = (*graph, radial.first, radial.widths, "sinc", "cosine", 2.6, 0.0)
    gs, gv = x[:, :2].contiguous(), v.flip(0)
    torch.library.opcheck(ops._message, (x, v, r, weight, *rest))
    torch.library.opcheck(ops._adjoint, (gs, gv, x, v, r, weight, *rest))
    torch.library.opcheck(ops._weight_adjoint, (gs, gv, x, v, r, *rest))
