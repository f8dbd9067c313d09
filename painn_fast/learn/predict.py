"""What a run will cost: one label and some training steps are timed, the rest is multiplied."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import ase
import ase.io
import numpy as np
import torch

from painn_fast.label.output import write
from painn_fast.learn import training
from painn_fast.learn.plan import costs, counts, seconds_per_step
from painn_fast.learn.run import methods
from painn_fast.learn.sample import evaluations, structure_of
from painn_fast.learn.settings import LearnSettings, SampleSettings
from painn_fast.runtime.progress import clock

MOST_SHARE = 0.5
"""Of the time, for sampling and labels."""
TRIED = 24
"""Structures that the timed training steps are on."""


def prediction(settings: LearnSettings, atoms: ase.Atoms | None = None) -> str:
    """Time one label and some training steps, and predict what a run takes; writes nothing.

    Args:
        settings: of the run.
        atoms: instead of the settings' file.

    Returns:
        A line for each part, and the total.

    Raises:
        PaiNNFastError: as `learn`.

    Example:
        >>> from ase.build import molecule
        >>> from painn_fast.learn import LearnSettings, prediction
        >>> settings = LearnSettings(method="model:ethanol", surface="model:ethanol", labels=100)
        >>> print(prediction(settings, molecule("CH3CH2OH")).splitlines()[1])  # doctest: +ELLIPSIS
        labels: 100 of ...
    """
    given = structure_of(settings.structure, atoms)
    how, cheap = methods(settings)
    workers = settings.workers or os.cpu_count() or 1
    seconds = costs(settings, how, cheap, given)
    planned = counts(settings, seconds)
    sampling = seconds.cheap * evaluations(SampleSettings(count=planned.first, beads=settings.beads)) / workers
    labelling = seconds.label * planned.total / workers
    of_step = _step(settings, given) * -(-settings.members // min(settings.members, torch.get_num_threads()))
    steps = (settings.rounds - 1) * settings.steps + settings.final_steps
    trained = of_step * steps if settings.time is None else max(settings.time - sampling - labelling, 0.0)
    lines = [
        f"sampling: {1000 * seconds.cheap:.3g} ms a structure of {cheap.theory}, {clock(sampling)}",
        f"labels: {planned.total} of {1000 * seconds.label:.3g} ms, {workers} at a time, {clock(labelling)}",
        f"training: {settings.members} models, {1000 * of_step:.3g} ms a step of all, {trained / of_step:.0f} steps, "
        f"{clock(trained)}",
        f"total: {clock(sampling + labelling + trained)} and some minutes for exploration and verdict",
    ]
    if settings.time is not None and sampling + labelling > MOST_SHARE * settings.time:
        share = (sampling + labelling) / settings.time
        lines.append(
            f"warning: sampling and labels take {share:.0%} of the time that is given: give more, or fewer labels"
        )
    return "\n".join(lines)


def _step(settings: LearnSettings, molecule: ase.Atoms) -> float:
    """Seconds of a training step, on displaced structures with random labels."""
    random = np.random.default_rng(0)
    frames = [molecule.copy() for _ in range(TRIED)]
    for frame in frames:
        frame.positions += random.normal(scale=0.02, size=molecule.positions.shape)
    labels = [
        {
            "energy": random.normal(),
            "forces": random.normal(size=molecule.positions.shape),
            "dipole": random.normal(size=3),
        }
        for _ in frames
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "tried.xyz"
        write(path, frames, labels, "none")
        labelled = ase.io.read(path, ":")
        data = training.split(path, labelled, folder, "trial")
        chosen = training.settings_of(settings, data, training.heads(labelled), TRIED - 2, 1, folder)
        return seconds_per_step(chosen, folder)
