"""Infrared absorption from the dipole along trajectories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from painn_fast.correlation.online import Correlation
from painn_fast.errors import PaiNNFastError
from painn_fast.spectra.correlation import Analysis, correlate, spectral_density, standard_error
from painn_fast.spectra.quantum import quantum_correction
from painn_fast.vibrations.harmonic import KM_PER_MOL

DECADIC = 100.0 / np.log(10.0)
"""Molar decadic absorption coefficient, L/(mol cm), of 1 km/mol per cm-1."""


@dataclass(frozen=True)
class InfraredSpectrum:
    """Absorption of one molecule."""

    wavenumber: np.ndarray  # [K] cm-1
    intensity: np.ndarray  # [K] km/mol per cm-1
    error: np.ndarray  # [K] standard error of the mean over trajectories, NaN if there is but one block
    analysis: Analysis
    interval: float  # fs
    temperature: float  # K
    blocks: np.ndarray | None = None  # [B, K] of each trajectory, or parts of one that is alone
    weights: np.ndarray | None = None  # [B]

    @classmethod
    def of(
        cls, correlation: Correlation, temperature: float, analysis: Analysis, *, correction: str = "harmonic"
    ) -> InfraredSpectrum:
        """From the correlation of mu_dot, mu in e Å; the rest as in `infrared`."""
        density = spectral_density(correlation, temperature, analysis)  # e^2/amu per cm-1
        factor = KM_PER_MOL * quantum_correction(correction, density.wavenumber, temperature)
        mean, blocks = factor * density.mean, factor * density.blocks
        return cls(
            wavenumber=density.wavenumber,
            intensity=mean,
            error=standard_error(mean, blocks, density.weights),
            analysis=analysis,
            interval=correlation.interval,
            temperature=temperature,
            blocks=blocks,
            weights=density.weights,
        )

    def integral(self, low: float, high: float) -> float:
        """Integrated intensity between two wavenumbers, km/mol."""
        inside = (self.wavenumber >= low) & (self.wavenumber <= high)
        return float(np.trapezoid(self.intensity[inside], self.wavenumber[inside]))


def infrared(
    dipole: np.ndarray,
    interval: float,
    temperature: float,
    analysis: Analysis | None = None,
    *,
    correction: str = "harmonic",
) -> InfraredSpectrum:
    """Absorption spectrum, sigma(omega) = beta / (6 eps0 c) Integral <mu_dot(0) . mu_dot(t)> exp(-i omega t) dt.

    Its integral over the band of a harmonic mode is N_A / (12 eps0 c^2) |d mu / d Q|^2, the double-harmonic intensity.

    Args:
        dipole: [S, T, 3] e Å of S trajectories; means over beads for ring polymers (the Kubo-transformed estimator).
        interval: between frames, fs.
        temperature: K.
        analysis: window, correlation depth, range.
        correction: quantum correction factor for classical runs; "harmonic" is exact for ring polymers too.

    Raises:
        PaiNNFastError: if the series does not allow for the analysis.
    """
    if dipole.ndim != 3 or dipole.shape[2] != 3:
        raise PaiNNFastError("not a series of dipoles", got=f"shape {dipole.shape}", expected="[S, T, 3]")
    analysis = analysis or Analysis()
    correlation = correlate(dipole, interval, analysis)
    return InfraredSpectrum.of(correlation, temperature, analysis, correction=correction)
