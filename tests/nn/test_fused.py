"""The compiled network is that of the paper: every configuration, first and second derivatives, one definition."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from painn_fast.graph import batch_atoms
from painn_fast.kernels.network import reference
from painn_fast.nn import (
    DipoleHead,
    EnergyHead,
    PolarizabilityHead,
    PotentialConfig,
    RepresentationConfig,
    fused,
    hessian,
)
from painn_fast.nn.painn import GATES
from painn_fast.testing import assert_close, random_potential

NETWORKS = [
    *({"ablation": row} for row in GATES),
    {"shared_filters": True},
    {"shared_interactions": True},
    {"shared_filters": True, "shared_interactions": True, "ablation": "no_vector_propagation"},
    {"activation": "shifted_softplus"},
    {"activation": "shifted_softplus", "n_features": 13, "ablation": "no_scalar_product"},
    {"n_features": 24},
    {"radial_basis": "gaussian", "cutoff_function": "mollifier"},
    {"cutoff_function": "switch", "switch_on": 2.0},
    {"charge_embedding": {}},
    {"epsilon": 1e-30},
]


def build(values, dtype=torch.float64):
    representation = RepresentationConfig(**{"n_features": 16, "n_layers": 2, "n_rbf": 6, **values})
    vectors = representation.ablation != "no_vector_features"
    heads = (EnergyHead(), DipoleHead(), PolarizabilityHead()) if vectors else (EnergyHead(),)
    return random_potential(PotentialConfig(representation=representation, heads=heads), dtype=dtype)


def structures():
    return batch_atoms([molecule("CH3CH2OH"), Atoms("H"), molecule("H2O")], 5.0)


@pytest.mark.parametrize("values", NETWORKS, ids=str)
def test_results_and_training_gradients_equal_those_of_the_reference(values):
    batch, numbers = structures(), []
    for backend in ("reference", "fused"):
        potential = build(values)
        potential.backend = backend
        assert potential.fused == (backend == "fused")
        names = [name for name in ("energy", "forces", "dipole", "polarizability") if name in potential.properties]
        results = potential(batch, names, create_graph=True)
        (results["energy"].sum() + sum(value.square().sum() for value in results.values())).backward()
        gradients = {name: p.grad for name, p in potential.named_parameters()}
        numbers.append({name: value.detach() for name, value in results.items()} | gradients)
    for name, expected in numbers[0].items():
        if expected is None:
            assert numbers[1][name] is None or not numbers[1][name].any(), name
        else:
            assert_close(numbers[1][name], expected, 1e-10, name)


@pytest.mark.parametrize("values", NETWORKS, ids=str)
def test_features_are_those_of_the_reference_of_the_kernels_too(values):
    """Two spellings of one network: the paper's in `nn/painn.py`, and what the compiled operation computes."""
    network, batch = build(values).representation, structures()
    r = batch.edge_vectors()
    with torch.no_grad():
        expected = network(batch, r)
        graph = batch.row_ptr, batch.sender, batch.mirror
        given = network.embed(batch), r, fused.radial(network), fused.weights(network), network.config.activation
        s, v, read = reference.network(*given, network.config.epsilon, *graph)
        compiled = fused.features(network, batch, r)
    assert not read.any()
    for got in ((s, v), compiled[:2]):
        for name, a, b in zip(("s", "v"), got, expected, strict=True):
            assert_close(a, b, 1e-12, name)


@pytest.mark.parametrize(
    "values", [{}, {"activation": "shifted_softplus", "ablation": "no_vector_propagation"}], ids=str
)
def test_second_derivatives_in_the_positions_equal_those_of_the_reference(values):
    potential, batch = build(values), batch_atoms([molecule("H2O")], 5.0)
    with potential.reference():
        expected = hessian(potential, batch)
    assert_close(hessian(potential, batch), expected, 1e-10)


def test_stress_of_a_crystal_and_its_gradient_equal_those_of_the_reference():
    atoms = bulk("MgO", "rocksalt", a=3.2)
    atoms.rattle(0.05, seed=0)
    batch, numbers = batch_atoms([atoms], 4.0), []
    for backend in ("reference", "fused"):
        potential = build({"cutoff": 4.0})
        potential.backend = backend
        results = potential(batch, ("energy", "forces", "stress"), create_graph=True)
        sum(value.square().sum() for value in results.values()).backward()
        numbers.append([value.detach() for value in results.values()] + [p.grad for p in potential.parameters()])
    for expected, got in zip(*numbers, strict=True):
        if expected is not None:
            assert_close(got, expected, 1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_without_gradients_the_numbers_are_the_same(dtype):
    potential, batch = build({}, dtype), structures()
    names = ("energy", "dipole", "polarizability")
    expected = potential(batch, names)
    with torch.no_grad():
        got = potential(batch, names)
    for name in names:
        assert torch.equal(got[name], expected[name].detach()), name


def test_other_dtypes_run_the_reference():
    assert not fused.available(build({}).to(torch.bfloat16).representation)
    assert fused.available(build({}, torch.float32).representation)
