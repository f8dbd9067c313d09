"""The training loop."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.io.load import device_of
from painn_fast.kernels import threads
from painn_fast.kernels.jit import working_time
from painn_fast.runtime import checkpoint
from painn_fast.runtime.interrupt import Interrupt
from painn_fast.runtime.progress import StatusLine, aligned, clock
from painn_fast.runtime.ranks import ranks
from painn_fast.train import report
from painn_fast.train.ahead import compiling_ahead
from painn_fast.train.data import SPLITS, Dataset, join, read_split
from painn_fast.train.data.check import check, judge
from painn_fast.train.data.statistics import describe, format_statistics, statistics
from painn_fast.train.evaluation import error_rows, usable
from painn_fast.train.loss import set_references
from painn_fast.train.model import check_units_of_scalars, output_file
from painn_fast.train.settings import TrainSettings, labels_of
from painn_fast.train.tensorboard import TensorBoardWriter
from painn_fast.train.training import Training

CHECKPOINT_EVERY = 60.0
"""Seconds between checkpoints; one is also written at the end and when a signal stops the run."""
STOP_EVERY = 16
"""Steps between questions whether to stop, where several processes must agree."""


def read_data(settings: TrainSettings, folder: str | Path = ".") -> dict[str, Dataset]:
    """The rows of all files of the settings, by split."""
    names = labels_of(settings.heads)
    files = [read_split(source, folder, names, settings.split) for source in settings.data]
    data = {name: usable(join([file[name] for file in files])) for name in SPLITS}
    check_units_of_scalars(settings, data["train"])
    if settings.train_size is not None and settings.train_size < len(data["train"]):
        order = np.random.default_rng(settings.split.seed).permutation(len(data["train"]))
        data["train"] = data["train"].select(np.sort(order[: settings.train_size]))
    for name in ("train", "validation"):
        if not len(data[name]):
            raise PaiNNFastError(
                f"no labelled {name} rows",
                where=", ".join(source.file for source in settings.data),
                got="; ".join(describe(data)),
                expected=f"labels of {', '.join(names)}",
                fix="name the arrays of labels in data.keys",
            )
    return data


def run(settings: TrainSettings, *, data_folder: str | Path = ".", resume: bool = False) -> Path:
    """Train a model, or go on with a training; under `torchrun` with all its processes.

    Args:
        settings: what to train on what.
        data_folder: where the data files are.
        resume: continue from the checkpoint in the output folder, bit for bit.

    Returns:
        The model file; beside it lie the report, learning curves, the resolved settings and the checkpoint.

    Raises:
        PaiNNFastError: for data that are not understood, an output folder in use, or a training that diverges.

    Example:
        >>> import numpy as np
        >>> from painn_fast.train import TrainSettings, run
        >>> positions = np.random.default_rng(0).normal(size=(30, 3, 3))
        >>> energies = np.linalg.norm(positions[:, 1] - positions[:, 0], axis=1)
        >>> np.savez("set.npz", R=positions, z=[8, 1, 1], E=energies, energy_unit="eV", length_unit="Ang")
        >>> network = {"n_features": 8, "n_layers": 1, "n_rbf": 5}
        >>> settings = {"data": [{"file": "set.npz"}], "representation": network, "max_epochs": 2}
        >>> run(TrainSettings.parse(settings))
        PosixPath('training/model.safetensors')
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    output = Path(settings.output)
    saved = output / "checkpoint.safetensors"
    if checkpoint.existing(saved) and not resume:
        raise PaiNNFastError(
            "the output folder holds a training", where=output, fix="resume it with --resume, or choose another"
        )
    data = read_data(settings, data_folder)
    doubts = judge(check(data, settings.representation.max_z, _cutoff(settings)), settings.checks)
    device_of(settings.device)
    slow = settings.device == "cpu" and "forces" in data["train"].labels
    with ranks(settings.device) as (together, device), compiling_ahead(slow and together.first):
        training = Training(settings, data, together, device)
        if resume and checkpoint.existing(saved):
            training.restore(saved)
        output.mkdir(parents=True, exist_ok=True)
        with StatusLine(silent=not together.first) as status, Interrupt() as interrupt:
            for line in (*describe(data), *format_statistics(statistics(data)), *doubts):
                status.keep(line)
            _loop(training, saved, status, interrupt)
        if interrupt.signal:
            raise PaiNNFastError("interrupted; everything is saved", where=saved, fix="go on with --resume")
        return finish(training, output) if together.first else output_file(settings)


def _cutoff(settings: TrainSettings) -> float | None:
    """Å; None where the model to start from decides."""
    length = units.factor("length", settings.model_units.get("length", "Ang"))
    return None if settings.start_from is not None else settings.representation.cutoff * length


def _loop(training: Training, saved: Path, status: StatusLine, interrupt: Interrupt) -> None:
    settings, together = training.settings, training.ranks
    start, last_save = working_time() - training.seconds, time.monotonic()
    line = "no validation yet"
    stop = ""
    board = TensorBoardWriter(saved.parent) if settings.tensorboard and together.first else None
    with threads.ours():
        while (reason := together.broadcast_from_rank_0(training.finished)) is None and not stop:
            while training.done < training.steps_per_epoch and not stop:
                training.run_step(training.next_rows())
                training.seconds = working_time() - start
                if together.first and time.monotonic() - last_save > CHECKPOINT_EVERY:
                    training.save(saved)
                    last_save = time.monotonic()
                status.update(f"{line}  [{_time_left(training)}]")
                if together.world == 1 or training.done % STOP_EVERY == 0:
                    stop = together.broadcast_from_rank_0(interrupt.signal)
            if training.done < training.steps_per_epoch:
                break
            loss = training.end_epoch()
            if training.epoch % settings.validate_every == 0:
                line = training.validate(loss)
                if board:
                    board.write(training.history[-1])
                status.update(f"{line}  [{_time_left(training)}]")
    if together.first:
        training.save(saved)
    status.keep(line)
    status.keep(f"stopped after epoch {training.epoch}: {reason or 'interrupted'}")


def _time_left(training: Training) -> str:
    settings = training.settings
    epochs = training.epoch + training.done / training.steps_per_epoch
    left = training.seconds / epochs * (settings.max_epochs - epochs)
    limit = settings.max_time - training.seconds if settings.max_time is not None else left
    passed = f"epoch {epochs:.1f} of {settings.max_epochs}, {clock(training.seconds)}"
    return f"{passed}, at most {clock(min(left, limit))} left"


def finish(training: Training, output: Path) -> Path:
    """Write the best model and the report on it."""
    model = training.best if training.history else training.average  # too short to have been validated
    if training.weights.get("energy") == 0.0:  # trained on forces, which leave the zero of energies open
        set_references(model, training.data["train"], kept=("energy",))
    finished = report.Finished(
        settings=training.settings,
        model=model,
        data=training.data,
        data_sha256=training.data_fingerprint,
        names=training.names,
        history=training.history,
        level_of_theory=training.level_of_theory,
        batch_size=training.batch_size,
        epochs=training.epoch,
        steps=training.step,
        seconds=training.seconds,
        processes=training.ranks.world,
    )
    path = report.write(finished, output)
    split = finished.analysed
    with StatusLine() as status:
        for line in (f"errors on the {split} set:", *aligned(error_rows(finished.tables[split]))):
            status.keep(line)
    return path
