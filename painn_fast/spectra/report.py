"""Short tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.table import Table

from painn_fast.spectra.bands import Band
from painn_fast.spectra.peaks import Peak
from painn_fast.vibrations.harmonic import HarmonicSpectrum

TEXTS = ("spectrum", "motion", "conformer")
"""Columns of text; all others are numbers."""


def plain_table(title: str, columns: Sequence[str], caption: str | None = None) -> Table:
    """Without rows."""
    left: Literal["left"] = "left"
    table = Table(title=title, title_justify=left, caption=caption, caption_justify=left, box=None, header_style="bold")
    for name in columns:
        table.add_column(name, justify="left" if name in TEXTS else "right")
    return table


def harmonic_table(harmonic: HarmonicSpectrum) -> Table:
    """Modes with their intensities."""
    caption = "\n".join(f"{key}: {text}" for key, text in harmonic.about().items())
    of = harmonic.conformer  # a column for a mixture alone
    columns = ("cm-1", "IR km/mol", "Raman Å⁴/amu", "motion") + (() if of is None else ("conformer",))
    table = plain_table("harmonic spectrum", columns, caption)
    for k, nu in enumerate(harmonic.wavenumber):
        infrared = "" if harmonic.intensity is None else f"{harmonic.intensity[k]:.1f}"
        raman = "" if harmonic.activity is None else f"{harmonic.activity[k]:.1f}"
        name = () if of is None else (harmonic.conformers[of[k]][0],)
        table.add_row(f"{nu:.0f}", infrared, raman, harmonic.names[k], *name)
    return table


def peak_table(infrared: Sequence[Peak], raman: Sequence[Peak]) -> Table:
    """Peaks of both spectra."""
    table = plain_table(
        "peaks", ("spectrum", "peak cm-1", "centre", "intensity", "FWHM cm-1", "motion", "harmonic cm-1")
    )
    for kind, unit, peaks in (("infrared", "km/mol", infrared), ("Raman", "Å⁴/amu", raman)):
        for peak in peaks:
            line = "" if peak.harmonic is None else f"{peak.harmonic:.0f}"
            where = f"{peak.position:.0f}", f"{peak.centre:.0f}"
            numbers = *where, f"{peak.intensity:.1f} {unit}", f"{peak.width:.0f}"
            table.add_row(kind, *numbers, peak.name, line)
    return table


def comparison_table(bands: Sequence[Band]) -> Table:
    """Positions of the main bands by each method, with shifts from harmonic."""
    methods = list(dict.fromkeys(label for band in bands for label in band.positions))
    table = plain_table("bands, cm-1 (shift from harmonic)", ("spectrum", "motion", "harmonic", *methods))
    for band in bands:
        cells = [
            f"{one.centre:.0f} ({one.centre - band.harmonic:+.0f})" if (one := band.positions.get(method)) else ""
            for method in methods
        ]
        table.add_row(band.spectrum, band.name, f"{band.harmonic:.0f}", *cells)
    return table
