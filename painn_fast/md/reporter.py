"""The live line of a run."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from painn_fast.md.simulation import Simulation
from painn_fast.runtime.progress import StatusLine, clock

EVERY = 0.5
"""Seconds between updates."""
DRIFT_AFTER = 50.0
"""fs; before that it is only a fluctuation over a short time."""


class Reporter:
    """One live line: picoseconds done, temperature, drift of the conserved quantity, speed, time left.

    Args:
        line: to write to.
        time_step: fs.
        total: steps of the whole run.
    """

    def __init__(self, line: StatusLine, time_step: float, total: int) -> None:
        self.line, self.time_step, self.total = line, time_step, total
        self._stage, self._start, self._end = "", 0, total
        self._reference: tuple[int, Tensor] = (0, torch.zeros(()))
        self._session: tuple[float, int] | None = None
        self._next = 0.0

    def begin(self, stage: str, start: int, end: int, simulation: Simulation) -> None:
        """A new stage from step `start` to `end`; drift counts from here."""
        self._stage, self._start, self._end = stage, start, end
        self._reference = (simulation.step_number, _of_all(simulation, "conserved"))
        if self._session is None:
            self._session = (time.monotonic(), simulation.step_number)

    def update(self, simulation: Simulation) -> None:
        """Write the line anew if the last update is `EVERY` ago."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + EVERY
            self.line.update(self.text(simulation))

    def text(self, simulation: Simulation) -> str:
        """The line."""
        assert self._session is not None
        step = simulation.step_number
        done, whole = ((last - self._start) * self.time_step for last in (step, self._end))
        temperature = float(_of_all(simulation, "temperature").nanmean())
        parts = [f"{self._stage} {done / 1000:.3f} of {whole / 1000:.3f} ps", f"T {temperature:.0f} K"]
        if done > DRIFT_AFTER:
            parts.append(f"drift {self._drift(simulation):+.3f} meV/atom/ps")
        seconds, steps = time.monotonic() - self._session[0], step - self._session[1]
        if steps and seconds > 0:
            rate = steps / seconds  # steps per second
            count = sum(len(group.state.alive) for group in simulation.groups)
            parts.append(f"{rate * self.time_step * 0.0864:.3g} ns/day" + (f" x {count}" if count > 1 else ""))
            parts.append(f"{clock((self.total - step) / rate)} left")
        return " | ".join(parts)

    def _drift(self, simulation: Simulation) -> float:
        """Of the conserved quantity since the stage began, meV/atom/ps, mean over trajectories."""
        picoseconds = (simulation.step_number - self._reference[0]) * self.time_step / 1000.0
        if picoseconds <= 0:
            return 0.0
        change = _of_all(simulation, "conserved") - self._reference[1]
        atoms = torch.cat([torch.full((len(group.state.alive),), group.system.n_atoms) for group in simulation.groups])
        return 1000.0 * float((change / atoms).nanmean()) / picoseconds


def _of_all(simulation: Simulation, name: str) -> Tensor:
    """An estimate of all trajectories of all groups."""
    return torch.cat([group.estimates()[name].cpu() for group in simulation.groups])
