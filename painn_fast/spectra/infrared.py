"""Infrared absorption from the dipole along trajectories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from painn_fast.correlation.online import Correlation
from painn_fast.errors import PaiNNFastError
from painn_fast.spectra.density import Analysis, correlate, integral, spectral_density, standard_error
from painn_fast.spectra.quantum import quantum_correction
from painn_fast.vibrations.harmonic import KM_PER_MOL

DECADIC = 100.0 / np.log(10.0)
"""Molar decadic absorption coefficient, L/(mol cm), of 1 km/mol per cm-1."""


@dataclass(frozen=True)
class InfraredSpectrum:
    """Absorption of one molecule.

    Example:
        >>> import numpy as np
        >>> from painn_fast.spectra import Analysis, InfraredSpectrum, StreamingCorrelation
        >>> analysis = Analysis(depth=200.0)  # fs
        >>> stream = StreamingCorrelation(analysis.lags(1.0), interval=1.0)
        >>> stream.extend(np.random.default_rng(0).normal(size=(4, 1000, 3)))  # dipoles of 4 trajectories, e Å
        >>> spectrum = InfraredSpectrum.of(stream.correlation(), 300.0, analysis)
        >>> spectrum.intensity.shape == spectrum.error.shape == spectrum.wavenumber.shape
        True
    """

    wavenumber: np.ndarray  # [K] cm-1
    intensity: np.ndarray  # [K] km/mol per cm-1
    error: np.ndarray  # [K] standard error of the mean over trajectories, NaN if there is but one block
    analysis: Analysis
    interval: float  # fs
    temperature: float  # K
    blocks: np.ndarray | None = None  # [B, K] of each trajectory, or parts of a single one
    weights: np.ndarray | None = None  # [B]
    model_error: np.ndarray | None = None  # [K] of the mean over a committee, standard deviation between its models

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
        return integral(self.wavenumber, self.intensity, low, high)


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

    Returns:
        The spectrum, km/mol per cm-1, with standard errors over trajectories.

    Raises:
        PaiNNFastError: if the series does not allow for the analysis.

    Example:
        >>> import numpy as np
        >>> from painn_fast.spectra import Analysis, infrared
        >>> time = 2.0 * np.arange(2000)  # fs; a vibration at 1700 cm-1
        >>> dipole = np.cos(2 * np.pi * 2.99792458e-5 * 1700 * time)[None, :, None] * np.array([0.02, 0.0, 0.0])
        >>> spectrum = infrared(dipole, interval=2.0, temperature=300.0, analysis=Analysis(depth=1000.0))
        >>> f"{spectrum.wavenumber[spectrum.intensity.argmax()]:.0f} cm-1, {spectrum.integral(1600, 1800):.0f} km/mol"
        '1700 cm-1, 80 km/mol'
    """
    if dipole.ndim != 3 or dipole.shape[2] != 3:
        raise PaiNNFastError("not a series of dipoles", got=f"shape {dipole.shape}", expected="[S, T, 3]")
    analysis = analysis or Analysis()
    correlation = correlate(dipole, interval, analysis)
    return InfraredSpectrum.of(correlation, temperature, analysis, correction=correction)
