"""Spectra and peaks from a trajectory, or from the correlations that its dynamics streamed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import ase
import numpy as np

from painn_fast.correlation.names import SERIES
from painn_fast.correlation.online import Correlation
from painn_fast.correlation.series import SpectrumStreams, correlated_parts
from painn_fast.errors import PaiNNFastError
from painn_fast.md import Trajectory
from painn_fast.spectra.conformers import TorsionPopulations, torsion_populations
from painn_fast.spectra.density import Analysis, correlate
from painn_fast.spectra.infrared import InfraredSpectrum
from painn_fast.spectra.peaks import Peak, fit_shift, infrared_peaks, raman_peaks
from painn_fast.spectra.power import PowerSpectrum
from painn_fast.spectra.raman import RamanSpectrum
from painn_fast.spectra.settings import SpectrumSettings
from painn_fast.vibrations.conformers import Conformers
from painn_fast.vibrations.harmonic import HarmonicSpectrum
from painn_fast.vibrations.sticks import Sticks


@dataclass(frozen=True)
class SpectrumResult:
    """Spectra and peaks of a run, and the folder of its files.

    Example:
        >>> from pathlib import Path
        >>> from painn_fast.spectra import SpectrumResult
        >>> result = SpectrumResult(Path("out"), None, None, None, infrared_peaks=(), raman_peaks=())
        >>> result.power is None
        True
    """

    folder: Path
    infrared: InfraredSpectrum | None
    raman: RamanSpectrum | None
    harmonic: HarmonicSpectrum | None
    infrared_peaks: tuple[Peak, ...]
    raman_peaks: tuple[Peak, ...]
    power: PowerSpectrum | None = None
    torsions: TorsionPopulations | None = None
    sticks: Sticks | None = None  # to draw


def analyse(
    trajectory: Trajectory,
    settings: SpectrumSettings,
    harmonic: HarmonicSpectrum | None = None,
    streams: SpectrumStreams | None = None,
    conformers: Conformers | None = None,
) -> SpectrumResult:
    """Compute the spectra and peaks of a trajectory; trajectories that guards stopped are left out.

    Args:
        trajectory: with series of dipoles, polarizabilities or velocities.
        settings: window, depth, range, laser, quantum correction.
        harmonic: names the peaks.
        streams: correlations of series that the trajectory did not keep.
        conformers: whose populations are computed from recorded positions.

    Returns:
        A spectrum for each series: infrared (km/mol per cm-1), Raman (Å^4/amu per cm-1), power (modes per cm-1).

    Raises:
        PaiNNFastError: if there is no such series, or it is too short for the analysis.

    Example:
        >>> from painn_fast import md
        >>> from painn_fast.spectra import SpectrumSettings, analyse
        >>> chosen = {"ensemble": "nve", "duration": "100 fs", "dipole_every": "1 fs", "output": "run"}
        >>> trajectory = md.Trajectory(md.run(md.MDSettings(model="ethanol", **chosen)))
        >>> result = analyse(trajectory, SpectrumSettings(trajectory="run", method="classical", depth="50 fs"))
        >>> result.infrared.interval, result.raman is None
        (1.0, True)
    """
    series = available(trajectory, streams)
    if not series or not trajectory.alive.any():
        raise PaiNNFastError(
            "no series that a spectrum can be computed from",
            where=trajectory.path,
            expected="a trajectory with dipole_every, polarizability_every or velocities_every that no guard stopped",
        )
    correction = settings.quantum_correction
    if trajectory.beads > 1 and correction != "harmonic":
        raise PaiNNFastError(
            "a quantum correction is for classical runs", got=f"{correction}, {trajectory.beads} beads"
        )
    given = trajectory.temperature, replace(settings.analysis, time_step=trajectory.time_step)
    parts = {name: _correlations(name, trajectory, given[1], streams) for name in series}
    ir, rm, vdos = None, None, None
    if "dipole" in parts:
        ir = InfraredSpectrum.of(parts["dipole"]["dipole"], *given, correction=correction)
    if "polarizability" in parts:
        isotropic, anisotropic = parts["polarizability"].values()
        rm = RamanSpectrum.of(isotropic, anisotropic, *given, laser=settings.laser, correction=correction)
    if "velocities" in parts:
        vdos = PowerSpectrum.of(parts["velocities"], *given)
    shift = None if harmonic is None else fit_shift(harmonic, ir, rm)
    ir_peaks = () if ir is None else tuple(infrared_peaks(ir, harmonic, shift))
    rm_peaks = () if rm is None else tuple(raman_peaks(rm, harmonic, shift))
    visits = torsion_populations(trajectory, conformers)
    return SpectrumResult(settings.folder, ir, rm, harmonic, ir_peaks, rm_peaks, vdos, visits)


def available(trajectory: Trajectory, streams: SpectrumStreams | None) -> list[str]:
    """Series that spectra can be computed from."""
    return [name for name in SERIES if name in trajectory.names or (streams and name in streams.intervals)]


def _correlations(
    series: str, trajectory: Trajectory, analysis: Analysis, streams: SpectrumStreams | None
) -> dict[str, Correlation]:
    """From the frames if they were kept, else as they were streamed."""
    if series not in trajectory.names:
        assert streams is not None
        return streams.correlations(series)
    values = trajectory.read(series)[:, trajectory.alive].swapaxes(0, 1)
    symbols, masses = [], np.zeros(0)
    if series == "velocities":
        symbols = ase.Atoms(trajectory.system.numbers.numpy()).get_chemical_symbols()
        masses = trajectory.system.masses.numpy()
    parts = correlated_parts(series, values, symbols, masses)
    every, differences = trajectory.interval(series), series != "velocities"
    return {name: correlate(part, every, analysis, differences=differences) for name, part in parts.items()}
