"""From a trajectory, or the correlations that its dynamics streamed, to spectra and peaks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import ase

from painn_fast.correlation.online import Correlation
from painn_fast.correlation.series import SERIES, SpectrumStreams, invariants, weighted
from painn_fast.errors import PaiNNFastError
from painn_fast.md import Trajectory
from painn_fast.spectra.correlation import Analysis, correlate
from painn_fast.spectra.infrared import InfraredSpectrum
from painn_fast.spectra.peaks import Peak, fit_shift, infrared_peaks, raman_peaks
from painn_fast.spectra.power import PowerSpectrum
from painn_fast.spectra.raman import RamanSpectrum
from painn_fast.spectra.settings import SpectrumSettings
from painn_fast.vibrations.harmonic import HarmonicSpectrum


@dataclass(frozen=True)
class SpectrumResult:
    """What a run found, and where it is written."""

    folder: Path
    infrared: InfraredSpectrum | None
    raman: RamanSpectrum | None
    harmonic: HarmonicSpectrum | None
    infrared_peaks: tuple[Peak, ...]
    raman_peaks: tuple[Peak, ...]
    power: PowerSpectrum | None = None


def analyse(
    trajectory: Trajectory,
    settings: SpectrumSettings,
    harmonic: HarmonicSpectrum | None = None,
    streams: SpectrumStreams | None = None,
) -> SpectrumResult:
    """Spectra and peaks of a trajectory; trajectories that guards stopped are left out.

    Args:
        trajectory: with series of dipoles, polarizabilities or velocities.
        settings: window, depth, range, laser, quantum correction.
        harmonic: names the peaks.
        streams: correlations of series that the trajectory did not keep.

    Raises:
        PaiNNFastError: if there is no such series, or it is too short for the analysis.
    """
    series = recorded(trajectory, streams)
    if not series or not trajectory.alive.any():
        raise PaiNNFastError(
            "nothing to make a spectrum of",
            where=trajectory.path,
            expected="a trajectory with dipole_every, polarizability_every or velocities_every that no guard stopped",
        )
    correction = settings.quantum_correction
    if trajectory.beads > 1 and correction != "harmonic":
        raise PaiNNFastError(
            "a quantum correction is for classical runs", got=f"{correction}, {trajectory.beads} beads"
        )
    chosen = replace(settings.analysis, time_step=trajectory.time_step)
    ir, rm, vdos = None, None, None
    if "dipole" in series:
        (part,) = _correlations("dipole", trajectory, chosen, streams).values()
        ir = InfraredSpectrum.of(part, trajectory.temperature, chosen, correction=correction)
    if "polarizability" in series:
        parts = _correlations("polarizability", trajectory, chosen, streams)
        rm = RamanSpectrum.of(
            parts["isotropic"],
            parts["anisotropic"],
            trajectory.temperature,
            chosen,
            laser=settings.laser,
            correction=correction,
        )
    if "velocities" in series:
        elements = _correlations("velocities", trajectory, chosen, streams)
        vdos = PowerSpectrum.of(elements, trajectory.temperature, chosen)
    shift = None if harmonic is None else fit_shift(harmonic, ir, rm)
    ir_peaks = () if ir is None else tuple(infrared_peaks(ir, harmonic, shift))
    rm_peaks = () if rm is None else tuple(raman_peaks(rm, harmonic, shift))
    return SpectrumResult(settings.folder, ir, rm, harmonic, ir_peaks, rm_peaks, vdos)


def recorded(trajectory: Trajectory, streams: SpectrumStreams | None) -> list[str]:
    """Series that spectra can be made of."""
    return [name for name in SERIES if name in trajectory.names or (streams and name in streams.intervals)]


def _correlations(
    series: str, trajectory: Trajectory, analysis: Analysis, streams: SpectrumStreams | None
) -> dict[str, Correlation]:
    """Of the frames if they are there, else as they were streamed."""
    if series not in trajectory.names:
        assert streams is not None
        return streams.correlations(series)
    values = trajectory.read(series)[:, trajectory.alive].swapaxes(0, 1)
    if series == "velocities":
        system = trajectory.system
        symbols = ase.Atoms(system.numbers.numpy()).get_chemical_symbols()
        parts = weighted(values.mean(axis=2), symbols, system.masses.numpy())  # of centroids
    elif series == "polarizability":
        parts = dict(zip(("isotropic", "anisotropic"), invariants(values), strict=True))
    else:
        parts = {"dipole": values}
    every, differences = trajectory.interval(series), series != "velocities"
    return {name: correlate(part, every, analysis, differences=differences) for name, part in parts.items()}
