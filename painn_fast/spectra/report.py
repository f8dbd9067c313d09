"""Short tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from painn_fast.spectra.bands import Band
from painn_fast.spectra.peaks import Peak
from painn_fast.vibrations.harmonic import HarmonicSpectrum


def harmonic_table(harmonic: HarmonicSpectrum) -> Table:
    """Modes with their intensities."""
    caption = "\n".join(f"{key}: {text}" for key, text in harmonic.about().items())
    table = Table(
        title="harmonic spectrum",
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=None,
        header_style="bold",
    )
    table.add_column("cm-1", justify="right")
    table.add_column("IR km/mol", justify="right")
    table.add_column("Raman Å⁴/amu", justify="right")
    table.add_column("motion")
    for k, nu in enumerate(harmonic.wavenumber):
        infrared = "" if harmonic.intensity is None else f"{harmonic.intensity[k]:.1f}"
        raman = "" if harmonic.activity is None else f"{harmonic.activity[k]:.1f}"
        table.add_row(f"{nu:.0f}", infrared, raman, harmonic.names[k])
    return table


def peak_table(infrared: Sequence[Peak], raman: Sequence[Peak]) -> Table:
    """Peaks of both spectra."""
    table = Table(title="peaks", title_justify="left", box=None, header_style="bold")
    table.add_column("spectrum")
    table.add_column("cm-1", justify="right")
    table.add_column("intensity", justify="right")
    table.add_column("FWHM cm-1", justify="right")
    table.add_column("motion")
    table.add_column("harmonic cm-1", justify="right")
    for kind, unit, peaks in (("infrared", "km/mol", infrared), ("Raman", "Å⁴/amu", raman)):
        for peak in peaks:
            line = "" if peak.harmonic is None else f"{peak.harmonic:.0f}"
            table.add_row(
                kind, f"{peak.position:.0f}", f"{peak.intensity:.1f} {unit}", f"{peak.width:.0f}", peak.name, line
            )
    return table


def comparison_table(bands: Sequence[Band]) -> Table:
    """Where each method puts the main bands, and how far that is from harmonic."""
    table = Table(title="bands, cm-1 (shift from harmonic)", title_justify="left", box=None, header_style="bold")
    table.add_column("spectrum")
    table.add_column("motion")
    table.add_column("harmonic", justify="right")
    methods = list(dict.fromkeys(label for band in bands for label in band.places))
    for method in methods:
        table.add_column(method, justify="right")
    for band in bands:
        cells = [
            f"{place.centre:.0f} ({place.centre - band.harmonic:+.0f})" if (place := band.places.get(method)) else ""
            for method in methods
        ]
        table.add_row(band.spectrum, band.name, f"{band.harmonic:.0f}", *cells)
    return table
