"""A whole network as one operation: equal to plain torch with its first, second and third derivatives."""

from itertools import pairwise

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from painn_fast.graph import batch_atoms
from painn_fast.kernels.message.edges_cpu import BLOCK, WHOLE
from painn_fast.kernels.network import ops, reference
from painn_fast.kernels.network.reference import Weights
from painn_fast.kernels.radial.cpu import edge_functions
from painn_fast.kernels.radial.reference import Radial, filter_basis
from painn_fast.kernels.radial.slopes import filter_basis_and_slope
from painn_fast.kernels.simd import LANES
from painn_fast.testing import TOLERANCE, assert_close

EPSILON, K = 1e-8, 5


def batch(*atoms):
    made = batch_atoms(list(atoms), 3.0)
    assert len(made.mirror) == len(made.sender)
    return made


GRAPHS = {
    "one atom": lambda: batch(Atoms("H")),
    "three molecules, one of them a lone atom": lambda: batch(molecule("H2O"), Atoms("H"), molecule("CH3OH")),
    "many atoms": lambda: batch(*[molecule("CH4")] * 17),
}


def inputs(graph, layers=2, f=LANES, dtype=torch.float64, hidden=LANES):
    """s, r and weights, all random but r."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape, scale=0.2):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64) * scale
        return values.to(dtype).requires_grad_()

    dense = ((f, f), (f,), (3 * f, f), (3 * f,), (2 * f, f), (f, 2 * f), (f,), (3 * f, f), (3 * f,))
    readout = ((hidden, f), (hidden,), (1, hidden), (1,))
    weights = [random(layers, *shape) for shape in ((K + 1, 3 * f), *dense)]
    r = graph.edge_vectors().to(dtype).requires_grad_()
    last = [random(*shape, scale=0.3) for shape in readout]
    if not hidden:
        last[3] = torch.zeros(1, dtype=dtype, requires_grad=True)
    return random(graph.n_total, f, scale=1.0), r, Weights(*weights, *last)


def radial(dtype):
    return Radial("sinc", torch.arange(1, K + 1).to(dtype), torch.ones(K, dtype=dtype), "cosine", 3.0)


def flat(s, r, weights):
    return [s, r, *weights]


def run(side, graph, given, activation="silu", **options):
    s, r, weights = given
    arguments = s, r, radial(s.dtype), weights, activation, EPSILON, graph.row_ptr, graph.sender, graph.mirror
    return ops.network(*arguments, graph.n_atoms, **options) if side == "ops" else reference.network(*arguments)


def derivatives(side, graph, given, **options):
    """Results and their gradient, a loss of results and of the gradient in r (forces), and its gradient."""
    leaves = flat(*given)
    out = run(side, graph, given, **options)
    first = torch.autograd.grad(sum(t.square().sum() for t in out), leaves, create_graph=True, materialize_grads=True)
    loss = sum(t.pow(3).sum() for t in out) + first[1].square().sum()
    second = torch.autograd.grad(loss, leaves, create_graph=True, retain_graph=True, materialize_grads=True)
    return [*out, *first], loss, second


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("graph", GRAPHS)
def test_equals_plain_torch_with_its_derivatives(graph, dtype, activation, threads):
    graph = GRAPHS[graph]()
    given = inputs(graph, dtype=dtype)
    results = [derivatives(side, graph, given, activation=activation)[0] for side in ("reference", "ops")]
    for k, (expected, got) in enumerate(zip(*results, strict=True)):
        assert_close(got.detach(), expected.detach(), TOLERANCE[dtype] * (10 if k > 2 else 1), f"result {k}")


def loss_of_forces(side, graph, given, by_autograd_too, activation="silu"):
    """What training asks for: energies and forces of what is read out, and of the features, or of these alone."""
    s, v, read = run(side, graph, given, activation, **({"edges_once": True} if side == "ops" else {}))
    (force,) = torch.autograd.grad(read.sum(), [given[1]], create_graph=True)
    loss = (read**2).sum() + (force**3).sum()
    if by_autograd_too:
        loss = loss + s.pow(3).sum() + v.square().sum()
    return torch.autograd.grad(loss, [given[0], *flat(*given)[2:]], materialize_grads=True)


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("graph", GRAPHS)
def test_a_loss_over_energies_and_forces_has_the_gradient_of_plain_torch(graph, dtype, heads, activation, threads):
    graph = GRAPHS[graph]()
    given = inputs(graph, dtype=dtype)
    results = [loss_of_forces(side, graph, given, heads, activation) for side in ("reference", "ops")]
    for k, (expected, got) in enumerate(zip(*results, strict=True)):
        assert_close(got, expected, TOLERANCE[dtype] * 10, f"gradient {k}")


def test_without_a_readout_nothing_is_read():
    graph = GRAPHS["three molecules, one of them a lone atom"]()
    given = inputs(graph, hidden=0)
    results = [derivatives(side, graph, given)[0] for side in ("reference", "ops")]
    assert torch.equal(results[1][2].detach(), torch.zeros(graph.n_total, dtype=torch.float64))
    for k, (expected, got) in enumerate(zip(*results, strict=True)):
        assert_close(got.detach(), expected.detach(), 1e-10, f"result {k}")


@pytest.mark.parametrize(("features", "hidden"), [(1, 1), (LANES - 3, 5), (LANES + 1, LANES)])
def test_features_that_fill_no_vectors_are_padded_with_zeros(features, hidden):
    graph = GRAPHS["three molecules, one of them a lone atom"]()
    given = inputs(graph, f=features, hidden=hidden)
    results = [derivatives(side, graph, given) for side in ("reference", "ops")]
    results = [[*first, *second] for first, _, second in results]
    results += [loss_of_forces(side, graph, given, True) for side in ("reference", "ops")]
    for expected, got in [*zip(*results[:2], strict=True), *zip(*results[2:], strict=True)]:
        assert got.shape == expected.shape
        assert_close(got.detach(), expected.detach(), 1e-10)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("graph", GRAPHS)
def test_without_gradients_the_numbers_are_the_same(graph, dtype):
    graph = GRAPHS[graph]()
    given = inputs(graph, layers=3, dtype=dtype)
    expected = run("ops", graph, given)
    with torch.no_grad():
        got = run("ops", graph, given)
    for a, b in zip(got, expected, strict=True):
        assert not a.requires_grad
        assert torch.equal(a, b)


def test_second_derivatives_in_the_edges_and_third_ones_are_those_of_plain_torch():
    graph = GRAPHS["three molecules, one of them a lone atom"]()
    given = inputs(graph)
    results = []
    for side in ("reference", "ops"):
        _, loss, second = derivatives(side, graph, given)
        by_kernels = torch.autograd.grad(loss, flat(*given), retain_graph=True)
        third = torch.autograd.grad(second[2].square().sum() + second[0].square().sum(), flat(*given))
        results.append([*by_kernels, *third])
    for k, (expected, got) in enumerate(zip(*results, strict=True)):
        assert_close(got, expected, 1e-9, f"result {k}")


def test_several_adjoints_in_one_loss():
    graph = GRAPHS["three molecules, one of them a lone atom"]()
    given = inputs(graph)
    leaves = [given[0], *flat(*given)[2:]]
    results = []
    for side in ("reference", "ops"):
        s, v, read = run(side, graph, given, **({"edges_once": True} if side == "ops" else {}))
        outs = s.square().sum(), v.square().sum(), read.square().sum()
        first, second, third = (torch.autograd.grad(out, [given[1]], create_graph=True)[0] for out in outs)
        results.append(torch.autograd.grad(s.sum() + (first * second).sum() + third.square().sum(), leaves))
    for k, (expected, got) in enumerate(zip(*results, strict=True)):
        assert_close(got, expected, 1e-10, f"gradient {k}")


def test_a_pass_that_never_reaches_the_weights_leaves_nothing_behind():
    graph = GRAPHS["three molecules, one of them a lone atom"]()
    given = inputs(graph)
    leaves = [given[0], *flat(*given)[2:]]
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)  # what a head would have

    def loss(side):
        s, _, _ = run(side, graph, given, **({"edges_once": True} if side == "ops" else {}))
        (force,) = torch.autograd.grad((scale * s).square().sum(), [given[1]], create_graph=True)
        return s.square().sum() + force.square().sum()

    results = []
    for side in ("reference", "ops"):
        value = loss(side)
        (alone,) = torch.autograd.grad(value, [scale], retain_graph=True)
        results.append([alone, *torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True)])
        again = torch.autograd.grad(value, leaves, materialize_grads=True)
        for a, b in zip(results[-1][1:], again, strict=True):
            assert torch.equal(a, b)
    for expected, got in zip(*results, strict=True):
        assert_close(got, expected, 1e-10)


def test_gradcheck_and_gradgradcheck_pass():
    graph = batch(molecule("H2O"))
    given = tuple(flat(*inputs(graph, layers=1)))

    def function(s, r, *weights):
        return run("ops", graph, (s, r, Weights(*weights)))

    assert torch.autograd.gradcheck(function, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, given, fast_mode=True)


def test_large_molecules_go_block_by_block():
    graph = batch_atoms([molecule("C60"), molecule("CH3OH"), molecule("isobutane")], 6.0)
    assert graph.row_ptr[60] > 2 * WHOLE
    assert BLOCK < graph.row_ptr[-1] - graph.row_ptr[66] <= WHOLE, "all edges of isobutane are one block"
    given = inputs(graph)
    results = [derivatives(side, graph, given)[0] for side in ("reference", "ops")]
    results += [loss_of_forces(side, graph, given, True) for side in ("reference", "ops")]
    for expected, got in [*zip(*results[:2], strict=True), *zip(*results[2:], strict=True)]:
        assert_close(got.detach(), expected.detach(), 1e-10)


def test_two_runs_are_bitwise_equal_and_molecules_do_not_depend_on_their_batch():
    one, many = batch(molecule("CH3OH")), batch(molecule("CH4"), *[molecule("CH3OH")] * 12)
    s, r, *rest = inputs(many, dtype=torch.float32)
    values = derivatives("ops", many, (s, r, *rest))[0]
    for a, b in zip(values, derivatives("ops", many, (s, r, *rest))[0], strict=True):
        assert torch.equal(a, b)
    for k in (0, 5, 11):
        atoms = slice(5 + 6 * k, 11 + 6 * k)
        edges = slice(int(many.row_ptr[atoms.start]), int(many.row_ptr[atoms.stop]))
        part = [t.detach()[at].clone().requires_grad_() for t, at in ((s, atoms), (r, edges))]
        alone = derivatives("ops", one, (*part, *rest))[0]
        for k, at in enumerate((atoms, atoms, atoms, atoms, edges)):
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


UNEQUAL = Radial("sinc", torch.tensor([1.0, 2.1, 3.0]).double(), torch.ones(3).double(), "cosine", 3.0)


@pytest.mark.parametrize("name", [*RADIALS, "frequencies that are no multiples"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_functions_of_edges_are_those_of_the_distance_of_a_pair(name, dtype):
    given = RADIALS.get(name, UNEQUAL)
    one = Radial(
        given.basis, given.first.to(dtype), given.widths.to(dtype), given.cutoff_function, 3.0, given.switch_on
    )
    r = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    r = (r / r.norm(dim=1, keepdim=True) * torch.linspace(0.3, 3.2, 40)[:, None]).to(dtype)
    r, mirror = torch.cat([r, -1.0001 * r]), torch.cat([torch.arange(40, 80), torch.arange(40)])
    basis, slope, u, inverse = edge_functions(r, mirror, one)
    d = r.double().norm(dim=1)
    k, tolerance = len(one.first) + 1, 10 * TOLERANCE[dtype]
    for got, expected in zip((basis, slope), filter_basis_and_slope((d + d[mirror]) / 2, given), strict=True):
        assert_close(got[:, :k], expected, tolerance)
        assert not got[:, k:].any()
    assert_close(u, r.double() / d[:, None], tolerance)
    assert_close(inverse, 1 / d, tolerance)


def test_once_leaves_second_derivatives_in_the_edges_out_and_nothing_else():
    graph = GRAPHS["three molecules, one of them a lone atom"]()
    given = inputs(graph)
    leaves = flat(*given)
    gradients = []
    for once in (False, True):
        s, v, _ = run("ops", graph, given, edges_once=once)
        (first,) = torch.autograd.grad(s.square().sum() + v.square().sum(), [given[1]], create_graph=True)
        gradients.append([first, torch.autograd.grad(s.sum() + first.square().sum(), leaves, allow_unused=True)])
    assert torch.equal(gradients[0][0], gradients[1][0])
    for k, (all_, fewer) in enumerate(zip(gradients[0][1], gradients[1][1], strict=True)):
        if k == 1:
            assert fewer is None
        elif all_ is not None:
            assert_close(fewer, all_, 1e-10, f"gradient {k}")
