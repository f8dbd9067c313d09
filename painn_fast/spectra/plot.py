"""One picture: infrared above, Raman below, anharmonic lines with their errors, harmonic sticks, names at the peaks.

A power spectrum comes last. Methods that are compared are lines of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from painn_fast.errors import PaiNNFastError
from painn_fast.spectra.infrared import InfraredSpectrum
from painn_fast.spectra.overlay import Overlay
from painn_fast.spectra.panels import COLOURS, ROOM, STICK, STYLE, Curve, figure, lines, matplotlib, names, save, sticks
from painn_fast.spectra.peaks import Peak
from painn_fast.spectra.power import PowerSpectrum
from painn_fast.spectra.raman import RamanSpectrum, stokes_factor
from painn_fast.vibrations.harmonic import HarmonicSpectrum

Peaks = tuple[Sequence[Peak], Sequence[Peak]]


def draw(
    paths: Sequence[Path],
    infrared: InfraredSpectrum | None,
    raman: RamanSpectrum | None,
    harmonic: HarmonicSpectrum | None,
    peaks: Peaks = ((), ()),
    power: PowerSpectrum | None = None,
    *,
    overlays: Sequence[Overlay] = (),
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
        overlays: other spectra, as high as ours.
        title: first line.
        subtitle: conditions.

    Raises:
        PaiNNFastError: without matplotlib.
    """
    spectra = {"dynamics": (infrared, raman, power)}
    _draw(paths, spectra, harmonic, peaks, overlays, title, subtitle, lambda peak: f"{peak.name}  {peak.position:.0f}")


def draw_comparison(
    paths: Sequence[Path],
    spectra: Mapping[str, tuple[InfraredSpectrum | None, RamanSpectrum | None, PowerSpectrum | None]],
    harmonic: HarmonicSpectrum | None,
    peaks: Peaks = ((), ()),
    *,
    overlays: Sequence[Overlay] = (),
    title: str = "",
    subtitle: str = "",
) -> None:
    """Spectra of several methods, by their names, in one picture; the rest as in `draw`, names without positions."""
    _draw(paths, spectra, harmonic, peaks, overlays, title, subtitle, lambda peak: peak.name)


def _draw(
    paths: Sequence[Path],
    spectra: Mapping[str, tuple[InfraredSpectrum | None, RamanSpectrum | None, PowerSpectrum | None]],
    harmonic: HarmonicSpectrum | None,
    peaks: Peaks,
    overlays: Sequence[Overlay],
    title: str,
    subtitle: str,
    text: Callable[[Peak], str],
) -> None:
    infrared = {label: one[0] for label, one in spectra.items() if one[0] is not None}
    raman = {label: one[1] for label, one in spectra.items() if one[1] is not None}
    power = {label: one[2] for label, one in spectra.items() if one[2] is not None}
    count = sum(bool(kind) for kind in (infrared, raman, power))
    if count == 0:
        raise PaiNNFastError("nothing to draw", expected="an infrared, a Raman or a power spectrum")
    with matplotlib().rc_context(STYLE):
        made, panels = figure(count, title, subtitle)
        rest = iter(panels)
        if infrared:
            _infrared_panel(next(rest), infrared, harmonic, [o for o in overlays if o.spectrum == "infrared"])
            names(panels[0], peaks[0], text)
        if raman:
            panel = next(rest)
            _raman_panel(panel, raman, harmonic, [o for o in overlays if o.spectrum == "Raman"])
            names(panel, peaks[1], text)
        if power:
            _power_panel(next(rest), power, harmonic)
        save(made, panels, paths)


def _infrared_panel(
    panel: Any,
    spectra: dict[str, InfraredSpectrum],
    harmonic: HarmonicSpectrum | None,
    overlays: Sequence[Overlay],
) -> None:
    curves = [Curve(label, one.wavenumber, one.intensity, one.error) for label, one in spectra.items()]
    lines(panel, curves, overlays, _highest(spectra))
    panel.set_ylabel("infrared absorption\nkm mol$^{-1}$ / cm$^{-1}$", y=0.5 * ROOM)
    if harmonic is not None and harmonic.intensity is not None:
        sticks(panel, harmonic.wavenumber, harmonic.intensity, "harmonic / km mol$^{-1}$")


def _raman_panel(
    panel: Any, spectra: dict[str, RamanSpectrum], harmonic: HarmonicSpectrum | None, overlays: Sequence[Overlay]
) -> None:
    curves = [Curve(label, one.wavenumber, one.stokes, one.stokes_error) for label, one in spectra.items()]
    lines(panel, curves, overlays, _highest(spectra))
    panel.set_ylabel("Raman, Stokes\n10$^{-30}$ cm$^2$ sr$^{-1}$ / cm$^{-1}$", y=0.5 * ROOM)
    if harmonic is not None and harmonic.activity is not None:
        first = next(iter(spectra.values()))
        factor = stokes_factor(harmonic.wavenumber, first.temperature, first.laser) / 45.0
        sticks(panel, harmonic.wavenumber, factor * harmonic.activity, "harmonic / 10$^{-30}$ cm$^2$ sr$^{-1}$")


def _power_panel(panel: Any, spectra: dict[str, PowerSpectrum], harmonic: HarmonicSpectrum | None) -> None:
    """Elements of one method alone as thin lines; harmonic wavenumbers as marks on the axis."""
    curves = [Curve(label, one.wavenumber, one.density, one.error) for label, one in spectra.items()]
    lines(panel, curves, (), _highest(spectra), room=0.85)
    panel.set_ylabel("power spectrum\nmodes / cm$^{-1}$")
    if len(spectra) == 1:
        (one,) = spectra.values()
        parts = zip(one.elements.values(), COLOURS[1:] * len(one.elements), strict=False)
        drawn = [panel.plot(one.wavenumber, values, color=colour, lw=1.0)[0] for values, colour in parts]
        panel.legend(drawn, list(one.elements), loc="upper right", ncols=len(drawn), frameon=False, fontsize=9)
    if harmonic is not None:
        top = panel.get_ylim()[1]
        panel.vlines(harmonic.wavenumber[harmonic.wavenumber > 0], -0.015 * top, 0.03 * top, color=STICK, lw=1.4)


def _highest(spectra: Mapping[str, InfraredSpectrum | RamanSpectrum | PowerSpectrum]) -> float:
    return max(one.analysis.highest for one in spectra.values())
