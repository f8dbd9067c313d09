"""How many labels, and how many training steps: from settings, or from the time that there is."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.kernels import threads
from painn_fast.label.methods import How
from painn_fast.label.workers import Workers
from painn_fast.learn.sample import evaluations
from painn_fast.learn.settings import LearnSettings, SampleSettings
from painn_fast.train.loop import read_data
from painn_fast.train.settings import TrainSettings
from painn_fast.train.training import Training

USUAL = 2000
"""Labels where neither their number nor the time is limited."""
LEAST, MOST = 120, 2400
"""Labels that a limit of time leads to."""
LABEL_SHARE, SAMPLE_SHARE, ROUND_SHARE, VERDICT_SHARE = 0.25, 0.1, 0.12, 0.12
"""Of the time: all labels, sampling on the cheap surface, the training of a round, the verdict with its dynamics."""
HELD_OUT = 0.05
"""Labels of fresh beads in a round, as a share of all."""
TRIALS, LABELS_TIMED = 30, 5
"""Training steps and labels that are timed, ..."""
ENOUGH = 1.0
"""... labels only until they have taken so many seconds."""


@dataclass(frozen=True)
class Counts:
    """Labels of a run."""

    total: int
    first: int  # sampled on the cheap surface
    later: int  # of each round after it
    held_out: int  # of each training


@dataclass(frozen=True)
class Costs:
    """Seconds of one process with one thread."""

    label: float  # with its share of the polarizabilities
    cheap: float  # an evaluation of the cheap surface


def counts(settings: LearnSettings, seconds: Costs | None = None) -> Counts:
    """Labels of each round.

    Args:
        settings: with their number, or a time.
        seconds: needed where the time is limited.
    """
    total = settings.labels or USUAL
    if settings.labels is None and settings.time is not None and seconds is not None:
        possible = LABEL_SHARE * settings.time * (settings.workers or os.cpu_count() or 1) / seconds.label
        total = int(min(max(possible, LEAST, 20 * (settings.rounds + 1)), MOST))
    held_out = max(10, min(100, round(HELD_OUT * total)))
    left = total - held_out * settings.rounds
    after = settings.rounds - 1
    first = left - left // 2 // after * after if after else left
    if settings.time is not None and seconds is not None and after:
        first = min(first, _affordable(settings, seconds.cheap))
    later = (left - first) // after if after else 0
    return Counts(total, left - after * later, later, held_out)


def _affordable(settings: LearnSettings, seconds_per_cheap: float) -> int:
    """Structures that can be sampled on the cheap surface in its share of the time."""
    count = MOST
    while count > LEAST // 2:
        cost = evaluations(SampleSettings(count=count, beads=settings.beads)) * seconds_per_cheap
        if cost <= SAMPLE_SHARE * float(settings.time or 0.0) * (settings.workers or os.cpu_count() or 1):
            break
        count -= count // 10
    return count


def costs(settings: LearnSettings, how: How, cheap: How, atoms: ase.Atoms) -> Costs:
    """Times of a label and of the cheap surface, for slightly displaced structures, as labels are computed.

    Raises:
        PaiNNFastError: if a method fails.
    """
    every = polarizability_every(settings, settings.labels or USUAL)
    plain, *more = _seconds(how, atoms, (False, True) if every else (False,))
    label = plain + sum(max(other - plain, 0.0) / every for other in more)
    return Costs(label, plain if how == cheap else _seconds(cheap, atoms, (False,))[0])


def _seconds(how: How, atoms: ase.Atoms, with_polarizability: tuple[bool, ...]) -> list[float]:
    """Of a label without and with a polarizability, in one process: the shortest of some, if they take little."""
    one = how.charged(atoms)
    random, result = np.random.default_rng(0), []
    with Workers(how, 1) as worker:
        for wanted in with_polarizability:
            worker.all([one], with_polarizability=wanted)  # what is loaded and compiled at first
            moved, taken = one.copy(), list[float]()
            moved.positions += random.normal(scale=0.02, size=one.positions.shape)
            while len(taken) < LABELS_TIMED and sum(taken) < ENOUGH:
                start = time.monotonic()
                (entry,) = worker.all([moved], with_polarizability=wanted)
                taken.append(time.monotonic() - start)
            if "failed" in entry:
                where = f"{how.theory}, {one.get_chemical_formula()}"
                raise PaiNNFastError("the method fails", where=where, got=entry["failed"])
            result.append(min(taken))
    return result


def polarizability_every(settings: LearnSettings, total: int) -> int:
    """Every so many labels have a polarizability, if the method gives one; 0 for none."""
    if settings.polarizabilities is None:
        return 5
    return max(1, total // settings.polarizabilities) if settings.polarizabilities else 0


def seconds_per_step(settings: TrainSettings, folder: Path) -> float:
    """Time of a training step on one thread, the median of 30."""
    training = Training(settings, read_data(settings, folder))
    taken = []
    with threads.ours():
        for _ in range(TRIALS + 3):
            if training.done >= training.steps_per_epoch:
                training.end_epoch()
            start = time.monotonic()
            training.run_step(training.next_rows())
            taken.append(time.monotonic() - start)
    return float(np.median(taken[3:]))
