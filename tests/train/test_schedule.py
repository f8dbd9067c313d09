"""Learning rate, early stop and averaged weights."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from painn_fast.testing import assert_close
from painn_fast.train import TrainSettings
from painn_fast.train.loop import read_data
from painn_fast.train.schedule import Plateau
from painn_fast.train.training import Training


def settings(**values):
    return TrainSettings.parse({"data": [{"file": "toy.npz"}], "learning_rate": 1.0, **values})


@pytest.fixture
def training(toy, tmp_path):
    parsed = TrainSettings.parse(toy)
    return Training(parsed, read_data(parsed, tmp_path))


def test_the_rate_warms_up_stays_and_cools_down_linearly():
    given = settings(warmup_steps=4, max_epochs=10, cooldown_epochs=3)
    plateau = Plateau.of(given)
    assert_close(
        [plateau.at_step(step, 0, given) for step in range(6)], [0.25, 0.5, 0.75, 1.0, 1.0, 1.0], 1e-15, "warm-up"
    )
    assert_close(
        [plateau.at_step(99, epoch, given) for epoch in range(5, 10)], [1.0, 1.0, 0.75, 0.5, 0.25], 1e-15, "cool-down"
    )
    short = settings(warmup_steps=0, max_epochs=4, cooldown_epochs=100)  # --max-epochs 4 of a longer configuration
    assert_close([Plateau.of(short).at_step(9, epoch, short) for epoch in range(4)], [1.0, 0.75, 0.5, 0.25], 1e-15)
    plain = settings(warmup_steps=0)
    assert_close([Plateau.of(plain).at_step(step, 999, plain) for step in (0, 10**6)], [1.0, 1.0], 0.0, "neither")


def test_the_loss_is_smoothed_exponentially():
    plateau = Plateau.of(settings(loss_smoothing=0.9))
    smoothed = []
    for loss in (2.0, 1.0, 5.0):
        plateau.validate(loss)
        smoothed.append(plateau.smoothed)
    assert_close(smoothed, [2.0, 0.9 * 2.0 + 0.1 * 1.0, 0.9 * 1.9 + 0.1 * 5.0], 1e-15)


def test_the_rate_drops_by_the_factor_after_patience_validations_without_a_new_minimum():
    plateau = Plateau.of(settings(loss_smoothing=0.0, plateau_patience=2, plateau_factor=0.5))
    rates, best = [], []
    for loss in (3.0, 2.0, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 1.0, 2.0):
        best.append(plateau.validate(loss))
        rates.append(plateau.learning_rate)
    assert rates == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert best == [True, True, False, False, False, False, False, False, True, False]


def test_a_single_lucky_validation_does_not_count_as_progress():
    plateau = Plateau.of(settings(loss_smoothing=0.9))
    for loss in (1.0, 1.0, 3.0):
        plateau.validate(loss)
    assert not plateau.validate(0.9)


def test_training_ends_for_each_of_its_reasons(training):
    assert training.finished is None
    training.schedule.learning_rate = training.settings.minimum_learning_rate / 2
    assert training.finished == "the learning rate reached its minimum"
    training.schedule.learning_rate = 1e-3
    training.epoch = training.settings.max_epochs
    assert training.finished == "max_epochs reached"
    training.epoch = 0
    training.settings = training.settings.model_copy(update={"max_time": 60.0})
    training.seconds = 61.0
    assert training.finished == "max_time reached"


def test_the_average_forgets_the_random_start_and_then_moves_by_one_minus_decay(training):
    with torch.no_grad():
        for parameter in training.model.parameters():
            parameter.fill_(1.0)
    expected = {name: value.clone() for name, value in training.average.named_parameters()}
    for training.step in (0, 10**6):
        training._update_average(training._share(training.step))
        decay = 0.1 if training.step == 0 else training.settings.ema_decay
        for name, value in training.average.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay)
            assert_close(value, expected[name], 1e-6, f"{name} after step {training.step}")


def test_validation_and_the_best_model_are_those_of_the_averaged_weights(training):
    training.run_step(training.next_rows())
    training.validate(training.end_epoch())
    for (name, best), average, weight in zip(
        training.best.named_parameters(), training.average.parameters(), training.model.parameters(), strict=True
    ):
        assert torch.equal(best, average), name
        assert name.startswith("representation.embedding") or not torch.equal(best, weight) or not weight.any(), name
    before = training.history[-1]["validation_loss"]
    with torch.no_grad():
        for parameter in training.model.parameters():
            parameter.zero_()
    training.validate(0.0)
    assert training.history[-1]["validation_loss"] == before


def test_each_epoch_has_an_order_of_its_own_and_each_structure_at_most_once(training):
    orders = []
    for epoch in range(3):
        batches, training.epoch, training.done = [], epoch, 0
        while training.done < training.steps_per_epoch:
            batches.append(training.next_rows())
            training.done += 1
        orders.append(np.concatenate(batches))
        assert len(orders[-1]) == training.batch_size * training.steps_per_epoch
        assert len(set(orders[-1].tolist())) == len(orders[-1])
    assert not any(np.array_equal(orders[a], orders[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_a_step_takes_a_gradient_of_at_most_the_norm_in_the_settings(training):
    training.settings = training.settings.model_copy(update={"gradient_clip": 1e-3})
    training.run_step(training.next_rows())
    assert float(training.parameters.gradient.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_a_step_reads_no_number_from_the_device(training, monkeypatch):
    """Each one would wait for a GPU; the mean loss of an epoch is read at its end."""
    seen = []

    def not_here(*_):
        raise AssertionError("a step waits for the device")

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            seen.append(operation)
            return operation(*args, **(kwargs or {}))

    made, losses = training.batches, []
    for _ in range(2):
        rows = training.next_rows()
        batch, labels = made(rows)  # in main memory, whatever the device
        for_a_gpu = batch.elements, batch.periodic  # which a batch for a GPU brings along
        training.batches = lambda _, ready=(batch, labels): ready
        with Reads(), monkeypatch.context() as patch:
            for name in ("tolist", "cpu", "item"):
                patch.setattr(torch.Tensor, name, not_here)
            training.run_step(rows)
        assert for_a_gpu == (frozenset(batch.numbers.tolist()), batch.periodic)
        losses.append(training.loss - sum(losses))
    assert len(seen) > 10
    assert torch.ops.aten._local_scalar_dense.default not in seen
    assert training.end_epoch() == pytest.approx(sum(losses) / 2)
    assert training.loss == 0.0
