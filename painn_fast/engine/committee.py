"""Several engines as one: members of an ensemble, or of a sum, side by side on one graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from painn_fast.engine.check import require_finite, require_near
from painn_fast.engine.chunks import Memory
from painn_fast.engine.cpu import CpuEngine, evaluate, together
from painn_fast.engine.select import Engine
from painn_fast.graph import AtomicBatch
from painn_fast.kernels.jit import compiled
from painn_fast.kernels.threads import count as thread_count
from painn_fast.nn import Potential


def mean_and_spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over members and standard deviation, all components of a row together.

    Args:
        values: of K members [K, R, ...], rows of atoms or molecules, float64.

    Returns:
        The mean [R, ...] and the root of the variance (with K - 1) summed over components [R]; a row has the same bits
        whatever the others are.
    """
    if values.device.type != "cpu":
        return values.mean(0), values.var(0).reshape(values.shape[1], -1).sum(1).sqrt()
    every = values.numpy().reshape(*values.shape[:2], -1)
    mean, spread = np.empty(every.shape[1:]), np.empty(every.shape[1])
    _mean_and_spread(every, mean, spread)
    return torch.from_numpy(mean).view(values.shape[1:]), torch.from_numpy(spread)


@compiled(nogil=True)
def _mean_and_spread(every: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> None:
    """[K, R, C] to [R, C] and [R]; torch's root on a CPU wakes all threads of MKL, which takes 0.5 ms."""
    members, rows, components = every.shape
    for r in range(rows):
        variance = 0.0
        for c in range(components):
            total = 0.0
            for k in range(members):
                total += every[k, r, c]
            mean[r, c] = total / members
            for k in range(members):
                away = every[k, r, c] - mean[r, c]
                variance += away * away
        spread[r] = np.sqrt(variance / (members - 1))


class Combination(Protocol):
    """What members have to give for a property, and what becomes of it."""

    def shares(self, properties: Sequence[str]) -> list[tuple[Potential, list[str]]]:
        """Each member with the properties that it has to give for these."""

    def combined(self, values: Mapping[str, Tensor], properties: Sequence[str]) -> dict[str, Tensor]:
        """Properties from what the members give of their shares, by name the values of all that give it [K, ...]."""


class Committee:
    """The engines of several models as one `Engine`; a member has the bits that it has alone.

    On a CPU the members share the graph, its division and the memory of threads, and a thread takes a chunk of one of
    them at a time, so that members of a small molecule run side by side. On a GPU they run one after another.

    Args:
        model: an ensemble or a sum.
        engines: of its members, in their order.
    """

    def __init__(self, model: Combination, engines: Sequence[Engine]) -> None:
        self.model, self.engines = model, list(engines)
        self._on_cpu = [engine for engine in self.engines if isinstance(engine, CpuEngine)]
        self._memory = Memory()

    def workspace(self, batch: AtomicBatch) -> list[Any]:
        """See `Engine.workspace`; one for each member."""
        if len(self._on_cpu) < len(self.engines):
            return [engine.workspace(batch) for engine in self.engines]
        first, *others = self._on_cpu
        work = first.workspace(batch)
        return [work, *(engine.workspace(batch, like=work) for engine in others)]

    def __call__(
        self, work: list[Any], positions: Tensor, properties: Sequence[str] = ("energy", "forces"), *,
        finite: bool = True,
    ) -> dict[str, Tensor]:  # fmt: skip
        """See `Engine.__call__`; properties are those of the model, spreads of an ensemble too."""
        shares = [names for _, names in self.model.shares(properties)]
        giving = [k for k, names in enumerate(shares) if names]
        if len(self._on_cpu) < len(self.engines):
            parts = [self.engines[k](work[k], positions, shares[k], finite=finite) for k in giving]
            return self.model.combined(together(parts), properties)
        for k in giving:
            self._on_cpu[k].check_call(work[k], positions, shares[k], finite=finite)
        engines, works = [self._on_cpu[k] for k in giving], [work[k] for k in giving]
        names = [shares[k] for k in giving]
        values, numbers = evaluate(engines, works, positions, names, self._memory, thread_count())
        if finite and not numbers:
            batch = works[0].batch
            require_near(batch, positions)
            for k in range(len(giving)):
                require_finite({name: value[k] for name, value in values.items() if k < len(value)}, batch, positions)
        return self.model.combined(values, properties)

    def launches(self, work: list[Any], positions: Tensor) -> Callable[[], dict[str, Tensor]] | None:
        """See `GpuEngine.launches`; None on a CPU."""
        if self._on_cpu:
            return None
        engines: Sequence[Any] = self.engines
        runs = [engine.launches(own, positions) for engine, own in zip(engines, work, strict=True)]
        return lambda: self.model.combined(together([run() for run in runs]), ("energy", "forces"))
