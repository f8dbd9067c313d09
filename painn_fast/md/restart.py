"""Restart files: everything that decides how a run goes on, the newest two of them.

Noise is a function of (seed, trajectory, step) and thermostats have no memory, so the step is all that is kept of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from painn_fast import checkpoint
from painn_fast.atomic import space_for
from painn_fast.errors import PaiNNFastError
from painn_fast.md.guards import Trip
from painn_fast.md.state import State, System

SYSTEM = ("numbers", "masses", "cell", "pbc")
NEWEST, PREVIOUS = "restart.safetensors", "restart.previous.safetensors"


@dataclass(frozen=True)
class Restart:
    """What a restart file holds."""

    states: list[State]
    """Of each molecule."""
    systems: list[dict[str, Tensor]]
    force_field: dict[str, Tensor]
    streams: list[dict[str, Tensor]]
    """Correlation functions of each molecule."""
    settings: dict[str, Any]
    trips: list[Trip]
    notes: list[Trip]
    bonds: list[dict[str, Tensor]]
    """What the guard of each molecule's bonds knows; empty where there is none."""
    model: str
    """SHA-256 of the model."""


def write_restart(
    folder: Path,
    parts: Sequence[tuple[System, State]],
    *,
    force_field: dict[str, Tensor],
    streams: Sequence[dict[str, np.ndarray]],
    settings: dict[str, Any],
    trips: list[Trip],
    notes: list[Trip],
    bonds: Sequence[dict[str, Tensor]],
    model: str,
) -> None:
    """Write the newest restart file and keep the one before; a reader finds a whole one at any moment."""
    tensors = {f"force_field.{name}": value for name, value in force_field.items()}
    for k, (system, state) in enumerate(parts):
        tensors |= {f"state.{k}.{name}": value for name, value in state.tensors().items()}
        tensors |= {f"system.{k}.{name}": getattr(system, name) for name in SYSTEM}
        tensors |= {f"stream.{k}.{name}": torch.from_numpy(value) for name, value in streams[k].items()}
        tensors |= {f"bonds.{k}.{name}": value for name, value in bonds[k].items()}
    numbers = {
        "step": parts[0][1].step, "molecules": len(parts), "settings": settings,
        "trips": [trip.as_json() for trip in trips], "notes": [note.as_json() for note in notes], "model": model,
    }  # fmt: skip
    fresh = folder / "restart.new.safetensors"
    checkpoint.save(fresh, tensors, numbers)
    with space_for(folder / NEWEST, checkpoint.GO_ON):
        if (folder / NEWEST).exists():
            os.replace(folder / NEWEST, folder / PREVIOUS)
        os.replace(fresh, folder / NEWEST)


def read_restart(folder: Path) -> Restart | None:
    """The newest restart file that can be read; None if there is none.

    Raises:
        PaiNNFastError: if there are some, but none can be read.
    """
    broken: PaiNNFastError | None = None
    for name in ("restart.new.safetensors", NEWEST, PREVIOUS):
        if (folder / name).exists():
            try:
                return _read(folder / name)
            except PaiNNFastError as error:
                broken = broken or error
    if broken is not None:
        raise broken
    return None


def _read(path: Path) -> Restart:
    tensors, numbers = checkpoint.load(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    try:
        molecules = range(numbers["molecules"])
        return Restart(
            states=[State(**part(f"state.{k}."), step=numbers["step"]) for k in molecules],
            systems=[part(f"system.{k}.") for k in molecules],
            force_field=part("force_field."),
            streams=[part(f"stream.{k}.") for k in molecules],
            settings=numbers["settings"],
            trips=[Trip(**values) for values in numbers["trips"]],
            notes=[Trip(**values) for values in numbers.get("notes", ())],
            bonds=[part(f"bonds.{k}.") for k in molecules],
            model=numbers["model"],
        )
    except (KeyError, TypeError) as error:
        raise PaiNNFastError("not a restart file of this version", where=path, got=str(error)) from None


def remove_restarts(folder: Path) -> None:
    """Delete all restart files of a run."""
    for path in folder.glob("restart*.safetensors"):
        path.unlink()
