"""The verdict in words and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from painn_fast.label.methods import How
from painn_fast.learn.verdict import Verdict
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.progress import clock
from painn_fast.units import DEBYE

LIMITS = (
    "other molecules, and reactions: bonds do not break",
    "geometries that ring polymers do not visit at up to twice the temperature of the run",
    "properties whose errors are not listed",
)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows), ""]


def text(verdict: Verdict) -> str:
    """Markdown."""
    return "\n".join(_parts(verdict))


def _parts(verdict: Verdict) -> Iterator[str]:
    final, settings = verdict.rounds[-1], verdict.settings
    reached = "reached" if final["forces"] <= settings.aim else "NOT reached"
    yield f"# {verdict.name}, {verdict.theory}\n"
    yield (
        f"Forces on {len(verdict.held_out.spread)} fresh beads of the model's own dynamics are off by "
        f"{final['forces']:.3f} kcal/mol/Å; the aim of {settings.aim:g} is {reached}. "
        f"Labels ended because {verdict.why}.\n"
    )
    if settings.cheap_labels is not None:
        method, level, count = settings.cheap_labels
        theory = How(method, level).theory
        yield f"The first training started from weights of a training on {count} labels of {theory}.\n"
    yield from _rounds(verdict)
    yield from _conformers(verdict)
    yield from _stability(verdict)
    yield from _lines(verdict)
    yield from _times(verdict)
    yield "## What the model is not for\n"
    yield from (f"- {limit}" for limit in LIMITS)
    yield ""


def _rounds(verdict: Verdict) -> Iterator[str]:
    yield "## Errors on fresh beads, never trained on\n"
    names = [name for name in ("dipole", "polarizability") if name in verdict.rounds[-1]]
    head = ("round", "labels", "energy kcal/mol", "forces kcal/mol/Å", "spread of forces", "trajectories stopped")
    size = {"dipole": (DEBYE, "dipole D"), "polarizability": (1.0, "polarizability Å³")}
    rows = [
        [
            one["round"],
            str(one["labels"]),
            f"{one['energy']:.3f}",
            f"{one['forces']:.3f}",
            f"{one['spread']:.3f}",
            str(len(one["stopped"])),
            *(f"{one[name] / size[name][0]:.4f}" for name in names),
        ]
        for one in verdict.rounds
    ]
    yield from _table((*head, *(size[name][1] for name in names)), rows)


def _conformers(verdict: Verdict) -> Iterator[str]:
    listed = verdict.conformers
    yield f"## Conformers at {listed.temperature:g} K, by harmonic free energies\n"
    rough = listed.lines.roughness
    rows = [
        [
            one.name,
            f"{1000 * one.energy:.1f}",
            f"{100 * one.population:.1f}",
            " ".join(f"{nu:.0f}" for nu in one.lines.wavenumber),
        ]
        for one in listed.members
    ]
    yield from _table(("conformer", "energy meV", "share %", "lines cm-1"), rows)
    yield f"Roughness of the surface: {rough}.\n" if rough is not None else ""


def _stability(verdict: Verdict) -> Iterator[str]:
    yield "## Dynamics without a thermostat\n"
    rows = [
        [
            one.name, str(one.beads), f"{one.picoseconds:g}", str(one.trajectories), f"{one.drift:.4f}",
            "; ".join(one.stopped) or "none",
        ]
        for one in verdict.stability
    ]  # fmt: skip
    yield from _table(("run", "beads", "ps", "trajectories", "drift meV/atom/ps", "stopped by guards"), rows)


def _lines(verdict: Verdict) -> Iterator[str]:
    yield f"## Harmonic lines beside those of {verdict.theory}\n"
    if not verdict.lines:
        yield "Not compared; --check-hessian does, for 12 labels an atom and conformer.\n"
        return
    for one in verdict.lines:
        correlation = "" if one.correlation is None else f", infrared intensities correlated by {one.correlation:.4f}"
        yield f"{one.name}: {one.mean:.1f} cm-1 apart in the mean, {one.worst:.1f} at most{correlation}.\n"
        rows = [[f"{a:.1f}", f"{b:.1f}", f"{a - b:+.1f}"] for a, b in zip(one.model, one.method, strict=True)]
        yield from _table(("model cm-1", "method cm-1", "difference"), rows)


def _times(verdict: Verdict) -> Iterator[str]:
    yield "## Time\n"
    rows = [[name, clock(seconds)] for name, seconds in verdict.times.items()]
    yield from _table(("stage", "took"), [*rows, ["all", clock(sum(verdict.times.values()))]])


def csv(verdict: Verdict) -> str:
    """Errors by round."""
    names = [name for name in verdict.rounds[-1] if name not in ("round", "stopped", "cold_stopped")]
    rows = [["round", *names, "stopped"]]
    rows += [[one["round"], *(f"{one[name]:g}" for name in names), str(len(one["stopped"]))] for one in verdict.rounds]
    about = "# energy kcal/mol; forces and spread kcal/mol/Å; dipole e Å; polarizability Å^3: mean absolute errors"
    return "\n".join([about, *(",".join(row) for row in rows), ""])


def write(path: Path, content: str) -> None:
    """A text file, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def correlation_of_spread(verdict: Verdict) -> float:
    """Rank correlation of spread and error of the force on an atom."""
    error = np.linalg.norm(verdict.held_out.forces[..., 1] - verdict.held_out.forces[..., 0], axis=-1).ravel()
    return float(spearmanr(error, verdict.held_out.spread.ravel()).statistic)
