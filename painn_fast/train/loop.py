"""The training loop."""

from __future__ import annotations

import copy
import time
from pathlib import Path

import numpy as np
import torch

from painn_fast import checkpoint
from painn_fast.errors import PaiNNFastError
from painn_fast.interrupt import Interrupt
from painn_fast.io import load
from painn_fast.io.model_file import fill, fingerprint, save_model
from painn_fast.kernels import threads
from painn_fast.nn import Potential, PotentialConfig
from painn_fast.progress import StatusLine, clock
from painn_fast.settings import write_resolved
from painn_fast.train import report
from painn_fast.train.dataset import SPLITS, Dataset, join, read_npz
from painn_fast.train.evaluation import errors, format_errors, predict
from painn_fast.train.loss import joint_loss, set_references
from painn_fast.train.optimizer import optimizer_tensors, restore_optimizer
from painn_fast.train.schedule import Plateau
from painn_fast.train.settings import LABELS, TrainSettings

CHECKPOINT_EVERY = 60.0
"""Seconds between checkpoints; one is also written at the end and when a signal stops the run."""


class Training:
    """A training in progress: model, its exponential moving average, optimizer, schedule and history.

    Given the seed every epoch is determined by its number, so that a resumed run goes on bit for bit on one device.
    """

    def __init__(self, settings: TrainSettings, data: dict[str, Dataset]) -> None:
        self.settings, self.data = settings, data
        torch.manual_seed(settings.seed)
        elements = sorted({int(z) for part in data.values() for m in part.molecules for z in m.numbers})
        self.model = Potential(
            PotentialConfig(
                representation=settings.representation, heads=settings.heads, elements=elements, name=settings.name
            )
        )
        self.names = [name for name in LABELS if name in self.model.properties and data["train"].labelled(name)]
        if not self.names:
            raise PaiNNFastError(
                "no label fits a head of the model", got=self.model.properties, expected=", ".join(LABELS)
            )
        if settings.start_from is None:
            set_references(self.model, data["train"])
        else:
            fill(self.model, load(settings.start_from).state_dict(), where=settings.start_from)
        self.model.to(settings.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.best = copy.deepcopy(self.average)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.schedule = Plateau.of(settings)
        self.epoch = self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []

    def run_epoch(self) -> float:
        """One pass over the training rows in an order that the seed and the epoch give; mean loss."""
        order = np.random.default_rng([self.settings.seed, self.epoch]).permutation(len(self.data["train"]))
        size = min(self.settings.batch_size, len(order))
        with threads.ours():
            losses = [self.run_step(order[k : k + size]) for k in range(0, len(order) - size + 1, size)]
        self.epoch += 1
        return float(np.mean(losses))

    def run_step(self, rows: np.ndarray) -> float:
        """One optimizer step on these rows of the training set; its loss."""
        batch, labels = self.data["train"].select(rows).batch(self.settings.device)
        results = self.model(batch, self.names, create_graph=True)
        loss, _ = joint_loss(results, labels, batch, self.settings.loss)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.at_step(self.step, self.epoch, self.settings)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return float(loss.detach())

    def _update_average(self) -> None:
        """EMA with a decay that grows from 0 so that the random start is forgotten."""
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averages: list[torch.Tensor] = list(self.average.parameters())
            values: list[torch.Tensor] = list(self.model.parameters())
            torch._foreach_lerp_(averages, values, 1 - decay)

    def validate(self, train_loss: float) -> str:
        """Errors of the averaged model on the validation rows as a line; schedule, history and best model follow."""
        predicted, labels = predict(self.average, self.data["validation"])
        used = {name: value for name, value in predicted.items() if name in self.names}
        batch, _ = self.data["validation"].batch()
        loss = float(joint_loss(used, labels, batch, self.settings.loss)[0])
        if not np.isfinite(loss):
            raise PaiNNFastError(
                "the training diverged",
                where=f"epoch {self.epoch}",
                got=f"validation loss {loss}",
                fix="lower learning_rate",
            )
        rate = self.schedule.at_step(self.step, self.epoch - 1, self.settings)
        if self.schedule.validate(loss):
            self.best = copy.deepcopy(self.average)
        table = errors(used, labels)
        self.history.append(
            {"epoch": self.epoch, "train_loss": train_loss, "validation_loss": loss, "learning_rate": rate}
            | {name: float(row["mae"]) for name, row in table.items()}
        )
        losses = f"loss {train_loss:.4f}/{loss:.4f}"
        return f"epoch {self.epoch}  {losses}  lr {rate:.1e}  validation MAE: {format_errors(table)}"

    @property
    def finished(self) -> str | None:
        """Why the training is over, or None."""
        if self.schedule.learning_rate < self.settings.minimum_learning_rate:
            return "the learning rate reached its minimum"
        if self.epoch >= self.settings.max_epochs:
            return "max_epochs reached"
        if self.settings.max_time is not None and self.seconds >= self.settings.max_time:
            return "max_time reached"
        return None

    def save(self, path: Path) -> None:
        """Everything that the next epoch depends on."""
        tensors = {
            f"{kind}.{name}": tensor for kind, module in self._modules() for name, tensor in module.state_dict().items()
        }
        numbers = {"epoch": self.epoch, "step": self.step, "seconds": self.seconds, "history": self.history}
        numbers |= {"schedule": self.schedule.state(), "data": self.data_fingerprint(), "settings": self._frozen()}
        checkpoint.save(path, tensors | optimizer_tensors(self.optimizer, self.model), numbers)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            PaiNNFastError: if it was made with other settings or other data.
        """
        tensors, numbers = checkpoint.load(path)
        for key, now in (("settings", self._frozen()), ("data", self.data_fingerprint())):
            if numbers.get(key) != now:
                raise PaiNNFastError(
                    f"the checkpoint was made with other {key}",
                    where=path,
                    fix="restore them, or choose another output folder",
                )
        for kind, module in self._modules():
            module.load_state_dict(
                {name.removeprefix(f"{kind}."): t for name, t in tensors.items() if name.startswith(f"{kind}.")}
            )
        restore_optimizer(self.optimizer, self.model, tensors)
        self.schedule = Plateau(**numbers["schedule"])
        self.epoch, self.step, self.seconds = numbers["epoch"], numbers["step"], numbers["seconds"]
        self.history = numbers["history"]

    def _modules(self) -> list[tuple[str, Potential]]:
        return [("model", self.model), ("average", self.average), ("best", self.best)]

    def _frozen(self) -> dict[str, object]:
        """The settings that a resumed run must share; its length is one of them if the learning rate hangs on it."""
        free = {"max_time", "threads", "output"} | ({"max_epochs"} if self.settings.cooldown_epochs == 0 else set())
        return self.settings.model_dump(mode="json", exclude=free)

    def data_fingerprint(self) -> str:
        """SHA-256 of geometries and labels."""
        tensors: dict[str, torch.Tensor] = {}
        for name, part in self.data.items():
            if len(part):
                batch, labels = part.batch()
                tensors |= {f"{name}.R": batch.positions, **{f"{name}.{key}": value for key, value in labels.items()}}
        return fingerprint(tensors)


def read_data(settings: TrainSettings, folder: str | Path = ".") -> dict[str, Dataset]:
    """The rows of all files of the settings, by split."""
    files = [read_npz(source, folder, split_seed=settings.split_seed) for source in settings.data]
    data = {name: join([file[name] for file in files]) for name in SPLITS}
    for name in ("train", "validation"):
        if not len(data[name]):
            raise PaiNNFastError(f"no labelled {name} rows", where=", ".join(source.file for source in settings.data))
    return data


def run(settings: TrainSettings, *, data_folder: str | Path = ".", resume: bool = False) -> Path:
    """Train a model, or go on with a training.

    Args:
        settings: what to train on what.
        data_folder: where the data files are.
        resume: continue from the checkpoint in the output folder, bit for bit.

    Returns:
        The model file; beside it lie the report, learning curves, the resolved settings and the checkpoint.

    Raises:
        PaiNNFastError: for data that are not understood, an output folder in use, or a training that diverges.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    output = Path(settings.output)
    saved = output / "checkpoint.safetensors"
    if saved.exists() and not resume:
        raise PaiNNFastError(
            "the output folder holds a training", where=output, fix="resume it with --resume, or choose another"
        )
    data = read_data(settings, data_folder)
    training = Training(settings, data)
    if resume and saved.exists():
        training.restore(saved)
    output.mkdir(parents=True, exist_ok=True)
    with StatusLine() as status, Interrupt() as interrupt:
        status.keep(describe(data))
        _loop(training, saved, status, interrupt)
    if interrupt.signal:
        raise PaiNNFastError("interrupted; everything is saved", where=saved, fix="go on with --resume")
    return finish(training, output, data_folder)


def describe(data: dict[str, Dataset]) -> str:
    """How many rows and labels each split has."""
    said = []
    for split, part in data.items():
        labels = ", ".join(f"{part.labelled(name)} {name}" for name in LABELS)
        said.append(f"{split}: {len(part)} structures ({labels})")
    return "; ".join(said) + "; units: eV, eV/Å, e Å, Å³"


def _loop(training: Training, saved: Path, status: StatusLine, interrupt: Interrupt) -> None:
    settings = training.settings
    start, last_save = time.monotonic() - training.seconds, time.monotonic()
    while (reason := training.finished) is None and not interrupt.signal:
        loss = training.run_epoch()
        training.seconds = time.monotonic() - start
        if training.epoch % settings.validate_every == 0:
            line = training.validate(loss)
            left = training.seconds / training.epoch * (settings.max_epochs - training.epoch)
            limit = settings.max_time - training.seconds if settings.max_time is not None else left
            status.update(f"{line}  [{clock(training.seconds)}, at most {clock(min(left, limit))} left]")
        if time.monotonic() - last_save > CHECKPOINT_EVERY:
            training.save(saved)
            last_save = time.monotonic()
    training.save(saved)
    status.keep(f"stopped after epoch {training.epoch}: {reason or 'interrupted'}")


def finish(training: Training, output: Path, data_folder: str | Path) -> Path:
    """Write the best model, its errors by split and by file, pictures, card and resolved settings."""
    settings = training.settings
    model = training.best if training.history else training.average  # too short to have been validated
    pairs = {split: predict(model, part) for split, part in training.data.items() if len(part)}
    tables = {split: errors(*pair) for split, pair in pairs.items()}
    for source in settings.data:
        rows = read_npz(source, data_folder, split_seed=settings.split_seed)["test"]
        if len(rows):
            tables[f"test, {source.file}"] = errors(*predict(model, rows))
    provenance = {
        "data": "; ".join(f"{source.file} ({source.origin})" for source in settings.data),
        "data_sha256": training.data_fingerprint(),
        "level_of_theory": settings.level_of_theory,
        "description": settings.description,
        "limits": settings.limits,
        "epochs": str(training.epoch),
    }
    provenance |= {f"MAE, {split}": format_errors(table) for split, table in tables.items() if split != "train"}
    model.config = model.config.model_copy(update={"provenance": provenance})
    path = output / f"{settings.name}.safetensors"
    save_model(model, path)
    write_resolved(settings, output / "settings.toml", {"data_sha256": training.data_fingerprint()})
    report.write(training, tables, pairs, output)
    return path
