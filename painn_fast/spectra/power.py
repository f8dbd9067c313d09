"""Power spectrum, the vibrational density of states, from velocities along trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from painn_fast.correlation.online import Correlation
from painn_fast.correlation.series import mass_weighted
from painn_fast.errors import PaiNNFastError
from painn_fast.spectra.density import Analysis, correlate, integral, spectral_density, standard_error


@dataclass(frozen=True)
class PowerSpectrum:
    """Degrees of freedom per wavenumber, of all atoms and of those of each element.

    Example:
        >>> import numpy as np
        >>> from painn_fast.spectra import Analysis, PowerSpectrum, SpectrumStreams
        >>> streams = SpectrumStreams({"velocities": 2.0}, 200.0, symbols=["O", "H"], masses=[15.999, 1.008])
        >>> for frame in 0.01 * np.random.default_rng(0).normal(size=(300, 4, 1, 2, 3)):  # [S, P, N, 3] Å/fs
        ...     streams.push("velocities", frame)
        >>> spectrum = PowerSpectrum.of(streams.correlations("velocities"), 300.0, Analysis(depth=200.0))
        >>> list(spectrum.elements), bool(np.allclose(sum(spectrum.elements.values()), spectrum.density))
        (['H', 'O'], True)
    """

    wavenumber: np.ndarray  # [K] cm-1
    density: np.ndarray  # [K] 1/cm-1
    error: np.ndarray  # [K] standard error of the mean over trajectories, NaN for a single block
    elements: dict[str, np.ndarray]  # each [K] 1/cm-1, lightest first; their sum is `density`
    analysis: Analysis
    interval: float  # fs
    temperature: float  # K
    model_error: np.ndarray | None = None  # [K] of the mean over a committee, standard deviation between its models

    @classmethod
    def of(cls, correlations: Mapping[str, Correlation], temperature: float, analysis: Analysis) -> PowerSpectrum:
        """From the correlation of `mass_weighted` velocities of each element; the rest as in `power`."""
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
        return integral(self.wavenumber, self.density, low, high)


def power(
    velocities: np.ndarray,
    symbols: Sequence[str],
    masses: np.ndarray,
    interval: float,
    temperature: float,
    analysis: Analysis | None = None,
) -> PowerSpectrum:
    """Spectral density of mass-weighted velocities, D(nu) = 2 c beta Sum m Integral <v(0) . v(t)> cos(2 pi c nu t) dt.

    A harmonic mode integrates to 1, the whole spectrum to the 3 N degrees of freedom, less 3 if the centre of mass
    rests, times the ratio of the temperature of the atoms to the one given.

    Args:
        velocities: [S, T, N, 3] Å/fs of S trajectories; of centroids for ring polymers.
        symbols: of the N atoms.
        masses: [N] amu.
        interval: between frames, fs.
        temperature: K.
        analysis: window, correlation depth, range.

    Returns:
        The spectrum, modes per cm-1, with standard errors over trajectories.

    Raises:
        PaiNNFastError: if the series does not allow for the analysis.

    Example:
        >>> import numpy as np
        >>> from painn_fast.spectra import Analysis, power
        >>> omega = 2 * np.pi * 2.99792458e-5 * 1700  # 1/fs, of a bond at 1700 cm-1
        >>> speed = 0.02 * np.sin(omega * 2.0 * np.arange(2000))  # Å/fs, a frame every 2 fs
        >>> velocities = speed[None, :, None, None] * np.array([[1.0, 0.0, 0.0], [-1.0 / 16, 0.0, 0.0]])
        >>> spectrum = power(velocities, ["H", "O"], np.array([1.0, 16.0]), 2.0, 300.0, Analysis(depth=1000.0))
        >>> round(float(spectrum.wavenumber[spectrum.density.argmax()]))
        1700
    """
    if velocities.ndim != 4 or velocities.shape[2:] != (len(symbols), 3):
        raise PaiNNFastError(
            "not a series of velocities", got=f"shape {velocities.shape}", expected=f"[S, T, {len(symbols)}, 3]"
        )
    analysis = analysis or Analysis()
    parts = mass_weighted(velocities, symbols, masses)
    correlations = {name: correlate(part, interval, analysis, differences=False) for name, part in parts.items()}
    return PowerSpectrum.of(correlations, temperature, analysis)
