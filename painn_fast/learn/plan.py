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


def counts(settings: LearnSettings, seconds_per_label: float, seconds_per_cheap: float = 0.0) -> Counts:
    """Labels of each round.

    Args:
        settings: with their number, or a time.
        seconds_per_label: of one process.
        seconds_per_cheap: of an evaluation of the cheap surface.
    """
    total = settings.labels or USUAL
    if settings.labels is None and settings.time is not None:
        possible = LABEL_SHARE * settings.time * (settings.workers or os.cpu_count() or 1) / seconds_per_label
        total = int(min(max(possible, LEAST, 20 * (settings.rounds + 1)), MOST))
    held_out = max(10, min(100, round(HELD_OUT * total)))
    left = total - held_out * settings.rounds
    after = settings.rounds - 1
    first = left - left // 2 // after * after if after else left
    if settings.time is not None and after:
        first = min(first, _affordable(settings, seconds_per_cheap))
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


def seconds_per_label(how: How, atoms: ase.Atoms, *, with_polarizability: bool = False) -> float:
    """Time of one label of a slightly displaced structure, by one process with one thread, as labels are computed.

    It is the shortest of some, if they take little.

    Raises:
        PaiNNFastError: if the method fails.
    """
    one = how.charged(atoms)
    with Workers(how, 1) as worker:
        worker.all([one], with_polarizability=with_polarizability)  # what is loaded and compiled at first
        one.positions += np.random.default_rng(0).normal(scale=0.02, size=one.positions.shape)
        taken: list[float] = []
        while len(taken) < LABELS_TIMED and sum(taken) < ENOUGH:
            start = time.monotonic()
            (entry,) = worker.all([one], with_polarizability=with_polarizability)
            taken.append(time.monotonic() - start)
    if "failed" in entry:
        raise PaiNNFastError(
            "the method fails", where=f"{how.theory}, {one.get_chemical_formula()}", got=entry["failed"]
        )
    return min(taken)


def seconds_per_label_in_all(settings: LearnSettings, how: How, atoms: ase.Atoms) -> float:
    """Time of a label, with its share of the polarizabilities."""
    plain, every = seconds_per_label(how, atoms), polarizability_every(settings, settings.labels or USUAL)
    if not every:
        return plain
    return plain + max(seconds_per_label(how, atoms, with_polarizability=True) - plain, 0.0) / every


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
