"""The verdict as one page of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from painn_fast.learn.report import LIMITS, correlation_of_spread
from painn_fast.learn.verdict import Verdict
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.log_axis import plain_numbers


def draw(verdict: Verdict, path: Path) -> None:
    """Learning curve, parity, spread against error, lines, drift, conformers, times, limits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.0, 10.5), layout="constrained")
    axes = figure.subplots(3, 3)
    panels = (_curve, _parity, _spread, _lines, _dipole, _conformers, _stability, _times, _limits)
    for axis, panel in zip(axes.flat, panels, strict=True):
        panel(axis, verdict)
    final = verdict.rounds[-1]
    figure.suptitle(
        f"{verdict.name} at {verdict.theory}: forces on fresh beads off by {final['forces']:.2f} kcal/mol/Å after "
        f"{final['labels']} labels"
    )
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _curve(axis: Any, verdict: Verdict) -> None:
    labels = [one["labels"] for one in verdict.rounds]
    axis.loglog(labels, [one["forces"] for one in verdict.rounds], "o-", label="error")
    axis.loglog(labels, [one["spread"] for one in verdict.rounds], "s:", label="spread of the committee")
    axis.axhline(verdict.settings.aim, color="0.5", linewidth=0.8)
    for one in verdict.rounds:
        axis.annotate(f" {one['round']}", (one["labels"], one["forces"]), fontsize="x-small")
    axis.set_xticks(labels, [f"{count:,}" for count in labels])
    axis.set_xticks([], minor=True)
    plain_numbers(axis.yaxis)
    axis.set(title="Errors by round, on fresh beads", xlabel="labels trained on", ylabel="forces / kcal/mol/Å")
    axis.legend(frameon=False, fontsize="small")


def _parity(axis: Any, verdict: Verdict) -> None:
    right, predicted = np.moveaxis(verdict.held_out.forces, -1, 0).reshape(2, -1)
    axis.plot(right, predicted, ".", markersize=2, alpha=0.5)
    axis.axline((0, 0), slope=1, color="0.6", linewidth=0.8)
    axis.set(
        title=f"Forces on {len(verdict.held_out.forces)} fresh beads", xlabel="method / kcal/mol/Å", ylabel="model"
    )


def _spread(axis: Any, verdict: Verdict) -> None:
    error = np.linalg.norm(verdict.held_out.forces[..., 1] - verdict.held_out.forces[..., 0], axis=-1)
    axis.loglog(verdict.held_out.spread.ravel(), error.ravel(), ".", markersize=2, alpha=0.5)
    ends = [error.min(), error.max()]
    axis.loglog(ends, ends, color="0.6", linewidth=0.8)
    plain_numbers(axis.xaxis, axis.yaxis)
    axis.set(
        title=f"Spread and error, rank correlation {correlation_of_spread(verdict):.2f}",
        xlabel="spread of the force on an atom / kcal/mol/Å",
        ylabel="error / kcal/mol/Å",
    )


def _lines(axis: Any, verdict: Verdict) -> None:
    if not verdict.lines:
        first = verdict.conformers.members[0].lines
        height = np.ones(len(first.wavenumber)) if first.intensity is None else first.intensity
        axis.vlines(first.wavenumber, 0.0, height)
        axis.set(
            title="Lines of the model; the method's were not asked for", xlabel="wavenumber / cm⁻¹", ylabel="km/mol"
        )
        return
    for k, one in enumerate(verdict.lines):
        axis.plot(one.method, one.model - one.method, "o", markersize=4, color=f"C{k}", label=one.name)
    axis.axhline(0.0, color="0.6", linewidth=0.8)
    worst, mean = max(one.worst for one in verdict.lines), np.mean([one.mean for one in verdict.lines])
    axis.set(
        title=f"Harmonic lines\n{mean:.1f} cm⁻¹ apart in the mean, {worst:.1f} at most",
        xlabel="method / cm⁻¹",
        ylabel="model - method / cm⁻¹",
    )
    axis.legend(frameon=False, fontsize="small")


def _dipole(axis: Any, verdict: Verdict) -> None:
    asked = [one for one in verdict.lines if one.model_intensity is not None and one.method_intensity is not None]
    if asked:
        for k, one in enumerate(asked):
            axis.vlines(one.method, 0.0, one.method_intensity, color=f"C{k}", label=f"{one.name}, method")
            axis.vlines(one.model, 0.0, -np.asarray(one.model_intensity), color=f"C{k}", linestyle=":", label="model")
        axis.set(title="Infrared intensities, the model's downwards", xlabel="wavenumber / cm⁻¹", ylabel="km/mol")
        axis.legend(frameon=False, fontsize="small")
        return
    for name, both in verdict.held_out.others.items():
        right, predicted = both[..., 0].ravel(), both[..., 1].ravel()
        axis.plot(right - np.nanmean(right), predicted - np.nanmean(right), ".", markersize=2, label=name)
    axis.axline((0, 0), slope=1, color="0.6", linewidth=0.8)
    axis.set(title="Dipole (e Å) and polarizability (Å³)", xlabel="method, from the mean", ylabel="model")
    if verdict.held_out.others:
        axis.legend(frameon=False, fontsize="small")


def _conformers(axis: Any, verdict: Verdict) -> None:
    members = verdict.conformers.members
    axis.bar([one.name for one in members], [100.0 * one.population for one in members])
    for k, one in enumerate(members):
        axis.text(
            k, 100.0 * one.population, f"{1000.0 * one.energy:.0f} meV", ha="center", va="bottom", fontsize="small"
        )
    axis.set(title=f"Conformers at {verdict.conformers.temperature:g} K", ylabel="share / %")
    axis.margins(y=0.15)


def _stability(axis: Any, verdict: Verdict) -> None:
    rows = verdict.stability
    names = [f"{one.name}, {one.beads} bead{'s' * (one.beads > 1)}, {one.picoseconds:g} ps" for one in rows]
    axis.barh(names, [one.drift for one in rows], color=["C3" if one.stopped else "C2" for one in rows])
    for k, one in enumerate(rows):
        axis.text(
            0.0, k, f" {one.drift:.3g}; {len(one.stopped)} of {one.trajectories} stopped", va="center", fontsize="small"
        )
    axis.set(title="Without a thermostat", xlabel="drift / meV/atom/ps")


def _times(axis: Any, verdict: Verdict) -> None:
    times = {name: seconds for name, seconds in verdict.times.items() if seconds >= 0.01 * sum(verdict.times.values())}
    axis.barh(list(times), [seconds / 60.0 for seconds in times.values()])
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize="x-small")
    axis.set(title=f"Time, {sum(verdict.times.values()) / 60.0:.1f} min in all", xlabel="minutes")


def _limits(axis: Any, verdict: Verdict) -> None:
    axis.axis("off")
    axis.set(title="What the model is not for")
    lines = [f"- {limit}" for limit in LIMITS] + ["", f"Labels ended because {verdict.why}."]
    axis.text(0.0, 0.95, "\n".join(lines), va="top", fontsize="small", wrap=True, transform=axis.transAxes)
