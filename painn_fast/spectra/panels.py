"""Parts of a panel: lines with error bands, sticks, names above, and the style."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.runtime.atomic import atomic_write
from painn_fast.spectra.overlay import Overlay
from painn_fast.spectra.peaks import VIBRATIONS_FROM, Peak
from painn_fast.vibrations.sticks import Sticks

INK, LINE, STICK, FAINT = "#222222", "#1f4e8c", "#d9822b", "#9a9a9a"
COLOURS = (LINE, "#b5382a", "#2e8b57", "#7b4ba0", "#8c6d1f", "#3a3a3a", "#d64f9b")
"""Colours of lines in one panel; the sticks have another."""
MODEL = "#d6b23e"
"""Colour of the error of the model."""
STICKS = (STICK, "#1a9a9a", "#c2479a", "#8a9a1f", FAINT)
"""Colours of the sticks of conformers, by population."""
FAINTEST = 0.005
"""Part of the highest line from which overtones and combinations are drawn."""
SEEN = 0.01
"""Least population of a conformer with a colour of its own."""
NOTE = {"fontsize": 7.5, "color": "#555555"}
OVERLAYS = ("--", ":", "-.")
ROOM = 0.72
"""Part of the height of a panel that the spectrum takes; then come lines to the names, which have a fifth."""
FOOT = 0.79
"""Part of the height at which names begin."""
WRAP = 12
"""Characters in a line of a name."""
LABELS = 10
"""At most, in a panel."""
EQUAL = 0.9
"""Part of the height of the highest peak of one name from which its neighbours have the name too."""
APART = 0.03
"""Between labels, as a part of the width of a panel."""
STYLE = {
    "font.size": 9.5,
    "font.family": ["DejaVu Sans"],
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    **dict.fromkeys(("xtick.color", "ytick.color", "text.color", "axes.labelcolor"), INK),
    "xtick.direction": "out",
    "svg.hashsalt": "painn-fast",
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Curve:
    """A line with its error."""

    label: str
    nu: np.ndarray  # [K] cm-1
    values: np.ndarray  # [K]
    error: np.ndarray  # [K]
    model_error: np.ndarray | None = None  # [K], of a committee


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    try:
        matplotlib()
    except PaiNNFastError:
        return False
    return True


def matplotlib() -> Any:
    """The package.

    Raises:
        PaiNNFastError: if it is not installed.
    """
    try:
        import matplotlib as package
    except ImportError:
        raise PaiNNFastError("no matplotlib to draw with", fix="pip install matplotlib") from None
    return package


def figure(count: int, title: str, subtitle: str) -> tuple[Any, list[Any]]:
    """A figure of panels one above the other; within `rc_context(STYLE)`."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(11.0, 1.0 + 4.2 * count), layout="constrained")
    panels = list(np.atleast_1d(made.subplots(count, 1, sharex=True)))
    panels[-1].set_xlabel("wavenumber / cm$^{-1}$")
    made.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    panels[0].set_title(subtitle, loc="left", fontsize=8.5, color="#555555", pad=8)
    return made, panels


def save(made: Any, panels: Sequence[Any], paths: Sequence[Path]) -> None:
    """Add one legend for all panels and write the files."""
    named = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    position, columns = ("outside upper right", 3) if len(named) <= 3 else ("outside lower center", 4)
    made.legend(named.values(), named.keys(), loc=position, ncols=columns, frameon=False, fontsize=9)
    for path in paths:
        kind = path.suffix.lstrip(".")
        with atomic_write(path) as temporary:
            made.savefig(temporary, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)


def lines(panel: Any, curves: Sequence[Curve], overlays: Sequence[Overlay], highest: float, room: float = ROOM) -> None:
    """Curves, each in a colour of its own if there are several, and overlays as high as the first of them."""
    for curve, colour in zip(curves, COLOURS * len(curves), strict=False):
        error = np.nan_to_num(curve.error)
        if curve.model_error is not None:
            wide = curve.values - curve.model_error, curve.values + curve.model_error
            panel.fill_between(curve.nu, *wide, color=MODEL, alpha=0.3, lw=0, label="± model error (between models)")
        low, high = curve.values - error, curve.values + error
        panel.fill_between(curve.nu, low, high, color=colour, alpha=0.2, lw=0)
        panel.plot(curve.nu, curve.values, color=colour, lw=1.3, label=curve.label)
    shade = LINE if len(curves) == 1 else FAINT
    panel.fill_between([], [], color=shade, alpha=0.3, lw=0, label="± standard error of sampling")
    for overlay, style in zip(overlays, OVERLAYS * len(overlays), strict=False):
        scale = _top(curves[0].nu, curves[0].values, highest) / _top(overlay.wavenumber, overlay.intensity, highest)
        values = scale * overlay.intensity
        panel.plot(overlay.wavenumber, values, color=INK, lw=0.9, ls=style, label=f"{overlay.label} (scaled)")
    top = max(_height(curve, room) for curve in curves)
    panel.set_xlim(0.0, highest)
    panel.set_ylim(-0.015 * top, top)
    panel.margins(x=0)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    _few_ticks(panel, room)
    beyond = [(curve.label, text) for curve in curves if (text := _beyond(curve, top, highest))]
    if beyond:
        note = "; ".join(f"{label} {text}" for label, text in beyond) if len(curves) > 1 else beyond[0][1]
        panel.annotate(f"beyond the frame: {note}", (0.5, 1.0), xycoords="axes fraction", va="top", ha="center", **NOTE)


def _beyond(curve: Curve, top: float, highest: float) -> str:
    """Where a curve leaves the frame, in words, "" if it does not."""
    above = np.flatnonzero((curve.values > top) & (curve.nu <= highest))
    if not len(above):
        return ""
    first, last, most = curve.nu[above[0]], curve.nu[above[-1]], float(np.nanmax(curve.values[above]))
    where = f"below {last:.0f}" if above[0] == 0 else f"at {first:.0f} to {last:.0f}"
    return f"{where} cm$^{{-1}}$, highest {most:.2g}"


def _top(nu: np.ndarray, values: np.ndarray, highest: float) -> float:
    """The highest value among the vibrations."""
    inside = (nu >= min(VIBRATIONS_FROM, 0.5 * highest)) & (nu <= highest)
    return float(np.nanmax(values[inside]))


def _height(curve: Curve, room: float) -> float:
    """Height of a panel of which vibrations and their errors take this part."""
    top, above = (
        _top(curve.nu, values, curve.nu[-1]) for values in (curve.values, curve.values + np.nan_to_num(curve.error))
    )
    return max(top / room, above / (room + 0.05))


def sticks(panel: Any, lines: Sticks, values: np.ndarray, unit: str) -> None:
    """Lines of the molecule on an axis of their own, as high as the spectrum at most, each conformer in its colour."""
    nu = lines.wavenumber
    real = np.isfinite(values)
    highest = float(values[real & (nu <= panel.get_xlim()[1])].max(initial=0.0))
    real &= (lines.quanta == 1) | (values >= FAINTEST * highest)
    axis, top = panel.twinx(), highest / ROOM or 1.0
    for name, colour, chosen in _conformers(lines):
        own = real & chosen
        axis.vlines(nu[own], 0.0, values[own], color=colour, lw=1.4, alpha=0.9)
        axis.plot(nu[own], values[own], "o", color=colour, ms=3.0)
        panel.plot([], [], color=colour, marker="o", ms=3.0, lw=1.4, label=name)
    outside = real & (nu > panel.get_xlim()[1]) & (values > 0)
    if outside.any():
        text = f"{outside.sum()} {lines.kind} lines beyond the frame, up to {nu[outside].max():.0f} cm$^{{-1}}$"
        axis.annotate(text, (0.99, ROOM), xycoords="axes fraction", va="top", ha="right", **NOTE)
    axis.set_ylim(-0.015 * top, top)
    axis.set_ylabel(f"{lines.kind} / {unit}", color=STICK, y=0.5 * ROOM)
    axis.tick_params(axis="y", colors=STICK)
    for side in ("top", "left", "right"):
        axis.spines[side].set_visible(False)
    _few_ticks(axis, ROOM)


def _conformers(lines: Sticks) -> list[tuple[str, str, np.ndarray]]:
    """Label, colour and lines [L] of each conformer that is seen; rare ones share the last colour."""
    of = lines.conformer
    if of is None:
        return [(f"{lines.kind} (axis on the right)", STICK, np.ones(len(lines.wavenumber), dtype=bool))]
    seen = [k for k, (_, share) in enumerate(lines.conformers) if share >= SEEN][: len(STICKS) - 1]
    groups = [
        (f"{lines.kind}, {name} {share:.0%}", STICKS[k], of == k)
        for k, (name, share) in enumerate(lines.conformers)
        if k in seen
    ]
    rest = ~np.isin(of, seen)
    return [*groups, (f"{lines.kind}, others", STICKS[-1], rest)] if rest.any() else groups


def _few_ticks(axis: Any, room: float) -> None:
    """None among the names."""
    from matplotlib.ticker import MaxNLocator

    axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    top = axis.get_ylim()[1]
    axis.set_yticks([tick for tick in axis.get_yticks() if 0.0 <= tick <= 1.08 * room * top])


def names(panel: Any, peaks: Sequence[Peak], text: Callable[[Peak], str]) -> None:
    """Names of the highest peaks above the spectrum, upright, side by side, with a thin line down to each peak."""
    chosen = main_peaks(peaks)
    width, top = panel.get_xlim()[1], panel.get_ylim()[1]
    positions = spread(np.array([peak.position for peak in chosen]), APART * width, APART * width, (1 - APART) * width)
    foot = (FOOT - 0.01) * top
    for peak, x in zip(chosen, positions, strict=True):
        above = min(peak.height, top * ROOM) + 0.012 * top
        heights = [above, max(above, foot - 0.04 * top), foot]
        panel.plot([peak.position, peak.position, x], heights, color=FAINT, lw=0.6)
        label = "\n".join(textwrap.wrap(text(peak), WRAP, break_on_hyphens=False))
        panel.text(x, FOOT * top, label, rotation=90, ha="center", va="bottom", fontsize=7, linespacing=1.05)


def main_peaks(peaks: Sequence[Peak]) -> list[Peak]:
    """The peaks to name, vibrations only, at most ten, in order; of neighbours with one name the highest ones."""
    vibrations = sorted((p for p in peaks if p.name != "rotation"), key=lambda p: p.position)
    groups = [list(group) for _, group in groupby(vibrations, key=lambda p: p.name)]
    chosen = [p for group in groups for p in group if p.height >= EQUAL * max(one.height for one in group)]
    highest = sorted(chosen, key=lambda p: -p.height)[:LABELS]
    return sorted(highest, key=lambda p: p.position)


def spread(wanted: np.ndarray, apart: float, low: float, high: float) -> np.ndarray:
    """Positions nearest to wanted ones (ascending) that keep a distance: isotonic regression by pooling neighbours."""
    blocks: list[tuple[float, int]] = []  # mean of wanted - k apart, members
    for k, x in enumerate(wanted):
        mean, members = float(x) - k * apart, 1
        while blocks and blocks[-1][0] > mean:
            before, size = blocks.pop()
            mean, members = (before * size + mean * members) / (size + members), size + members
        blocks.append((mean, members))
    means = np.array([mean for mean, members in blocks for _ in range(members)])
    return np.clip(means, low, high - max(len(wanted) - 1, 0) * apart) + apart * np.arange(len(wanted))
