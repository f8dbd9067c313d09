"""One picture: infrared above, Raman below, anharmonic lines with their errors, harmonic sticks, names at the peaks.

A power spectrum comes last. Methods that are compared are lines of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
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
from painn_fast.vibrations.sticks import Sticks
from painn_fast.vibrations.sticks import sticks as lines_of

Peaks = tuple[Sequence[Peak], Sequence[Peak]]


def draw(
    paths: Sequence[Path],
    infrared: InfraredSpectrum | None,
    raman: RamanSpectrum | None,
    harmonic: HarmonicSpectrum | Sticks | None,
    peaks: Peaks = ((), ()),
    power: PowerSpectrum | None = None,
    *,
    overlays: Sequence[Overlay] = (),
    title: str = "",
    subtitle: str = "",
    reverse: bool = False,
) -> None:
    """Draw to files, `.png`, `.svg` or `.pdf` by their names; labels are names and centres of bands.

    Args:
        paths: of the files.
        infrared: first panel, None for none.
        raman: second panel (Stokes cross-section), None for none.
        harmonic: sticks, each with its own intensity on the axis to the right; Raman ones with the Stokes factors.
            Anharmonic lines are welcome too.
        peaks: of the infrared and the Raman spectrum; the highest ones are named.
        power: last panel, None for none.
        overlays: other spectra, as high as ours.
        title: first line.
        subtitle: conditions.
        reverse: wavenumbers decrease from left to right, as chemists draw infrared spectra.

    Raises:
        PaiNNFastError: without matplotlib.

    Example:
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from painn_fast.spectra import Analysis, draw, infrared, infrared_peaks
        >>> vibration = np.cos(2 * np.pi * 2.99792458e-5 * 1000 * 2.0 * np.arange(2000))  # at 1000 cm-1, every 2 fs
        >>> dipole = vibration[None, :, None] * np.array([0.02, 0, 0])
        >>> spectrum = infrared(dipole, 2.0, 300.0, Analysis(depth=1000.0))
        >>> draw([Path("spectrum.svg")], spectrum, None, None, (infrared_peaks(spectrum), ()), title="one vibration")
        >>> "one vibration" in Path("spectrum.svg").read_text()
        True
    """
    draw_comparison(
        paths,
        {"dynamics": (infrared, raman, power)},
        harmonic,
        peaks,
        overlays=overlays,
        title=title,
        subtitle=subtitle,
        caption=lambda peak: f"{peak.name} {peak.centre:.0f}",
        reverse=reverse,
    )


def draw_comparison(
    paths: Sequence[Path],
    spectra: Mapping[str, tuple[InfraredSpectrum | None, RamanSpectrum | None, PowerSpectrum | None]],
    harmonic: HarmonicSpectrum | Sticks | None,
    peaks: Peaks = ((), ()),
    *,
    overlays: Sequence[Overlay] = (),
    title: str = "",
    subtitle: str = "",
    caption: Callable[[Peak], str] = attrgetter("name"),
    reverse: bool = False,
) -> None:
    """Draw the spectra of several methods in one picture.

    Args:
        paths: of the files, as in `draw`.
        spectra: infrared, Raman and power spectrum of each method, by its name; None for none.
        harmonic: sticks, as in `draw`.
        peaks: of one infrared and one Raman spectrum; the highest ones are named.
        overlays: other spectra, as high as ours.
        title: first line.
        subtitle: conditions.
        caption: text above a peak.
        reverse: as in `draw`.

    Raises:
        PaiNNFastError: without matplotlib, or if no method has a spectrum.

    Example:
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from painn_fast.spectra import Analysis, draw_comparison, infrared
        >>> spectra = {}
        >>> for method, nu in (("classical", 1000), ("T-RPMD", 960)):  # one vibration, a frame every 2 fs
        ...     vibration = np.cos(2 * np.pi * 2.99792458e-5 * nu * 2.0 * np.arange(2000))
        ...     dipole = vibration[None, :, None] * np.array([0.02, 0, 0])
        ...     spectra[method] = (infrared(dipole, 2.0, 300.0, Analysis(depth=1000.0)), None, None)
        >>> draw_comparison([Path("comparison.svg")], spectra, None)
        >>> all(method in Path("comparison.svg").read_text() for method in spectra)
        True
    """
    infrared = {label: one[0] for label, one in spectra.items() if one[0] is not None}
    raman = {label: one[1] for label, one in spectra.items() if one[1] is not None}
    power = {label: one[2] for label, one in spectra.items() if one[2] is not None}
    molecule = lines_of(harmonic) if isinstance(harmonic, HarmonicSpectrum) else harmonic
    count = sum(bool(kind) for kind in (infrared, raman, power))
    if count == 0:
        raise PaiNNFastError("nothing to draw", expected="an infrared, a Raman or a power spectrum")
    with matplotlib().rc_context(STYLE):
        made, panels = figure(count, title, subtitle)
        rest = iter(panels)
        if infrared:
            _infrared_panel(next(rest), infrared, molecule, [o for o in overlays if o.spectrum == "infrared"])
            names(panels[0], peaks[0], caption)
        if raman:
            panel = next(rest)
            _raman_panel(panel, raman, molecule, [o for o in overlays if o.spectrum == "Raman"])
            names(panel, peaks[1], caption)
        if power:
            _power_panel(next(rest), power, molecule)
        if reverse:
            panels[0].invert_xaxis()  # which all panels share
        save(made, panels, paths)


def _infrared_panel(
    panel: Any,
    spectra: dict[str, InfraredSpectrum],
    molecule: Sticks | None,
    overlays: Sequence[Overlay],
) -> None:
    curves = [Curve(label, one.wavenumber, one.intensity, one.error, one.model_error) for label, one in spectra.items()]
    lines(panel, curves, overlays, _highest(spectra))
    panel.set_ylabel("infrared absorption\nkm mol$^{-1}$ / cm$^{-1}$", y=0.5 * ROOM)
    if molecule is not None and molecule.intensity is not None:
        sticks(panel, molecule, molecule.intensity, "km mol$^{-1}$")


def _raman_panel(
    panel: Any, spectra: dict[str, RamanSpectrum], molecule: Sticks | None, overlays: Sequence[Overlay]
) -> None:
    curves = [
        Curve(label, one.wavenumber, one.stokes, one.stokes_error, one.stokes_model_error)
        for label, one in spectra.items()
    ]
    lines(panel, curves, overlays, _highest(spectra))
    panel.set_ylabel("Raman, Stokes\n10$^{-30}$ cm$^2$ sr$^{-1}$ / cm$^{-1}$", y=0.5 * ROOM)
    if molecule is not None and molecule.fundamental_activity is not None:
        first = next(iter(spectra.values()))
        factor = stokes_factor(molecule.wavenumber, first.temperature, first.laser) / 45.0
        sticks(panel, molecule, factor * molecule.fundamental_activity, "10$^{-30}$ cm$^2$ sr$^{-1}$")


def _power_panel(panel: Any, spectra: dict[str, PowerSpectrum], molecule: Sticks | None) -> None:
    """Elements of one method alone as thin lines; wavenumbers of fundamentals as marks on the axis."""
    curves = [Curve(label, one.wavenumber, one.density, one.error, one.model_error) for label, one in spectra.items()]
    lines(panel, curves, (), _highest(spectra), room=0.85)
    panel.set_ylabel("power spectrum\nmodes / cm$^{-1}$")
    if len(spectra) == 1:
        (one,) = spectra.values()
        parts = zip(one.elements.values(), COLOURS[1:] * len(one.elements), strict=False)
        drawn = [panel.plot(one.wavenumber, values, color=colour, lw=1.0)[0] for values, colour in parts]
        panel.legend(drawn, list(one.elements), loc="upper right", ncols=len(drawn), frameon=False, fontsize=9)
    if molecule is not None:
        top = panel.get_ylim()[1]
        panel.vlines(molecule.wavenumber[molecule.quanta == 1], -0.015 * top, 0.03 * top, color=STICK, lw=1.4)


def _highest(spectra: Mapping[str, InfraredSpectrum | RamanSpectrum | PowerSpectrum]) -> float:
    return max(one.analysis.highest for one in spectra.values())
