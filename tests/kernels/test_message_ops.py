"""The fused message: equal to its reference, twice differentiable, and the same again."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from painn_fast.graph import batch_atoms
from painn_fast.kernels.message.ops import Edges, message
from painn_fast.kernels.message.reference import message_of_filter as reference
from painn_fast.kernels.simd import LANES
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import assert_close, random_potential

GRAPHS = {
    "one atom": [Atoms("H")],
    "no edges": [Atoms("H2", [[0, 0, 0], [0, 0, 9.0]])],
    "molecules": [molecule("H2O"), Atoms("H"), molecule("CH4")],
    "crystal, atoms that neighbour their own images": [bulk("Cu", a=3.0)],
}


def inputs(batch, features, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n, e = batch.n_total, len(batch.receiver)
    shapes = [(n, 3 * features), (n, 3, features), (e, columns), (columns, 3 * features), (e, 3)]
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def fused(batch, x, v, basis, weight, u):
    basis = torch.nn.functional.pad(basis, (0, -basis.shape[1] % LANES))
    return message(x, v, weight, Edges(basis, u, batch.row_ptr, batch.sender, batch.mirror))


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(("features", "columns"), [(1, 1), (16, 4), (63, 21), (96, 7)])
def test_equals_its_reference_with_its_first_and_second_derivatives(graph, features, columns):
    batch = batch_atoms(GRAPHS[graph], 3.2, neighbors="list")
    x, v, basis, weight, u = arguments = inputs(batch, features, columns)
    both = [fused(batch, *arguments), reference(x, v, basis @ weight, u, batch.receiver, batch.sender)]
    generator = torch.Generator().manual_seed(1)
    outer = [torch.randn(t.shape, generator=generator, dtype=torch.float64).requires_grad_() for t in both[0]]
    seconds = []
    for outputs in both:
        first = torch.autograd.grad(outputs, arguments, outer, create_graph=True)
        mixed = sum((k + 1) * (g**2).sum() for k, g in enumerate(first))
        seconds.append([*outputs, *first, *torch.autograd.grad(mixed, [*arguments, *outer])])
    for got, expected in zip(*seconds, strict=True):
        assert_close(got.detach(), expected.detach(), 1e-10)


def test_gradcheck_and_gradgradcheck_pass():
    batch = batch_atoms([molecule("H2O")], 5.0)
    arguments = inputs(batch, 2, 3)

    def function(*given):
        return fused(batch, *given)

    assert torch.autograd.gradcheck(function, arguments)
    assert torch.autograd.gradgradcheck(function, arguments)


def test_third_derivatives_equal_those_of_the_reference():
    batch = batch_atoms([molecule("H2O")], 5.0)
    x, v, basis, weight, u = arguments = inputs(batch, 2, 3)
    thirds = []
    for outputs in (fused(batch, *arguments), reference(x, v, basis @ weight, u, batch.receiver, batch.sender)):
        scalar = sum((t**3).sum() for t in outputs)
        for _ in range(3):
            gradients = torch.autograd.grad(scalar, arguments, create_graph=True)
            scalar = sum((k + 1) * (g**2).sum() for k, g in enumerate(gradients))
        thirds.append([g.detach() for g in gradients])
    for got, expected in zip(*thirds, strict=True):
        assert_close(got, expected, 1e-9)


def test_strided_inputs_and_gradients_give_the_same():
    batch = batch_atoms([molecule("CH4")], 5.0)
    arguments = [a.detach() for a in inputs(batch, 16, 4)]
    strided = [a.T.contiguous().T if a.ndim == 2 else a.transpose(0, 2).contiguous().transpose(0, 2) for a in arguments]
    results = []
    for given in (arguments, strided):
        leaves = [a.clone(memory_format=torch.preserve_format).requires_grad_() for a in given]
        ds, dv = fused(batch, *leaves)
        (ds.sum() + dv.sum()).backward()  # gradients of stride 0
        results.append([ds.detach(), dv.detach(), *(leaf.grad for leaf in leaves)])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


NETWORKS = [
    {},
    {"ablation": "no_scalar_product"},
    {"shared_filters": True},
    {"shared_interactions": True},
    {"activation": "shifted_softplus"},
    {"n_features": 24},  # padded in the messages
    {"radial_basis": "gaussian", "cutoff_function": "mollifier"},
    {"charge_embedding": {}},
]


@pytest.mark.parametrize("values", NETWORKS, ids=str)
def test_training_gradients_of_the_fused_network_equal_those_of_the_reference(values):
    config = PotentialConfig(
        representation=RepresentationConfig(**{"n_features": 16, "n_layers": 2, "n_rbf": 6, **values}),
        heads=(EnergyHead(), DipoleHead(), PolarizabilityHead()),
    )
    batch = batch_atoms([molecule("CH3CH2OH"), molecule("H2O")], 5.0)
    gradients = []
    for backend in ("reference", "fused"):
        potential = random_potential(config)
        potential.backend = backend
        assert potential.fused == (backend == "fused")
        results = potential(batch, ("energy", "forces", "dipole", "polarizability"), create_graph=True)
        (results["energy"].sum() + sum(value.square().sum() for value in results.values())).backward()
        gradients.append({name: p.grad for name, p in potential.named_parameters()})
    for name, expected in gradients[0].items():
        assert_close(gradients[1][name], expected, 1e-10, name)


def test_ablations_without_vector_messages_stay_on_the_reference():
    config = RepresentationConfig(n_features=16, ablation="no_vector_propagation")
    potential = random_potential(PotentialConfig(representation=config))
    potential.backend = "fused"
    assert not potential.fused


def test_two_runs_are_bitwise_equal_whatever_the_threads():
    batch = batch_atoms([molecule("CH3CH2OH")] * 20, 5.0)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            leaves = [a.detach().float().requires_grad_() for a in inputs(batch, 16, 8)]
            ds, dv = fused(batch, *leaves)
            gradients = torch.autograd.grad((ds**2).sum() + (dv**2).sum(), leaves, create_graph=True)
            sum((g**2).sum() for g in gradients).backward()
            results.append([leaf.grad for leaf in leaves])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)
