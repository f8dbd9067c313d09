"""A training in progress: its steps, validations and checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.graph import AtomicBatch
from painn_fast.kernels import threads
from painn_fast.nn import Potential
from painn_fast.nn.defined import defined, depends_on_cell
from painn_fast.runtime import checkpoint
from painn_fast.runtime.progress import warn
from painn_fast.runtime.ranks import Ranks
from painn_fast.train.data import Dataset
from painn_fast.train.data.dataset import Batches, by_row
from painn_fast.train.direct_step import DirectStep
from painn_fast.train.evaluation import Table, errors, format_errors, predict
from painn_fast.train.loss import joint_loss
from painn_fast.train.model import elements_of, first_model, use_precision
from painn_fast.train.optimizer import AdamW, FlatParameters
from painn_fast.train.schedule import Plateau
from painn_fast.train.settings import TrainSettings, labels_of
from painn_fast.train.whole_step import WholeStep

COUNTERS = ("epoch", "step", "done", "loss", "seconds", "history")
"""Attributes of a training that its checkpoint has as numbers."""


class Training:
    """A training in progress: model, its exponential moving average, optimizer, schedule and history.

    Given the seed every step is determined by its number, so that a resumed run goes on bit for bit on one device.

    Args:
        settings: what to train.
        data: structures of each split.
        together: the processes that share the work.
        device: of this process.
    """

    def __init__(
        self,
        settings: TrainSettings,
        data: dict[str, Dataset],
        together: Ranks | None = None,
        device: str | None = None,
    ) -> None:
        self.settings, self.data, self.ranks = settings, data, together or Ranks()
        use_precision(settings)
        self.model = first_model(settings, data["train"], elements_of(data)).to(device or settings.device)
        self.names = [name for name in labels_of(settings.heads) if data["train"].labelled(name)]
        self.weights = {name: settings.weight(name) for name in self.names}
        self.batches = Batches(data["train"], self.model.cutoff, self.names)
        self.known = {name: _known(data["train"], name) for name in self.names}
        self.average = copy.deepcopy(self.model)
        self.parameters, self.averages = FlatParameters(self.model), FlatParameters(self.average)
        self.average.requires_grad_(False)
        self.best = copy.deepcopy(self.average)
        self.optimizer = AdamW(self.parameters, settings.weight_decay)
        self.schedule = Plateau.of(settings)
        self.epoch = self.step = 0
        self.done = 0  # steps of this epoch
        self._loss = torch.zeros((), dtype=torch.float64, device=self.model.device)  # added up where it is made
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        self.unreadable: list[PaiNNFastError] = []  # checkpoints that are damaged
        self._order = -1, np.zeros(0, dtype=np.int64)
        self._whole: WholeStep | None = None
        if self.ranks.world == 1 and self.model.device.type == "cuda" and self.model.fused:
            self._whole = WholeStep.of(self._gradients, self._update, self.names, self.model)
        self._direct = DirectStep.of(
            self.model, self.parameters, self.weights, energy_per_atom=settings.energy_per_atom
        )

    @property
    def level_of_theory(self) -> str:
        """Of the labels: that of the settings, else those that the files state."""
        stated = dict.fromkeys(level for part in self.data.values() for level in part.theory)
        return self.settings.level_of_theory or "; ".join(stated)

    @property
    def batch_size(self) -> int:
        """Structures of a step, over all processes."""
        return min(self.settings.batch_size, len(self.data["train"]))

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of the training set."""
        return len(self.data["train"]) // self.batch_size

    def next_rows(self) -> np.ndarray:
        """Training rows of the next step: an order that the seed and the epoch give, the same in all processes."""
        if self._order[0] != self.epoch:
            generator = np.random.default_rng([self.settings.seed, self.epoch])
            self._order = self.epoch, generator.permutation(len(self.data["train"]))
        return self._order[1][self.done * self.batch_size : (self.done + 1) * self.batch_size]

    @property
    def loss(self) -> float:
        """Sum over the steps of this epoch; waits for the device."""
        return float(self._loss)

    @loss.setter
    def loss(self, value: float) -> None:
        self._loss.fill_(value)

    def run_step(self, rows: np.ndarray) -> None:
        """One optimizer step on these rows of the training set; the device is not waited for."""
        batch, labels = self.batches(rows[self.ranks.rank :: self.ranks.world])
        counts = {name: max(int(known[rows].sum()), 1) for name, known in self.known.items()}
        rate = self.schedule.at_step(self.step, self.epoch, self.settings)
        share = self._share(self.step + 1)
        self.model.require_elements(batch.elements)
        if self._whole is not None and self._whole(batch, labels, counts, rate, share):
            self.parameters.changed()  # as the operations of a step note where they are not replayed
            self.averages.changed()
        else:
            device = self.model.device
            on_device = batch.to(device), {name: value.to(device) for name, value in labels.items()}
            self._update(self._gradients(*on_device, counts), rate, share)
        self.step += 1
        self.done += 1

    def _share(self, step: int) -> float:
        """Of the parameters in their average after a step; it falls from 1 so that the random start is forgotten."""
        return 1 - min(self.settings.ema_decay, (1 + step) / (10 + step))

    def _gradients(
        self, batch: AtomicBatch, labels: Mapping[str, Tensor], counts: Mapping[str, int] | Mapping[str, Tensor]
    ) -> Tensor:
        """Gather the gradients of the loss, which is returned."""
        if self._direct is not None:
            return self._direct(batch, labels, counts)
        names = [name for name in self.names if not depends_on_cell(name) or bool(defined(name, batch.periodic).any())]
        results = self.model(batch, names, create_graph=True)
        per_atom = self.settings.energy_per_atom
        loss, _ = joint_loss(results, labels, batch, self.weights, counts, energy_per_atom=per_atom)
        self.parameters.zero_grad()
        loss.backward()
        self.parameters.collect()
        return loss.detach()

    def _update(self, loss: Tensor, rate: float | Tensor, share: float | Tensor) -> None:
        """Everything of a step after its gradients."""
        self.ranks.sum(self.parameters.gradient)
        self.parameters.clip(self.settings.gradient_clip)
        self.optimizer.step(rate)
        self._update_average(share)
        self._loss += loss

    def _update_average(self, share: float | Tensor) -> None:
        """Exponential moving average."""
        values = self.averages.values
        share = share.to(values.dtype) if isinstance(share, Tensor) else share
        pieces = 2 if values.device.type == "cpu" else 1
        pairs = list(zip(values.chunk(pieces), self.parameters.values.chunk(pieces), strict=True))
        threads.run(lambda pair, _: pair[0].lerp_(pair[1], share), pairs)
        self.averages.changed()

    def end_epoch(self) -> float:
        """Count the epoch; mean loss of its steps."""
        loss = self.ranks.total(self.loss) / self.done
        self.epoch, self.done, self.loss = self.epoch + 1, 0, 0.0
        return loss

    def validate(self, train_loss: float) -> str:
        """Errors of the averaged model on the validation rows as a line; schedule, history and best model follow."""
        loss, table = self.ranks.broadcast_from_rank_0(self._validation() if self.ranks.first else None)
        if not np.isfinite(loss):
            raise PaiNNFastError(
                "the training diverged",
                where=f"epoch {self.epoch}",
                got=f"validation loss {loss}",
                fix="lower learning_rate",
            )
        rate = self.schedule.at_step(self.step, self.epoch - 1, self.settings)
        if self.schedule.validate(loss):
            self.best.load_state_dict(self.average.state_dict())
        self.history.append(
            {"epoch": self.epoch, "train_loss": train_loss, "validation_loss": loss, "learning_rate": rate}
            | {name: float(row["mae"]) for name, row in table.items()}
        )
        losses = f"loss {train_loss:.3g}/{loss:.3g}"
        return f"epoch {self.epoch}  {losses}  lr {rate:.1e}  validation MAE: {format_errors(table)}"

    def _validation(self) -> tuple[float, Table]:
        data = self.data["validation"]
        predicted = predict(self.average, data, [name for name in self.names if name in data.labels])
        batch = Batches(data, 0.0, list(predicted))(np.arange(len(data)))
        results = {name: torch.from_numpy(value) for name, value in predicted.items()}
        loss = joint_loss(results, batch[1], batch[0], self.weights, energy_per_atom=self.settings.energy_per_atom)[0]
        return float(loss), errors(predicted, data, self.average, self.settings.report_units)

    @property
    def finished(self) -> str | None:
        """Why the training is over, or None."""
        if self.schedule.learning_rate < self.settings.minimum_learning_rate:
            return "the learning rate reached its minimum"
        if self.settings.early_stop is not None and self.schedule.stale >= self.settings.early_stop:
            return f"no better validation in {self.schedule.stale}"
        if self.epoch >= self.settings.max_epochs:
            return "max_epochs reached"
        if self.settings.max_time is not None and self.seconds >= self.settings.max_time:
            return "max_time reached"
        return None

    def save(self, path: Path) -> None:
        """Everything that the next step depends on."""
        tensors = {
            f"{kind}.{name}": tensor for kind, module in self._modules() for name, tensor in module.state_dict().items()
        }
        numbers = {name: getattr(self, name) for name in COUNTERS} | {"ranks": self.ranks.world}
        numbers |= {"schedule": self.schedule.state(), "data": self.data_fingerprint, "settings": self._frozen()}
        checkpoint.set_aside(self.unreadable)
        self.unreadable = []
        checkpoint.save_newest(path, tensors | self.optimizer.state(), numbers)

    def restore(self, path: Path) -> None:
        """Continue from the newest checkpoint that can be read, with a warning if that is not the newest.

        Raises:
            PaiNNFastError: if it was made with other settings or other data, or none can be read.
        """
        found, self.unreadable = checkpoint.load_newest(path, checkpoint.load)
        if found is None:
            raise PaiNNFastError("no checkpoint", where=path)
        tensors, numbers = found
        for key, now in (("settings", self._frozen()), ("data", self.data_fingerprint)):
            if numbers.get(key) != now:
                raise PaiNNFastError(
                    f"the checkpoint was made with other {key}",
                    where=path,
                    got=_differences(now, numbers.get(key)),
                    fix="restore them, or choose another output folder",
                )
        for kind, module in self._modules():
            module.load_state_dict(
                {name.removeprefix(f"{kind}."): t for name, t in tensors.items() if name.startswith(f"{kind}.")}
            )
        self.optimizer.restore(tensors)
        self.schedule = Plateau(**numbers["schedule"])
        for name in COUNTERS:
            setattr(self, name, numbers[name])
        if self.ranks.first:
            for error in self.unreadable:
                goes = f"going on from the checkpoint before, epoch {self.epoch}, step {self.step}"
                warn(f"{error.where}: {error.what}, {error.got}; {goes}; what came after it is trained again")

    def _modules(self) -> list[tuple[str, Potential]]:
        return [("model", self.model), ("average", self.average), ("best", self.best)]

    def _frozen(self) -> dict[str, object]:
        """The settings that a resumed run must share; its length is one of them if the learning rate hangs on it."""
        free = {"max_time", "threads", "output", "early_stop", "report", "tensorboard", "report_units", "checks"}
        free |= {"max_epochs"} if self.settings.cooldown_epochs == 0 else set()
        return self.settings.model_dump(mode="json", exclude=free)

    @cached_property
    def data_fingerprint(self) -> str:
        """SHA-256 of geometries and labels of all splits."""
        return " ".join(part.fingerprint()[:32] for part in self.data.values())


def _known(data: Dataset, name: str) -> np.ndarray:
    """How many components of a label each structure has [n]."""
    components = np.isfinite(by_row(data.labels[name])).sum(axis=1)
    return np.add.reduceat(components, data.first[:-1]) if len(components) != len(data) else components


def _differences(now: object, then: object) -> str | None:
    if not (isinstance(now, dict) and isinstance(then, dict)):
        return None
    keys = [key for key in now if now[key] != then.get(key)]
    return ", ".join(f"{key} = {now[key]} instead of {then.get(key)}" for key in keys)
