"""A step without autograd has the loss and the gradient of the plain network's, and is taken where it can be."""

import copy

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from painn_fast.graph import batch_atoms
from painn_fast.kernels.simd import LANES
from painn_fast.nn import PotentialConfig
from painn_fast.testing import assert_close, random_potential
from painn_fast.train.direct_step import DirectStep
from painn_fast.train.loop import read_data
from painn_fast.train.loss import joint_loss
from painn_fast.train.optimizer import FlatParameters
from painn_fast.train.settings import TrainSettings
from painn_fast.train.training import Training

SIZES = {"n_features": 2 * LANES, "n_layers": 3, "n_rbf": 6, "cutoff": 4.0}
ENERGY = {"type": "energy"}
STRUCTURES = {
    "molecules, one of them a lone atom": lambda: [molecule("CH3CH2OH"), Atoms("H"), molecule("H2O")],
    "a lone atom": lambda: [Atoms("H")],
    "more than one part": lambda: [molecule("CH3CH2OH")] * 9 + [molecule("C6H6"), Atoms("H")] * 3,
    "a crystal beside a molecule": lambda: [bulk("C", cubic=True), molecule("CH4")],
}


def potential(dtype=torch.float64, heads=(ENERGY,), units=("kcal/mol", "Bohr"), **representation):
    config = {"representation": SIZES | representation, "heads": list(heads)}
    config |= {"energy_unit": units[0], "length_unit": units[1]}
    return random_potential(PotentialConfig.parse(config), dtype=dtype)


def labels_for(batch, names):
    """Some of them missing."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"energy": (batch.n_molecules,), "forces": (batch.n_total, 3)}
    labels = {name: torch.randn(shapes[name], generator=generator, dtype=torch.float64) for name in names}
    if batch.n_molecules > 1:
        labels[names[0]][1] = torch.nan
        labels[names[-1]].view(-1)[-1] = torch.nan
    return labels


def by_autograd(model, batch, labels, weights, counts, per_atom):
    """Loss and gradient of the reference in float64."""
    model = copy.deepcopy(model).double()
    with model.reference():
        results = model(batch, tuple(labels), create_graph=True)
    loss, _ = joint_loss(results, labels, batch, weights, counts, energy_per_atom=per_atom)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return loss, torch.cat([g.reshape(-1) for g in gradients])


@pytest.mark.parametrize("structures", STRUCTURES)
@pytest.mark.parametrize("names", [("energy", "forces"), ("energy",), ("forces",)], ids="-".join)
def test_loss_and_gradient_are_those_of_the_reference(structures, names):
    model = potential(cutoff=7.0)
    batch = batch_atoms(STRUCTURES[structures](), model.cutoff)
    labels = labels_for(batch, names)
    weights, counts = {"energy": 0.3, "forces": 0.7}, {"energy": 5, "forces": 11}
    for per_atom in (True, False):
        loss, gradient = by_autograd(model, batch, labels, weights, counts, per_atom)
        flat = FlatParameters(model)
        flat.gradient.fill_(torch.nan)  # nothing is left of the step before
        step = DirectStep.of(model, flat, {name: weights[name] for name in names}, energy_per_atom=per_atom)
        for _ in range(2):
            assert_close(step(batch, labels, counts), loss, 1e-11, "loss")
            assert_close(flat.gradient, gradient, 1e-10, "gradient")


@pytest.mark.parametrize("options", [{"activation": "shifted_softplus"}, {"charge_embedding": {}}], ids=str)
def test_other_networks(options):
    model = potential(**options)
    batch = batch_atoms([molecule("CH3CH2OH"), molecule("H2O")], model.cutoff)
    labels, ones = labels_for(batch, ("energy", "forces")), {"energy": 1, "forces": 1}
    loss, gradient = by_autograd(model, batch, labels, ones, ones, True)
    flat = FlatParameters(model)
    assert_close(DirectStep.of(model, flat, ones, energy_per_atom=True)(batch, labels, ones), loss, 1e-11, "loss")
    assert_close(flat.gradient, gradient, 1e-10, "gradient")


def test_a_gradient_follows_the_weights_and_is_the_same_with_any_number_of_threads():
    model = potential(torch.float32)
    batch = batch_atoms([molecule("CH3CH2OH")] * 12, model.cutoff)
    labels, ones = labels_for(batch, ("energy", "forces")), {"energy": 1, "forces": 1}
    flat = FlatParameters(model)
    step, before = DirectStep.of(model, flat, ones, energy_per_atom=True), torch.get_num_threads()
    gradients = []
    for scale in (1.0, 0.9):
        flat.values.mul_(scale)
        loss, gradient = by_autograd(model, batch, labels, ones, ones, True)
        try:
            for threads in (1, 2):
                torch.set_num_threads(threads)
                assert_close(step(batch, labels, ones), loss, 1e-5, "loss")
                gradients.append(flat.gradient.clone())
        finally:
            torch.set_num_threads(before)
        assert float((gradients[-1] - gradient).norm()) <= 1e-5 * float(gradient.norm())
        assert torch.equal(*gradients[-2:])


DIPOLE = {"type": "dipole"}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"n_features": LANES + 2}, ("energy",)),
        ({"ablation": "no_scalar_product"}, ("energy",)),
        ({"shared_filters": True}, ("energy",)),
        ({"shared_interactions": True}, ("energy",)),
        ({"heads": ({**ENERGY, "n_layers": 3},)}, ("energy",)),
        ({"heads": (ENERGY, DIPOLE)}, ("energy", "dipole")),
        ({"heads": (DIPOLE,)}, ("dipole",)),
        ({}, ("energy", "stress")),
    ],
    ids=str,
)
def test_autograd_remains_for_what_it_does_not_take(options, names):
    model = potential(**options)
    assert DirectStep.of(model, FlatParameters(model), dict.fromkeys(names, 1.0), energy_per_atom=True) is None


def test_autograd_remains_for_plain_torch_and_for_frozen_parameters():
    model = potential()
    assert DirectStep.of(model, FlatParameters(model), {"energy": 1.0}, energy_per_atom=True)
    with model.reference():
        assert DirectStep.of(model, FlatParameters(model), {"energy": 1.0}, energy_per_atom=True) is None
    model.representation.requires_grad_(False)
    assert DirectStep.of(model, FlatParameters(model), {"energy": 1.0}, energy_per_atom=True) is None


def test_a_training_of_such_steps_is_that_of_autograd(toy, tmp_path):
    settings = TrainSettings.parse(toy | {"heads": [ENERGY], "representation": SIZES})
    trainings = [Training(settings, read_data(settings, tmp_path)) for _ in range(2)]
    assert trainings[0]._direct is not None
    trainings[1]._direct = None
    for _ in range(4):
        for training in trainings:
            training.run_step(training.next_rows())
    one, other = trainings
    assert one.loss == pytest.approx(other.loss, rel=1e-5)
    assert float((one.parameters.values - other.parameters.values).norm()) <= 1e-5 * float(one.parameters.values.norm())
