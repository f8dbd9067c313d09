"""Restart files: everything that decides how a run goes on, the newest two of them.

Noise is a function of (seed, trajectory, step) and thermostats have no memory, so the step is all that is kept of them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.md.guards import LimitExceeded
from painn_fast.md.settings import MOST_STEPS
from painn_fast.md.state import State
from painn_fast.runtime import checkpoint

SYSTEM = ("numbers", "masses", "cell", "pbc")
"""Fields of `System` that a run is identified by."""
NEWEST = "restart.safetensors"


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
    exceeded: list[LimitExceeded]
    notes: list[LimitExceeded]
    bonds: list[dict[str, Tensor]]
    """State of the guard of each molecule's bonds; empty where there is none."""
    model: str
    """SHA-256 of the model's weights."""
    config: str
    """SHA-256 of what else decides its numbers."""
    starts: list[dict[str, Tensor]]
    """Of the structures that the trajectories of each molecule started from: positions [S, N, 3] Å, charge e, spin."""
    file: Path
    failed: tuple[PaiNNFastError, ...] = ()
    """Why newer files could not be read."""


def write_restart(restart: Restart) -> None:
    """Write the newest restart file and keep the one before; a reader gets a whole one at any moment."""
    tensors = {f"force_field.{name}": value for name, value in restart.force_field.items()}
    for k, state in enumerate(restart.states):
        parts = {
            "state": state.tensors(), "system": restart.systems[k], "start": restart.starts[k],
            "stream": restart.streams[k], "bonds": restart.bonds[k],
        }  # fmt: skip
        tensors |= {f"{part}.{k}.{name}": value for part, values in parts.items() for name, value in values.items()}
    numbers = {
        "step": restart.states[0].step, "molecules": len(restart.states), "settings": restart.settings,
        "trips": [event.as_json() for event in restart.exceeded], "notes": [note.as_json() for note in restart.notes],
        "model": restart.model, "config": restart.config,
    }  # fmt: skip
    checkpoint.save_newest(restart.file, tensors, numbers)


def read_restart(folder: Path) -> Restart | None:
    """The newest restart file that can be read, and in `failed` why not a newer one; None if there is none.

    Raises:
        PaiNNFastError: if there are some, but none can be read.
    """
    restart, failed = checkpoint.load_newest(folder / NEWEST, _read)
    return None if restart is None else dataclasses.replace(restart, failed=tuple(failed))


def _read(path: Path) -> Restart:
    tensors, numbers = checkpoint.load(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    try:
        molecules = range(numbers["molecules"])
        restart = Restart(
            states=[State(**part(f"state.{k}."), step=numbers["step"]) for k in molecules],
            systems=[part(f"system.{k}.") for k in molecules],
            force_field=part("force_field."),
            streams=[part(f"stream.{k}.") for k in molecules],
            settings=numbers["settings"],
            exceeded=[LimitExceeded(**values) for values in numbers["trips"]],
            notes=[LimitExceeded(**values) for values in numbers.get("notes", ())],
            bonds=[part(f"bonds.{k}.") for k in molecules],
            model=numbers["model"],
            config=numbers["config"],
            starts=[part(f"start.{k}.") for k in molecules],
            file=path,
        )
    except (KeyError, TypeError) as error:
        raise PaiNNFastError("not a restart file of this version", where=path, got=str(error)) from None
    _check(restart, path)
    return restart


def _check(restart: Restart, path: Path) -> None:
    """Raise PaiNNFastError unless the step and the shapes can be those of a run."""
    step = restart.states[0].step if restart.states else None
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step <= MOST_STEPS:
        raise PaiNNFastError("not a step of a run", where=path, got=step, expected=f"0 to {MOST_STEPS}")
    for state, system in zip(restart.states, restart.systems, strict=True):
        S, P = state.energy.shape if state.energy.ndim == 2 else (0, 0)
        N = len(system["numbers"])
        shapes = {name: tuple(tensor.shape) for name, tensor in state.tensors().items()}
        moving = dict.fromkeys(("positions", "momenta", "forces"), (S, P, N, 3))
        expected = {**moving, "energy": (S, P), **dict.fromkeys(("heat", "trajectory", "alive"), (S,))}
        wrong = [name for name, shape in expected.items() if shapes[name] != shape]
        if wrong or not S * P * N:
            raise PaiNNFastError("not a state of a run", where=path, got=f"shapes {shapes}")


def remove_restarts(folder: Path) -> None:
    """Delete all restart files of a run."""
    for path in folder.glob("restart*.safetensors"):
        path.unlink()
