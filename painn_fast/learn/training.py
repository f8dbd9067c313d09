"""Trainings of the committee: each from the weights of the last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch

from painn_fast.io.structures import write_extxyz
from painn_fast.learn.settings import LearnSettings
from painn_fast.learn.stages import read_json
from painn_fast.train import TrainSettings, run, run_members
from painn_fast.train.members import each_member

VALIDATION = 20
"""Every so many of the labelled structures is for validation."""
COOLDOWN = 0.9
"""Share of the epochs over which the learning rate falls to 0."""
NAME = "model"
BATCH, VALIDATIONS = 10, 40
"""Structures of a step; validations of a training, about."""


def split(labelled: Path, frames: Sequence[ase.Atoms], folder: Path, origin: str) -> list[dict[str, str]]:
    """Write the training and the validation structures of a labelled file beside it; both as files of a training."""
    files = []
    for use, rows in (("train", to_train(frames)), ("validation", frames[::VALIDATION])):
        path = labelled.with_name(f"{labelled.stem}-{use}.xyz")
        if not path.exists():
            write_extxyz(path, rows)
        files.append({"file": path.relative_to(folder).as_posix(), "use_as": use, "origin": origin})
    return files


def to_train(frames: Sequence[ase.Atoms]) -> list[ase.Atoms]:
    """Those that are not for validation."""
    return [one for k, one in enumerate(frames) if k % VALIDATION]


def heads(frames: Sequence[ase.Atoms]) -> list[dict[str, str]]:
    """Heads for the labels of structures."""
    found = [{"type": "energy"}]
    if all("dipole" in one.calc.results for one in frames):
        found.append({"type": "dipole"})
    if any("polarizability" in one.info for one in frames):
        found.append({"type": "polarizability"})
    return found


def settings_of(
    settings: LearnSettings,
    data: Sequence[dict[str, str]],
    own_heads: Sequence[dict[str, str]],
    structures: int,
    steps: int,
    output: Path,
) -> TrainSettings:
    """A training of so many steps on these files.

    Args:
        settings: of the run.
        data: its files.
        own_heads: of the model.
        structures: to train on.
        steps: of the optimizer.
        output: folder.
    """
    batch = min(BATCH, structures)
    epochs = max(math.ceil(steps / (structures // batch)), 2)
    values: dict[str, Any] = {
        "name": NAME,
        "output": str(output),
        "data": list(data),
        "heads": list(own_heads),
        "representation": {
            "n_features": settings.features,
            "n_layers": settings.layers,
            "radial_basis": "gaussian",
        },
        "model_units": {"energy": "kcal/mol"},
        "batch_size": batch,
        "max_epochs": epochs,
        "cooldown_epochs": round(COOLDOWN * epochs),
        "plateau_patience": 10**6,
        "validate_every": max(1, epochs // VALIDATIONS),
        "checks": "warn",
        "seed": settings.seed,
        "limits": "One molecule near its minima, as ring polymers visit it; bonds do not break; no other molecule.",
    }
    return TrainSettings.parse(values, where="training")


def train(chosen: TrainSettings, settings: LearnSettings, start_from: Sequence[Path]) -> list[Path]:
    """Train the committee, or go on with it: side by side in processes, in this one if there is one thread."""
    if torch.get_num_threads() == 1:
        return [
            run(one, data_folder=settings.output, resume=True)
            for one in each_member(chosen, settings.members, 1, start_from)
        ]
    return run_members(chosen, settings.members, data_folder=settings.output, resume=True, start_from=start_from)


def best(models: Sequence[Path]) -> Path:
    """The model with the least error of forces on the validation structures."""
    errors = [float(read_json(path.parent / "errors.json")["validation"]["forces"]["mae"]) for path in models]
    return models[int(np.argmin(errors))]
