"""All blocks as one operation: equal to plain torch with its first, second and third derivatives."""

from itertools import pairwise

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from painn_fast.graph import batch_atoms
from painn_fast.kernels.blocks import ops, reference
from painn_fast.kernels.blocks.reference import Weights
from painn_fast.kernels.radial.ops import basis_and_direction
from painn_fast.kernels.radial.reference import Radial, filter_basis
from painn_fast.kernels.radial.slopes import filter_basis_and_slope
from painn_fast.kernels.vector import LANES
from painn_fast.testing import assert_close

EPSILON, K = 1e-8, 5
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}


def batch(*atoms):
    made = batch_atoms(list(atoms), 3.0)
    assert len(made.mirror) == len(made.sender)
    return made


GRAPHS = {
    "one atom": lambda: batch(Atoms("H")),
    "three molecules, one of them a lone atom": lambda: batch(molecule("H2O"), Atoms("H"), molecule("CH3OH")),
    "many atoms": lambda: batch(*[molecule("CH4")] * 17),
}


def inputs(graph, layers=2, f=LANES, dtype=torch.float64, seed=0):
    """s, basis, u, filters and weights, all random."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape, scale=1.0):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64) * scale
        return values.to(dtype).requires_grad_()

    n, e = graph.n_total, len(graph.sender)
    shapes = ((f, f), (f,), (3 * f, f), (3 * f,), (2 * f, f), (f, 2 * f), (f,), (3 * f, f), (3 * f,))
    weights = [Weights(*(random(*shape, scale=0.2) for shape in shapes)) for _ in range(layers)]
    filters = [random(K, 3 * f, scale=0.1) for _ in range(layers)]
    return random(n, f), random(e, LANES, scale=0.5), random(e, 3), filters, weights


def flat(s, basis, u, filters, weights):
    return [s, basis, u, *filters, *(t for layer in weights for t in layer)]


def run(side, graph, given, **options):
    if side == "reference":
        return reference.blocks(*given, EPSILON, graph.row_ptr, graph.sender)
    return ops.blocks(*given, EPSILON, graph.row_ptr, graph.sender, graph.mirror, graph.n_atoms, **options)


def derivatives(side, graph, given, **options):
    """Results and their gradient, a loss of results and of gradients in basis and u (forces), and its gradient."""
    leaves = flat(*given)
    out = run(side, graph, given, **options)
    first = torch.autograd.grad(sum(t.square().sum() for t in out), leaves, create_graph=True, materialize_grads=True)
    loss = sum(t.pow(3).sum() for t in out) + first[1].square().sum() + first[2].square().sum()
    second = torch.autograd.grad(loss, leaves, create_graph=True, retain_graph=True, materialize_grads=True)
    return [*out, *first], loss, second


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("graph", GRAPHS)
def test_equals_plain_torch_with_its_first_and_second_derivatives(graph, dtype, threads):
    graph, before = GRAPHS[graph](), torch.get_num_threads()
    given = inputs(graph, dtype=dtype)
    torch.set_num_threads(threads)
    try:
        results = []
        for side in ("reference", "ops"):
            values, loss, _ = derivatives(side, graph, given)
            # without a graph of its own: the kernels, not torch
            second = torch.autograd.grad(loss, flat(*given), materialize_grads=True)
            results.append([*values, *second])
    finally:
        torch.set_num_threads(before)
    for k, (expected, got) in enumerate(zip(*results, strict=True)):
        assert_close(got.detach(), expected.detach(), TOLERANCE[dtype] * (10 if k > 2 else 1), f"result {k}")


def test_the_third_derivative_is_that_of_plain_torch():
    graph = GRAPHS["three molecules, one of them a lone atom"]()
    given = inputs(graph)
    results = []
    for side in ("reference", "ops"):
        _, _, second = derivatives(side, graph, given)
        results.append(torch.autograd.grad(second[3].square().sum() + second[0].square().sum(), flat(*given)))
    for k, (expected, got) in enumerate(zip(*results, strict=True)):
        assert_close(got, expected, 1e-9, f"result {k}")


def test_several_adjoints_in_one_loss():
    graph = GRAPHS["three molecules, one of them a lone atom"]()
    given = inputs(graph)
    results = []
    for side in ("reference", "ops"):
        s, v = run(side, graph, given)
        leaves = given[1:3]
        first = torch.autograd.grad(s.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(v.square().sum(), leaves, create_graph=True)
        loss = s.sum() + (first[0] * second[0]).sum() + (first[1] * second[1]).sum()
        results.append(torch.autograd.grad(loss, flat(*given)))
    for k, (expected, got) in enumerate(zip(*results, strict=True)):
        assert_close(got, expected, 1e-10, f"gradient {k}")


def test_a_pass_that_never_reaches_the_weights_leaves_nothing_behind():
    graph = GRAPHS["three molecules, one of them a lone atom"]()
    given = inputs(graph)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)  # what a head would have

    def loss(side):
        s, _ = run(side, graph, given)
        (force,) = torch.autograd.grad((scale * s).square().sum(), [given[1]], create_graph=True)
        return s.square().sum() + force.square().sum()

    results = []
    for side in ("reference", "ops"):
        value = loss(side)
        (alone,) = torch.autograd.grad(value, [scale], retain_graph=True)
        results.append([alone, *torch.autograd.grad(value, flat(*given), retain_graph=True, allow_unused=True)])
        again = torch.autograd.grad(value, flat(*given), allow_unused=True)
        for a, b in zip(results[-1][1:], again, strict=True):
            assert a is b is None or torch.equal(a, b)
    for expected, got in zip(*results, strict=True):
        if expected is not None:
            assert_close(got, expected, 1e-10)


def test_gradcheck_and_gradgradcheck_pass():
    graph = batch(molecule("H2"))
    s, basis, u, filters, weights = inputs(graph, layers=1)

    def function(*tensors):
        s, basis, u, filter_, *rest = tensors
        return run("ops", graph, (s, basis, u, [filter_], [Weights(*rest)]))

    given = tuple(flat(s, basis, u, filters, weights))
    assert torch.autograd.gradcheck(function, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, given, fast_mode=True)


def test_two_runs_are_bitwise_equal_and_molecules_do_not_depend_on_their_batch():
    one, many = batch(molecule("CH3OH")), batch(molecule("CH4"), *[molecule("CH3OH")] * 12)
    s, basis, u, filters, weights = inputs(many, dtype=torch.float32)
    values = derivatives("ops", many, (s, basis, u, filters, weights))[0]
    for a, b in zip(values, derivatives("ops", many, (s, basis, u, filters, weights))[0], strict=True):
        assert torch.equal(a, b)
    atoms, edges = slice(5, 11), slice(int(many.row_ptr[5]), int(many.row_ptr[11]))
    part = [t.detach()[at].clone().requires_grad_() for t, at in ((s, atoms), (basis, edges), (u, edges))]
    alone = derivatives("ops", one, (*part, filters, weights))[0]
    for k, at in enumerate((atoms, atoms, atoms, edges, edges)):
        assert torch.equal(alone[k], values[k][at]), k


@pytest.mark.parametrize("sizes", [[], [1], [200], [9] * 10, [1] * 500, [30, 1, 1, 90]])
def test_parts_are_whole_molecules_in_order(sizes):
    found = ops.parts(torch.tensor(sizes, dtype=torch.int64))
    ends = {0, *torch.tensor(sizes).cumsum(0).tolist()}
    assert found[0][0] == 0
    assert found[-1][1] == sum(sizes)
    assert all(a[1] == b[0] for a, b in pairwise(found))
    assert {place for part in found for place in part} <= ends


RADIALS = {
    "sinc, cosine": Radial("sinc", torch.arange(1.0, 6.0).double(), torch.ones(5).double(), "cosine", 3.0),
    "gaussian, mollifier": Radial(
        "gaussian", torch.linspace(0, 3, 5).double(), torch.rand(5).double() + 0.3, "mollifier", 3.0
    ),
    "sinc, switch": Radial("sinc", torch.arange(1.0, 6.0).double(), torch.ones(5).double(), "switch", 3.0, 1.5),
}


@pytest.mark.parametrize("name", RADIALS)
def test_slopes_of_the_radial_functions_are_their_derivatives(name):
    d = torch.linspace(0.3, 3.2, 97, dtype=torch.float64, requires_grad=True)
    value, slope = filter_basis_and_slope(d, RADIALS[name])
    expected = filter_basis(d, RADIALS[name])
    assert_close(value.detach(), expected.detach(), 1e-15)
    for k in range(expected.shape[1]):
        (right,) = torch.autograd.grad(expected[:, k].sum(), d, retain_graph=True)
        assert_close(slope[:, k].detach(), right, 1e-12)


@pytest.mark.parametrize("name", RADIALS)
def test_basis_and_direction_are_differentiable_to_any_order(name):
    r = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def function(r):
        return basis_and_direction(r, RADIALS[name], 8)

    assert torch.autograd.gradcheck(function, (r,))
    assert torch.autograd.gradgradcheck(function, (r,))


def test_once_leaves_second_derivatives_in_the_edges_out_and_nothing_else():
    graph = GRAPHS["three molecules, one of them a lone atom"]()
    given = inputs(graph)
    leaves, edges = flat(*given), given[1:3]
    gradients = []
    for once in (False, True):
        s, v = run("ops", graph, given, edges_once=once)
        first = torch.autograd.grad(s.square().sum() + v.square().sum(), edges, create_graph=True)
        loss = s.sum() + sum(t.square().sum() for t in first)
        gradients.append([first, torch.autograd.grad(loss, leaves, allow_unused=True)])
    for a, b in zip(gradients[0][0], gradients[1][0], strict=True):
        assert torch.equal(a, b)
    for k, (all_, fewer) in enumerate(zip(gradients[0][1], gradients[1][1], strict=True)):
        assert fewer is None if k in (1, 2) else torch.equal(all_, fewer), k
