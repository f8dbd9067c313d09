"""One picture: infrared above, Raman below, anharmonic lines with their errors, harmonic sticks, names at the peaks.

A power spectrum comes last, a line an element.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from painn_fast.atomic import atomic_write
from painn_fast.errors import PaiNNFastError
from painn_fast.spectra.harmonic import HarmonicSpectrum
from painn_fast.spectra.infrared import InfraredSpectrum
from painn_fast.spectra.peaks import VIBRATIONS_FROM, Peak
from painn_fast.spectra.power import PowerSpectrum
from painn_fast.spectra.raman import RamanSpectrum, stokes_factor

INK, LINE, STICK, FAINT = "#222222", "#1f4e8c", "#d9822b", "#9a9a9a"
COLOURS = ("#1f4e8c", "#b5382a", "#2e8b57", "#7b4ba0", "#8c6d1f", "#3a3a3a", "#d64f9b")
"""Of lines in one panel; none is the colour of the sticks."""
ROOM = 0.56
"""Part of the height of a panel that the spectrum takes; names have the rest."""
LABELS = 10
"""At most, in a panel."""
APART = 0.019
"""Between labels, as a part of the width of a panel."""
STYLE = {
    "font.size": 9.5,
    "font.family": ["DejaVu Sans"],
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.direction": "out",
    "svg.hashsalt": "painn-fast",
    "svg.fonttype": "none",
}


def draw(
    paths: Sequence[Path],
    infrared: InfraredSpectrum | None,
    raman: RamanSpectrum | None,
    harmonic: HarmonicSpectrum | None,
    peaks: tuple[Sequence[Peak], Sequence[Peak]] = ((), ()),
    power: PowerSpectrum | None = None,
    *,
    title: str = "",
    subtitle: str = "",
) -> None:
    """Draw to files, `.png`, `.svg` or `.pdf` by their names. Wavenumbers go up from left to right in all panels.

    Args:
        paths: where to.
        infrared: first panel, None for none.
        raman: second panel (Stokes cross-section), None for none.
        harmonic: sticks, each with its own intensity on the axis to the right; Raman ones with the Stokes factors.
        peaks: of the infrared and the Raman spectrum; the highest ones are named.
        power: last panel, None for none.
        title: first line.
        subtitle: conditions.

    Raises:
        PaiNNFastError: without matplotlib.
    """
    matplotlib = _matplotlib()
    from matplotlib.figure import Figure

    count = sum(spectrum is not None for spectrum in (infrared, raman, power))
    if count == 0:
        raise PaiNNFastError("nothing to draw", expected="an infrared, a Raman or a power spectrum")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 0.9 + 3.8 * count), layout="constrained")
        panels = list(np.atleast_1d(figure.subplots(count, 1, sharex=True)))
        rest = iter(panels)
        if infrared is not None:
            _infrared_panel(next(rest), infrared, harmonic, peaks[0])
        if raman is not None:
            _raman_panel(next(rest), raman, harmonic, peaks[1])
        if power is not None:
            _power_panel(next(rest), power, harmonic)
        panels[-1].set_xlabel("wavenumber / cm$^{-1}$")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False, fontsize=9)
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        panels[0].set_title(subtitle, loc="left", fontsize=8.5, color="#555555", pad=8)
        _save(figure, paths)


def _save(figure: Any, paths: Sequence[Path]) -> None:
    for path in paths:
        kind = path.suffix.lstrip(".")
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)


def can_draw() -> bool:
    """Whether matplotlib is there."""
    try:
        _matplotlib()
    except PaiNNFastError:
        return False
    return True


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise PaiNNFastError("no matplotlib to draw with", fix="pip install 'painn-fast[plot]'") from None
    return matplotlib


def _infrared_panel(
    panel: Any, spectrum: InfraredSpectrum, harmonic: HarmonicSpectrum | None, peaks: Sequence[Peak]
) -> None:
    _line(panel, spectrum.wavenumber, spectrum.intensity, spectrum.error, spectrum.analysis.highest)
    panel.set_ylabel("infrared absorption\nkm mol$^{-1}$ / cm$^{-1}$", y=0.5 * ROOM)
    _names(panel, peaks)
    if harmonic is not None and harmonic.intensity is not None:
        _sticks(panel, harmonic.wavenumber, harmonic.intensity, "harmonic / km mol$^{-1}$")


def _raman_panel(panel: Any, spectrum: RamanSpectrum, harmonic: HarmonicSpectrum | None, peaks: Sequence[Peak]) -> None:
    _line(panel, spectrum.wavenumber, spectrum.stokes, spectrum.stokes_error, spectrum.analysis.highest)
    panel.set_ylabel("Raman, Stokes\n10$^{-30}$ cm$^2$ sr$^{-1}$ / cm$^{-1}$", y=0.5 * ROOM)
    _names(panel, peaks)
    if harmonic is not None and harmonic.activity is not None:
        factor = stokes_factor(harmonic.wavenumber, spectrum.temperature, spectrum.laser) / 45.0
        _sticks(panel, harmonic.wavenumber, factor * harmonic.activity, "harmonic / 10$^{-30}$ cm$^2$ sr$^{-1}$")


def _power_panel(panel: Any, spectrum: PowerSpectrum, harmonic: HarmonicSpectrum | None) -> None:
    """All atoms as in the other panels, elements as thin lines, harmonic wavenumbers as marks on the axis."""
    nu = spectrum.wavenumber
    _line(panel, nu, spectrum.density, spectrum.error, spectrum.analysis.highest)
    panel.set_ylabel("power spectrum\nmodes / cm$^{-1}$", y=0.5 * ROOM)
    lines = [
        panel.plot(nu, values, color=colour, lw=1.0, label=name)[0]
        for (name, values), colour in zip(spectrum.elements.items(), COLOURS[1:] * len(nu), strict=False)
    ]
    if harmonic is not None:
        top = panel.get_ylim()[1]
        real = harmonic.wavenumber[harmonic.wavenumber > 0]
        panel.vlines(real, -0.015 * top, 0.03 * top, color=STICK, lw=1.4)
    panel.legend(handles=lines, loc="upper left", ncols=len(lines), frameon=False, fontsize=9)


def _line(panel: Any, nu: np.ndarray, values: np.ndarray, error: np.ndarray, highest: float) -> None:
    band = np.nan_to_num(error)
    top = _height(nu, values, error)
    panel.fill_between(nu, values - band, values + band, color=LINE, alpha=0.2, lw=0, label="± standard error")
    panel.plot(nu, values, color=LINE, lw=1.3, label="dynamics")
    _frame(panel, top, highest)


def _height(nu: np.ndarray, values: np.ndarray, error: np.ndarray) -> float:
    """Of a panel in which vibrations and their errors have room below the names."""
    inside = nu >= min(VIBRATIONS_FROM, 0.5 * nu[-1])
    above = (values + np.nan_to_num(error))[inside]
    return max(float(np.nanmax(values[inside])) / ROOM, float(np.nanmax(above)) / (ROOM + 0.05))


def _frame(panel: Any, top: float, highest: float) -> None:
    panel.set_xlim(0.0, highest)
    panel.set_ylim(-0.015 * top, top)
    panel.margins(x=0)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.yaxis.set_major_locator(_few_ticks())
    _no_ticks_among_names(panel)


def _sticks(panel: Any, nu: np.ndarray, values: np.ndarray, label: str) -> None:
    """Harmonic lines on an axis of their own, as high as the spectrum at most."""
    real = (nu > 0) & np.isfinite(values)
    sticks = panel.twinx()
    top = float(values[real].max(initial=0.0)) / ROOM or 1.0
    sticks.vlines(nu[real], 0.0, values[real], color=STICK, lw=1.4, alpha=0.9)
    sticks.plot(nu[real], values[real], "o", color=STICK, ms=3.0)
    sticks.set_ylim(-0.015 * top, top)
    sticks.set_ylabel(label, color=STICK, y=0.5 * ROOM)
    sticks.tick_params(axis="y", colors=STICK)
    sticks.yaxis.set_major_locator(_few_ticks())
    for side in ("top", "left", "right"):
        sticks.spines[side].set_visible(False)
    _no_ticks_among_names(sticks)
    panel.plot([], [], color=STICK, marker="o", ms=3.0, lw=1.4, label="harmonic (axis on the right)")


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(6, steps=[1, 2, 5, 10])


def _no_ticks_among_names(axis: Any) -> None:
    top = axis.get_ylim()[1]
    axis.set_yticks([tick for tick in axis.get_yticks() if 0.0 <= tick <= 1.08 * ROOM * top])


def _names(panel: Any, peaks: Sequence[Peak]) -> None:
    """Names of the highest peaks above the spectrum, upright, side by side, with a thin line down to each peak."""
    chosen = main_peaks(peaks)
    width, top = panel.get_xlim()[1], panel.get_ylim()[1]
    places = spread(np.array([peak.position for peak in chosen]), APART * width, APART * width, (1 - APART) * width)
    foot = (ROOM + 0.065) * top
    for peak, place in zip(chosen, places, strict=True):
        above = min(peak.height, top * ROOM) + 0.012 * top
        panel.plot(
            [peak.position, peak.position, place], [above, max(above, foot - 0.04 * top), foot], color=FAINT, lw=0.6
        )
        text = f"{peak.name}  {peak.position:.0f}"
        panel.text(place, foot + 0.01 * top, text, rotation=90, ha="center", va="bottom", fontsize=8)


def main_peaks(peaks: Sequence[Peak]) -> list[Peak]:
    """The peaks to name: of neighbours with one name the highest, vibrations only, at most ten, in order."""
    groups: list[Peak] = []
    for peak in sorted((p for p in peaks if p.name != "rotation"), key=lambda p: p.position):
        if groups and groups[-1].name == peak.name:
            groups[-1] = max(groups[-1], peak, key=lambda p: p.height)
        else:
            groups.append(peak)
    highest = sorted(groups, key=lambda p: -p.height)[:LABELS]
    return sorted(highest, key=lambda p: p.position)


def spread(wanted: np.ndarray, apart: float, low: float, high: float) -> np.ndarray:
    """Places nearest to the wanted ones (ascending) that keep a distance: isotonic regression by pooling neighbours."""
    blocks: list[tuple[float, int]] = []  # mean of wanted - k apart, members
    for k, x in enumerate(wanted):
        mean, members = float(x) - k * apart, 1
        while blocks and blocks[-1][0] > mean:
            before, size = blocks.pop()
            mean, members = (before * size + mean * members) / (size + members), size + members
        blocks.append((mean, members))
    means = np.array([mean for mean, members in blocks for _ in range(members)])
    return np.clip(means, low, high - max(len(wanted) - 1, 0) * apart) + apart * np.arange(len(wanted))
