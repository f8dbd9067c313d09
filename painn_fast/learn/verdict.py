"""How far a model can be trusted: one page of pictures, and the numbers behind them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase

from painn_fast.io import load
from painn_fast.label.methods import How
from painn_fast.label.workers import Workers
from painn_fast.learn import training
from painn_fast.learn.errors import HeldOut, held_out
from painn_fast.learn.lines import Lines, compared, conformers_of
from painn_fast.learn.settings import LearnSettings
from painn_fast.learn.stability import Stability, stability
from painn_fast.learn.stages import TIMES, read_json
from painn_fast.learn.surface import MethodForces
from painn_fast.vibrations.conformers import Conformers


@dataclass(frozen=True)
class Verdict:
    """What is known of a finished model."""

    name: str  # formula
    theory: str
    settings: LearnSettings
    why: str  # labelling ended
    rounds: list[dict[str, Any]]  # errors by round
    held_out: HeldOut  # the final model on the final fresh beads
    conformers: Conformers
    stability: list[Stability]
    lines: list[Lines]  # empty unless asked for
    times: dict[str, float]  # seconds of each stage, and of the parts of this one


def examine(
    settings: LearnSettings,
    folder: Path,
    how: How,
    starts: Sequence[ase.Atoms],
    models: Sequence[Path],
    workers: Workers,
    why: str,
    rounds: Sequence[str],
) -> Verdict:
    """Compute all of it.

    Args:
        settings: of the run.
        folder: of the run.
        how: the method that labelled.
        starts: minima, on another surface, with charge and spin.
        models: the committee.
        workers: processes that label.
        why: labelling ended.
        rounds: folders of errors and held-out beads, the final one last.
    """
    chosen = training.best(models)
    model = load(chosen)
    listed = conformers_of(model, starts, settings.temperature)
    minima = [one.atoms for one in listed.members]
    times = read_json(folder / TIMES)
    lines, start = [], time.monotonic()
    if settings.check_hessian:
        lines = compared(listed, MethodForces(how, starts[0], workers=workers))
        times["lines of the method"], start = time.monotonic() - start, time.monotonic()
    moved = stability(chosen, minima, settings.temperature, settings.beads, settings.dynamics, folder / "stability")
    times["dynamics without a thermostat"] = time.monotonic() - start
    return Verdict(
        name=starts[0].get_chemical_formula(),
        theory=how.theory,
        settings=settings,
        why=why,
        rounds=[{"round": name, **read_json(folder / name / "held-out.json")} for name in rounds],
        held_out=held_out(models, chosen, [folder / rounds[-1] / "held-out.xyz"]),
        conformers=listed,
        stability=moved,
        lines=lines,
        times=times,
    )
