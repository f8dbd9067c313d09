"""Spectra, harmonic lines and peaks as CSV, units in the header."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from painn_fast.runtime.atomic import atomic_write
from painn_fast.spectra.bands import Band
from painn_fast.spectra.infrared import DECADIC, InfraredSpectrum
from painn_fast.spectra.peaks import Peak
from painn_fast.spectra.power import PowerSpectrum
from painn_fast.spectra.raman import RamanSpectrum
from painn_fast.vibrations.committee import CommitteeAnharmonic, CommitteeLines
from painn_fast.vibrations.harmonic import HarmonicSpectrum
from painn_fast.vibrations.sticks import Sticks

Columns = dict[str, Sequence[object] | np.ndarray]


def write_infrared(path: Path, spectrum: InfraredSpectrum, about: dict[str, str]) -> None:
    """Absorption spectrum; `about` becomes the lines of comment above."""
    columns: Columns = {
        "wavenumber / cm-1": spectrum.wavenumber,
        "absorption / (km/mol per cm-1)": spectrum.intensity,
        "standard error / (km/mol per cm-1)": spectrum.error,
        "decadic absorption coefficient / (L/(mol cm))": DECADIC * spectrum.intensity,
    }
    if spectrum.model_error is not None:
        columns["model error / (km/mol per cm-1)"] = spectrum.model_error
    write_table(path, columns, about)


def write_raman(path: Path, spectrum: RamanSpectrum, about: dict[str, str]) -> None:
    """Raman spectrum: activities, and Stokes cross-sections with the factors of laser and temperature."""
    columns: Columns = {
        "Raman shift / cm-1": spectrum.wavenumber,
        "Stokes cross-section / (1e-30 cm2/sr per cm-1)": spectrum.stokes,
        "standard error / (1e-30 cm2/sr per cm-1)": spectrum.stokes_error,
        "parallel / (1e-30 cm2/sr per cm-1)": spectrum.parallel,
        "perpendicular / (1e-30 cm2/sr per cm-1)": spectrum.perpendicular,
        "activity / (Ang^4/amu per cm-1)": spectrum.activity,
        "standard error of activity / (Ang^4/amu per cm-1)": spectrum.error,
        "isotropic a^2 / (Ang^4/amu per cm-1)": spectrum.isotropic,
        "anisotropic gamma^2 / (Ang^4/amu per cm-1)": spectrum.anisotropic,
        "depolarisation ratio": spectrum.depolarisation,
    }
    if spectrum.model_error is not None and spectrum.stokes_model_error is not None:
        columns["model error / (1e-30 cm2/sr per cm-1)"] = spectrum.stokes_model_error
        columns["model error of activity / (Ang^4/amu per cm-1)"] = spectrum.model_error
    write_table(path, columns, about)


def write_power(path: Path, spectrum: PowerSpectrum, about: dict[str, str]) -> None:
    """Power spectrum of all atoms and of those of each element."""
    columns: Columns = {
        "wavenumber / cm-1": spectrum.wavenumber,
        "power spectrum / (modes per cm-1)": spectrum.density,
        "standard error / (modes per cm-1)": spectrum.error,
        **({} if spectrum.model_error is None else {"model error / (modes per cm-1)": spectrum.model_error}),
        **{f"{name} / (modes per cm-1)": values for name, values in spectrum.elements.items()},
    }
    write_table(path, columns, about)


MODEL_ERRORS = {
    "wavenumber": "model error / cm-1",
    "intensity": "model error of IR intensity / (km/mol)",
    "activity": "model error of Raman activity / (Ang^4/amu)",
}
"""Columns of a committee's standard deviations."""


def write_harmonic(
    path: Path, harmonic: HarmonicSpectrum, about: dict[str, str], committee: CommitteeLines | None = None
) -> None:
    """Harmonic modes; imaginary wavenumbers are negative. Intensities of a mixture have the weight of the conformer.

    Of a committee, whose means they then are, the standard deviations follow.
    """
    columns: Columns = {
        "mode": range(1, len(harmonic.wavenumber) + 1),
        "wavenumber / cm-1": harmonic.wavenumber,
    }
    if harmonic.intensity is not None:
        columns["IR intensity / (km/mol)"] = harmonic.intensity
    if harmonic.activity is not None and harmonic.depolarisation is not None:
        columns["Raman activity / (Ang^4/amu)"] = harmonic.activity
        columns["depolarisation ratio"] = harmonic.depolarisation
    if harmonic.conformer is not None:
        columns["conformer"] = [harmonic.conformers[k][0] for k in harmonic.conformer]
        columns["population"] = [harmonic.conformers[k][1] for k in harmonic.conformer]
    if committee is not None:
        for name, title in MODEL_ERRORS.items():
            values = getattr(committee, f"{name}_error")
            if values is not None:
                columns[title] = values
    columns["motion"] = harmonic.names
    write_table(path, columns, about)


def write_anharmonic(
    path: Path, lines: Sticks, about: dict[str, str], committee: CommitteeAnharmonic | None = None
) -> None:
    """Anharmonic lines; intensities of a mixture have the weight of the conformer.

    Of a committee, whose means they then are, the standard deviations follow, where all models have the line.
    """
    columns: Columns = {"line": lines.labels, "wavenumber / cm-1": lines.wavenumber}
    if lines.intensity is not None:
        columns["IR intensity / (km/mol)"] = lines.intensity
    if lines.fundamental_activity is not None:
        activity = lines.fundamental_activity
        columns["Raman activity / (Ang^4/amu)"] = [None if np.isnan(value) else value for value in activity]
    columns["motion"] = lines.names
    columns["kind"] = [("fundamental", "two quanta", "three quanta")[n - 1] for n in lines.quanta]
    columns["treated as"] = ["anharmonic" if one else "harmonic" for one in lines.anharmonic]
    if lines.conformer is not None:
        columns["conformer"] = [lines.conformers[k][0] for k in lines.conformer]
        columns["population"] = [lines.conformers[k][1] for k in lines.conformer]
    if committee is not None:
        for name, title in MODEL_ERRORS.items():
            if errors := committee.errors(name):
                known = [errors[label] for label in lines.labels]
                columns[title] = [None if np.isnan(value) else value for value in known]
    write_table(path, columns, about)


def write_peaks(path: Path, infrared: Sequence[Peak], raman: Sequence[Peak], about: dict[str, str]) -> None:
    """Peaks of both spectra."""
    rows = [("infrared", peak) for peak in infrared] + [("Raman", peak) for peak in raman]
    units = {"infrared": ("km/mol per cm-1", "km/mol"), "Raman": ("1e-30 cm2/sr per cm-1", "Ang^4/amu")}
    peaks = [peak for _, peak in rows]
    columns: Columns = {
        "spectrum": [kind for kind, _ in rows],
        "position / cm-1": [peak.position for peak in peaks],
        "centre / cm-1": [peak.centre for peak in peaks],
        "motion": [peak.name for peak in peaks],
        "integrated intensity": [peak.intensity for peak in peaks],
        "unit of intensity": [units[kind][1] for kind, _ in rows],
        "height": [peak.height for peak in peaks],
        "standard error of height": [peak.error for peak in peaks],
        "unit of height": [units[kind][0] for kind, _ in rows],
        "width (FWHM) / cm-1": [peak.width for peak in peaks],
        "from / cm-1": [peak.low for peak in peaks],
        "to / cm-1": [peak.high for peak in peaks],
        "depolarisation ratio": [peak.depolarisation for peak in peaks],
        "nearest harmonic mode": [peak.mode for peak in peaks],
        "its wavenumber / cm-1": [peak.harmonic for peak in peaks],
        **({"its conformer": [peak.conformer for peak in peaks]} if any(peak.conformer for peak in peaks) else {}),
    }
    write_table(path, columns, about)


def write_comparison(path: Path, bands: Sequence[Band], about: dict[str, str]) -> None:
    """Main bands: harmonic, and by each method, with shifts from harmonic."""
    columns: Columns = {
        "spectrum": [band.spectrum for band in bands],
        "motion": [band.name for band in bands],
        "modes": [" ".join(str(mode) for mode in band.modes) for band in bands],
        "harmonic / cm-1": [band.harmonic for band in bands],
        "harmonic intensity": [band.intensity for band in bands],
        "unit of intensity": ["km/mol" if band.spectrum == "infrared" else "Ang^4/amu" for band in bands],
    }
    for method in dict.fromkeys(label for band in bands for label in band.positions):
        positions = [(band, band.positions.get(method)) for band in bands]
        columns[f"{method}: centre / cm-1"] = [one and one.centre for _, one in positions]
        columns[f"{method}: standard error / cm-1"] = [one and one.error for _, one in positions]
        columns[f"{method}: shift / cm-1"] = [one and one.centre - band.harmonic for band, one in positions]
        columns[f"{method}: peak / cm-1"] = [one and one.peak for _, one in positions]
        columns[f"{method}: intensity"] = [one and one.intensity for _, one in positions]
    write_table(path, columns, about)


def write_table(path: Path, columns: Columns, about: dict[str, str]) -> None:
    """Lines `# key: value`, a header, then rows; numbers with seven digits, missing ones as empty cells."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        file.writelines(f"# {key}: {' '.join(value.split())}\n" for key, value in about.items())
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(value) for value in row] for row in zip(*columns.values(), strict=True))


def _cell(value: object) -> str:
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return ""
    return f"{value:.7g}" if isinstance(value, (float, np.floating)) else str(value)
