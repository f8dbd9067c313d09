"""Power spectrum, the vibrational density of states: from velocities along trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from painn_fast.correlation.online import Correlation
from painn_fast.correlation.series import weighted
from painn_fast.errors import PaiNNFastError
from painn_fast.spectra.correlation import Analysis, correlate, spectral_density, standard_error


@dataclass(frozen=True)
class PowerSpectrum:
    """Degrees of freedom per wavenumber, of all atoms and of those of each element."""

    wavenumber: np.ndarray  # [K] cm-1
    density: np.ndarray  # [K] 1/cm-1
    error: np.ndarray  # [K] standard error of the mean over trajectories, NaN if there is but one block
    elements: dict[str, np.ndarray]  # each [K] 1/cm-1, lightest first; their sum is `density`
    analysis: Analysis
    interval: float  # fs
    temperature: float  # K

    @classmethod
    def of(cls, correlations: Mapping[str, Correlation], temperature: float, analysis: Analysis) -> PowerSpectrum:
        """From the correlation of `weighted` velocities of each element; the rest as in `power`."""
        parts = {name: spectral_density(part, temperature, analysis) for name, part in correlations.items()}
        first = next(iter(parts.values()))
        mean = np.sum([part.mean for part in parts.values()], axis=0)
        blocks = np.sum([part.blocks for part in parts.values()], axis=0)
        return cls(
            wavenumber=first.wavenumber,
            density=mean,
            error=standard_error(mean, blocks, first.weights),
            elements={name: part.mean for name, part in parts.items()},
            analysis=analysis,
            interval=next(iter(correlations.values())).interval,
            temperature=temperature,
        )

    def integral(self, low: float, high: float) -> float:
        """Degrees of freedom between two wavenumbers."""
        inside = (self.wavenumber >= low) & (self.wavenumber <= high)
        return float(np.trapezoid(self.density[inside], self.wavenumber[inside]))


def power(
    velocities: np.ndarray,
    symbols: Sequence[str],
    masses: np.ndarray,
    interval: float,
    temperature: float,
    analysis: Analysis | None = None,
) -> PowerSpectrum:
    """Spectral density of mass-weighted velocities, D(nu) = 2 c beta Sum m Integral <v(0) . v(t)> cos(2 pi c nu t) dt.

    A harmonic mode integrates to 1; all of it to the 3 N degrees of freedom, less 3 if the centre of mass rests, times
    the ratio of the temperature that the atoms really had to the one given.

    Args:
        velocities: [S, T, N, 3] Å/fs of S trajectories; of centroids for ring polymers.
        symbols: of the N atoms.
        masses: [N] amu.
        interval: between frames, fs.
        temperature: K.
        analysis: window, correlation depth, range.

    Raises:
        PaiNNFastError: if the series does not allow for the analysis.
    """
    if velocities.ndim != 4 or velocities.shape[2:] != (len(symbols), 3):
        raise PaiNNFastError(
            "not a series of velocities", got=f"shape {velocities.shape}", expected=f"[S, T, {len(symbols)}, 3]"
        )
    analysis = analysis or Analysis()
    parts = weighted(velocities, symbols, masses)
    correlations = {name: correlate(part, interval, analysis, differences=False) for name, part in parts.items()}
    return PowerSpectrum.of(correlations, temperature, analysis)
