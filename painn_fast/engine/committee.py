"""Several engines as one: members of an ensemble, or of a sum, side by side on one graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from painn_fast.engine.chunks import Memory
from painn_fast.engine.cpu import CpuEngine, run_passes
from painn_fast.engine.select import Engine
from painn_fast.graph import AtomicBatch
from painn_fast.kernels.jit import compiled
from painn_fast.kernels.threads import count as thread_count
from painn_fast.nn import Potential


def mean_and_spread(values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean over members and standard deviation, all components of a row together.

    Args:
        values: of each of K members [R, ...], rows of atoms or molecules.

    Returns:
        The mean [R, ...] and the root of the variance (with K - 1) summed over components [R], both float64; a row has
        the same bits whatever the others are.
    """
    rows, shape = len(values[0]), values[0].shape
    if values[0].device.type != "cpu":
        stack = torch.stack([one.double() for one in values])
        return stack.mean(0), stack.var(0).reshape(rows, -1).sum(1).sqrt()
    every = np.concatenate([one.numpy() for one in values], dtype=np.float64).reshape(len(values), rows, -1)
    mean, spread = np.empty(every.shape[1:]), np.empty(rows)
    _mean_and_spread(every, mean, spread)
    return torch.from_numpy(mean).view(shape), torch.from_numpy(spread)


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

    def combined(self, results: Sequence[dict[str, Tensor]], properties: Sequence[str]) -> dict[str, Tensor]:
        """Properties from what the members give of their shares."""


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
        if len(self._on_cpu) < len(self.engines):
            parts = [
                engine(own, positions, names, finite=finite) if names else {}
                for engine, own, names in zip(self.engines, work, shares, strict=True)
            ]
            return self.model.combined(parts, properties)
        calls = [
            engine.call(own, positions, names, finite=finite) if names else None
            for engine, own, names in zip(self._on_cpu, work, shares, strict=True)
        ]
        run_passes([call for call in calls if call is not None], self._memory, thread_count())
        parts = [{} if call is None else call.engine.results(call, positions, finite=finite) for call in calls]
        return self.model.combined(parts, properties)

    def launches(self, work: list[Any], positions: Tensor) -> Callable[[], dict[str, Tensor]] | None:
        """See `GpuEngine.launches`; None on a CPU."""
        if self._on_cpu:
            return None
        engines: Sequence[Any] = self.engines
        runs = [engine.launches(own, positions) for engine, own in zip(engines, work, strict=True)]
        return lambda: self.model.combined([run() for run in runs], ("energy", "forces"))
