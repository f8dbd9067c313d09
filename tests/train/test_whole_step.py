"""Steps on padded batches are the steps on the batches themselves; one size is captured once."""

import copy

import numpy as np
import pytest
import torch

from painn_fast.train import whole_step
from painn_fast.train.data.dataset import Batches
from painn_fast.train.loop import read_data
from painn_fast.train.loss import joint_loss
from painn_fast.train.settings import TrainSettings
from painn_fast.train.training import Training
from painn_fast.train.whole_step import WholeStep, bucket, padded


def test_sizes_are_few_and_not_much_larger():
    counts = np.arange(1, 5000)
    sizes = np.array([bucket(int(n)) for n in counts])
    assert (sizes >= counts).all()
    assert (sizes[8:] <= 1.25 * counts[8:]).all()
    assert len(set(sizes[1000:2000])) <= 6


@pytest.fixture
def training(toy, tmp_path):
    parsed = TrainSettings.parse(toy | {"heads": [{"type": "energy"}]})
    return Training(parsed, read_data(parsed, tmp_path))


@pytest.fixture
def given(training):
    """A model in float64 and a batch with its labels."""
    batch, labels = Batches(training.data["train"], training.model.cutoff, training.names)(np.arange(5))
    return copy.deepcopy(training.model).double(), batch, labels


def test_a_padded_batch_is_a_graph_and_gives_the_same_loss_and_gradients(given):
    model, batch, labels = given
    whole, filled = padded(batch, labels, model.cutoff)
    assert whole.n_total == bucket(whole.n_total) > batch.n_total
    assert len(whole.sender) == bucket(len(whole.sender)) >= len(batch.sender)
    assert torch.equal(whole.row_ptr, torch.searchsorted(whole.receiver, torch.arange(whole.n_total + 1)))
    r = whole.edge_vectors()
    assert torch.equal(whole.mirror[whole.mirror], torch.arange(len(r)))
    assert torch.equal(r[whole.mirror], -r)
    assert torch.equal(whole.sender[whole.mirror], whole.receiver)
    assert (r[len(batch.sender) :].norm(dim=1) > model.cutoff).all()
    results = []
    for one, known in ((batch, labels), (whole, filled)):
        values = model(one, tuple(labels), create_graph=True)
        loss, _ = joint_loss(values, known, one, dict.fromkeys(labels, 1.0))
        results.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)])
    for one, other in zip(*results, strict=True):
        assert torch.isfinite(other).all()
        assert float((one - other).norm()) <= 1e-12 * float(one.norm())


def test_a_training_of_whole_steps_is_that_of_single_operations(training, monkeypatch):
    captures = []

    def captured(run, device, warm_up):
        warm_up()
        captures.append(device)
        return run

    monkeypatch.setattr(whole_step, "captured", captured)
    other = Training(training.settings, training.data)
    other._whole = WholeStep.of(other._gradients, other._update, other.names, other.model)
    for _ in range(4):
        rows = training.next_rows()
        assert np.array_equal(rows, other.next_rows())
        training.run_step(rows)
        other.run_step(rows)
    assert len(captures) == len(other._whole._runs) >= 1
    assert other._loss == pytest.approx(training.loss, rel=1e-5)
    for one, same in ((training.parameters, other.parameters), (training.averages, other.averages)):
        assert float((one.values - same.values).norm()) <= 1e-5 * float(one.values.norm())


def test_a_step_that_cannot_be_captured_is_taken_by_single_operations(training, monkeypatch, capsys):
    def captured(run, device, warm_up):
        raise RuntimeError("no such thing in a capture")

    monkeypatch.setattr(whole_step, "captured", captured)
    training._whole = WholeStep.of(training._gradients, training._update, training.names, training.model)
    before = training.parameters.values.clone()
    for _ in range(3):
        training.run_step(training.next_rows())
    assert training.step == 3
    assert not torch.equal(training.parameters.values, before)
    assert capsys.readouterr().err.count("not captured") == 1


def test_labels_that_a_padding_would_change_have_no_whole_steps(training):
    assert WholeStep.of(training._gradients, training._update, ["energy", "dipole"], training.model) is None
