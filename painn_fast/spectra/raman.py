"""Raman scattering from the polarizability along trajectories: Placzek's theory, Stokes side.

D. A. Long, The Raman Effect (Wiley, 2002), chapter 5; observation at 90 degrees to plane-polarised light.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from painn_fast.correlation.online import Correlation
from painn_fast.correlation.series import invariants
from painn_fast.errors import PaiNNFastError
from painn_fast.spectra.density import Analysis, correlate, integral, spectral_density, standard_error
from painn_fast.spectra.quantum import emission, quantum_correction
from painn_fast.units import AMU_A2_PER_FS2, HBAR, SPEED_OF_LIGHT
from painn_fast.vibrations.harmonic import depolarisation_ratio

LOWEST = 10.0
"""cm-1: below, where the line of elastic scattering is, the Stokes intensity is left out (NaN)."""


@dataclass(frozen=True)
class RamanSpectrum:
    """Scattering of one molecule. Arrays are [K]; `error` and `stokes_error` are standard errors over trajectories.

    `isotropic`, `anisotropic` and `activity` = 45 a^2 + 7 gamma^2 are in Å^4/amu per cm-1 and integrate to harmonic
    activities; `stokes` is the differential cross-section of parallel and perpendicular scattering together, in
    1e-30 cm^2/sr per cm-1, with the factors of laser and temperature.

    Example:
        >>> import numpy as np
        >>> from painn_fast.correlation import invariants, velocity_correlation
        >>> from painn_fast.spectra import Analysis, RamanSpectrum
        >>> alpha = np.random.default_rng(0).normal(size=(4, 1000, 3, 3))  # Å^3, of 4 trajectories
        >>> parts = [velocity_correlation(part, lags=200, interval=1.0) for part in invariants(alpha)]
        >>> spectrum = RamanSpectrum.of(*parts, 300.0, Analysis(depth=200.0), laser=785.0)
        >>> bool(np.allclose(spectrum.activity, 45 * spectrum.isotropic + 7 * spectrum.anisotropic))
        True
    """

    wavenumber: np.ndarray  # cm-1
    isotropic: np.ndarray  # a^2
    anisotropic: np.ndarray  # gamma^2
    activity: np.ndarray
    error: np.ndarray
    stokes: np.ndarray
    stokes_error: np.ndarray
    analysis: Analysis
    interval: float  # fs
    temperature: float  # K
    laser: float  # nm
    blocks: np.ndarray | None = None  # [B, K] activity of each trajectory, or parts of a single one
    weights: np.ndarray | None = None  # [B]
    model_error: np.ndarray | None = None  # of the mean activity of a committee, standard deviation between its models
    stokes_model_error: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        isotropic: Correlation,
        anisotropic: Correlation,
        temperature: float,
        analysis: Analysis,
        *,
        laser: float = 532.0,
        correction: str = "harmonic",
    ) -> RamanSpectrum:
        """From the correlations of the velocities of the two `invariants` of alpha; the rest as in `raman`."""
        _check_laser(laser, analysis)
        a, g = (spectral_density(part, temperature, analysis) for part in (isotropic, anisotropic))
        nu = a.wavenumber
        factor = quantum_correction(correction, nu, temperature)
        activity = factor * (45.0 * a.mean + 7.0 * g.mean)
        blocks = factor * (45.0 * a.blocks + 7.0 * g.blocks)
        error = standard_error(activity, blocks, a.weights)
        scattered = stokes_factor(nu, temperature, laser) / 45.0
        return cls(
            wavenumber=nu,
            isotropic=factor * a.mean,
            anisotropic=factor * g.mean,
            activity=activity,
            error=error,
            stokes=scattered * activity,
            stokes_error=scattered * error,
            analysis=analysis,
            interval=isotropic.interval,
            temperature=temperature,
            laser=laser,
            blocks=blocks,
            weights=a.weights,
        )

    @property
    def parallel(self) -> np.ndarray:
        """Stokes cross-section with the polarisation of the laser, 1e-30 cm^2/sr per cm-1."""
        return self._factor * (self.isotropic + 4.0 / 45.0 * self.anisotropic)

    @property
    def perpendicular(self) -> np.ndarray:
        """Stokes cross-section across the polarisation of the laser, 1e-30 cm^2/sr per cm-1."""
        return self._factor * self.anisotropic / 15.0

    @property
    def depolarisation(self) -> np.ndarray:
        """Ratio of perpendicular to parallel scattering: 0 for a breathing sphere, 3/4 at most."""
        return depolarisation_ratio(self.isotropic, self.anisotropic)

    @property
    def _factor(self) -> np.ndarray:
        return stokes_factor(self.wavenumber, self.temperature, self.laser)

    def integral(self, low: float, high: float) -> float:
        """Activity between two wavenumbers, Å^4/amu."""
        return integral(self.wavenumber, self.activity, low, high)

    def integrated_depolarisation(self, low: float, high: float) -> float:
        """Depolarisation ratio of the band between two wavenumbers."""
        isotropic, anisotropic = (
            np.array(integral(self.wavenumber, part, low, high)) for part in (self.isotropic, self.anisotropic)
        )
        return float(depolarisation_ratio(isotropic, anisotropic))


def raman(
    polarizability: np.ndarray,
    interval: float,
    temperature: float,
    analysis: Analysis | None = None,
    *,
    laser: float = 532.0,
    correction: str = "harmonic",
) -> RamanSpectrum:
    """Raman spectrum, from the correlations of the isotropic and the anisotropic part of alpha_dot.

    Args:
        polarizability: [S, T, 3, 3] Å^3 of S trajectories, means over beads for ring polymers.
        interval: between frames, fs.
        temperature: K.
        analysis: window, correlation depth, range.
        laser: wavelength of the exciting light, nm.
        correction: quantum correction factor for classical runs; "harmonic" is exact for ring polymers too.

    Returns:
        The spectrum: activities, Å^4/amu per cm-1, and Stokes cross-sections, 1e-30 cm^2/sr per cm-1.

    Raises:
        PaiNNFastError: if the series does not allow for the analysis, or the laser has too little energy for the range.

    Example:
        >>> import numpy as np
        >>> from painn_fast.spectra import Analysis, raman
        >>> breathing = 0.1 * np.cos(2 * np.pi * 2.99792458e-5 * 1000 * 2.0 * np.arange(2000))  # Å^3, every 2 fs
        >>> polarizability = breathing[None, :, None, None] * np.eye(3)
        >>> spectrum = raman(polarizability, interval=2.0, temperature=300.0, analysis=Analysis(depth=1000.0))
        >>> round(float(spectrum.wavenumber[spectrum.activity.argmax()])), spectrum.laser
        (1000, 532.0)
    """
    if polarizability.ndim != 4 or polarizability.shape[2:] != (3, 3):
        raise PaiNNFastError(
            "not a series of polarizabilities", got=f"shape {polarizability.shape}", expected="[S, T, 3, 3]"
        )
    analysis = analysis or Analysis()
    mean, deviator = invariants(polarizability)
    correlations = correlate(mean, interval, analysis), correlate(deviator, interval, analysis)
    return RamanSpectrum.of(*correlations, temperature, analysis, laser=laser, correction=correction)


def stokes_factor(wavenumber: np.ndarray, temperature: float, laser: float) -> np.ndarray:
    """From a^2 + 7 gamma^2 / 45 in Å^4/amu to a differential cross-section in 1e-30 cm^2/sr.

        (2 pi)^4 (nu0 - nu)^4  hbar / (4 pi c nu)  1 / (1 - exp(-h c nu / kB T))

    Args:
        wavenumber: Raman shift [K] cm-1; NaN comes out below 10 cm-1.
        temperature: K.
        laser: nm.
    """
    nu = np.where(np.asarray(wavenumber) >= LOWEST, wavenumber, np.nan)
    quantum = HBAR / (4.0 * np.pi * SPEED_OF_LIGHT * nu) / AMU_A2_PER_FS2  # amu Å^2
    light = (2.0 * np.pi * (1e7 / laser - nu)) ** 4  # cm^-4
    return 1e-18 * light * quantum * emission(nu, temperature)  # Å^6 cm^-4 = 1e-48 cm^2


def _check_laser(laser: float, analysis: Analysis) -> None:
    if not 0 < laser < 1e7 / analysis.highest:
        raise PaiNNFastError(
            "the laser cannot excite the whole range",
            where="laser",
            got=f"{laser:g} nm",
            expected=f"below {1e7 / analysis.highest:.0f} nm for shifts up to {analysis.highest:g} cm-1",
        )
