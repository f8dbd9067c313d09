"""Spectral densities of fluctuating quantities, from their time correlation functions.

Components are summed before anything else is done to them, so that relative intensities survive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from scipy.integrate import trapezoid

from painn_fast.correlation.online import Correlation, velocity_correlation
from painn_fast.errors import PaiNNFastError
from painn_fast.spectra.window import resolution, window
from painn_fast.units import AMU_A2_PER_FS2, KB, SPEED_OF_LIGHT

SPACING = 1.0
"""cm-1 at most, between points of a spectrum."""
FEWEST_LAGS = 8
NARROWEST = 10.0
"""cm-1: least end of a spectrum."""


@dataclass(frozen=True)
class Analysis:
    """Parameters of the analysis of a series.

    Attributes:
        window: "gaussian", "hann" or "blackman".
        depth: length of the correlation function, fs.
        highest: end of the spectrum, cm-1.
        time_step: of velocity Verlet or ring-polymer dynamics, fs, whose shift of frequencies is corrected; 0 corrects
            nothing.

    Example:
        >>> from painn_fast.spectra import Analysis
        >>> analysis = Analysis("hann", depth=1000.0, time_step=0.5)
        >>> analysis.lags(2.0), f"{analysis.resolution:.0f} cm-1", f"{analysis.shown(3700.0):.0f} cm-1"
        (500, '33 cm-1', '3719 cm-1')
    """

    window: str = "gaussian"
    depth: float = 2000.0
    highest: float = 4000.0
    time_step: float = 0.0

    def lags(self, interval: float) -> int:
        """Lags of the correlation function of frames at this interval (fs); the window ends after the last one."""
        return round(self.depth / interval)

    def shown(self, wavenumber: float | np.ndarray) -> np.ndarray:
        """Apparent wavenumber of a harmonic mode, cm-1, at the time step: sin(omega' dt/2) = omega dt/2; NaN above."""
        if self.time_step == 0:
            return np.asarray(wavenumber, dtype=float)
        scale = np.pi * SPEED_OF_LIGHT * self.time_step
        x = scale * np.asarray(wavenumber, dtype=float)
        return np.arcsin(np.where(x < 1, x, np.nan)) / scale

    @property
    def resolution(self) -> float:
        """Full width at half maximum of an infinitely sharp line, cm-1."""
        return resolution(self.window, self.depth)


@dataclass(frozen=True)
class Density:
    """A spectral density on a grid of wavenumbers: as a whole, and of each block (trajectory) for the error."""

    wavenumber: np.ndarray  # [K] cm-1
    mean: np.ndarray  # [K]
    blocks: np.ndarray  # [B, K]
    weights: np.ndarray  # [B]


def correlate(series: np.ndarray, interval: float, analysis: Analysis, *, differences: bool = True) -> Correlation:
    """Autocorrelation of the velocity of a series, to the depth of the analysis.

    Args:
        series: x [S, T, ...], or its velocity.
        interval: between frames, fs.
        analysis: its depth counts.
        differences: whether the series is x, or its velocity.

    Raises:
        PaiNNFastError: if the series is too short or not finite.
    """
    if series.ndim < 2 or len(series) == 0:
        raise PaiNNFastError("not a series of trajectories", got=f"shape {series.shape}", expected="[S, T, ...]")
    if not np.isfinite(series).all():
        trajectory, frame = (int(i) for i in np.argwhere(~np.isfinite(series))[0][:2])
        raise PaiNNFastError("a series that is not finite", where=f"trajectory {trajectory}, frame {frame}")
    _check_positive(interval=interval, depth=analysis.depth)
    return velocity_correlation(
        series, _lags(analysis, interval, series.shape[1] - differences), interval, differences=differences
    )


def spectral_density(correlation: Correlation, temperature: float, analysis: Analysis) -> Density:
    """Spectral density of the velocity of x, scaled such that a harmonic mode integrates to |dx/dQ|^2.

        D(nu) = 2 c beta Integral <x_dot(0) . x_dot(t)> w(t) cos(2 pi c nu t) dt     over -depth..depth

    Q is the mass-weighted normal coordinate, whose velocity has the variance kB T classically and in the
    Kubo-transformed sense, which is what a bead average gives. Where x_dot is the difference of neighbouring frames
    divided by their interval, this multiplies the density by (sin(omega dt/2) / (omega dt/2))^2, which is divided out.
    The effect of the time step on a harmonic mode is corrected: it appears at omega' > omega, and as BAOAB gives its
    positions the right variance, that of x_dot is omega'^2 / omega^2 times the right one, that of a recorded velocity
    1 - (omega dt/2)^2 times.

    Args:
        correlation: of x_dot, x in a unit u; at least as deep as the analysis.
        temperature: K.
        analysis: window, depth and range.

    Returns:
        u^2 / (Å^2 amu) per cm-1.

    Raises:
        PaiNNFastError: if the correlation is not deep enough, or sampled too coarsely for the range.
    """
    interval = correlation.interval
    _check_positive(interval=interval, temperature=temperature, depth=analysis.depth)
    _check_range(interval, analysis)
    lags = _lags(analysis, interval, correlation.lags)
    values = np.concatenate([correlation.mean[None, :lags], correlation.blocks[:, :lags]])
    nu, transform = cosine_transform(values * window(analysis.window, lags), interval, _reach(analysis))
    half = np.pi * SPEED_OF_LIGHT * nu * interval if correlation.differences else np.zeros_like(nu)  # omega dt / 2
    restored = (1.0 / np.sinc(half / np.pi)) ** 2
    density = 2.0 * SPEED_OF_LIGHT / (KB * temperature) * AMU_A2_PER_FS2 * restored * transform
    if analysis.time_step:
        nu, density = _without_time_step(nu, density, analysis, correlation.differences)
    return Density(nu, density[0], density[1:], correlation.weights)


def _reach(analysis: Analysis) -> float:
    """Apparent wavenumber of the end of the spectrum, cm-1."""
    return float(analysis.shown(analysis.highest))


def _without_time_step(
    nu: np.ndarray, density: np.ndarray, analysis: Analysis, differences: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Densities [., K] at the wavenumbers that harmonic modes would have without the error of the time step."""
    true = nu[nu <= analysis.highest * (1 + 1e-12)]
    shown = analysis.shown(true)
    x = np.pi * SPEED_OF_LIGHT * analysis.time_step * true  # omega dt / 2
    stretch = 1.0 / np.sqrt(1.0 - x**2)  # d nu' / d nu
    excess = np.divide(true, shown, out=np.ones_like(true), where=shown > 0) ** 2 if differences else 1.0 / (1.0 - x**2)
    return true, scipy.interpolate.CubicSpline(nu, density, axis=1)(shown) * stretch * excess


def cosine_transform(correlation: np.ndarray, interval: float, highest: float) -> tuple[np.ndarray, np.ndarray]:
    """Integral of an even function of time times cos(omega t), from minus to plus infinity.

    Args:
        correlation: [S, lags] at lags 0, 1, ...
        interval: fs.
        highest: cm-1.

    Returns:
        Wavenumbers [K] cm-1 from 0 to `highest`, and the transform [S, K], its unit times fs.
    """
    lags = correlation.shape[1]
    length = scipy.fft.next_fast_len(
        max(int(np.ceil(1.0 / (SPEED_OF_LIGHT * interval * SPACING))), 2 * lags), real=True
    )
    nu = scipy.fft.rfftfreq(length, interval * SPEED_OF_LIGHT)
    transform = interval * (2.0 * scipy.fft.rfft(correlation, length, axis=1).real - correlation[:, :1])
    kept = nu <= highest * (1 + 1e-12)
    return nu[kept], transform[:, kept]


def standard_error(mean: np.ndarray, blocks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of a mean [K] over independent blocks [B, K] with variances that go as 1 / weight; NaN for a single block."""
    if len(blocks) < 2:
        return np.full(blocks.shape[1:], np.nan)
    scatter = np.einsum("b,bk->k", weights, (blocks - mean) ** 2)
    return np.sqrt(scatter / (len(blocks) - 1))


def integral(wavenumber: np.ndarray, values: np.ndarray, low: float, high: float) -> float:
    """Integral of a spectrum [K] between two wavenumbers, cm-1."""
    inside = (wavenumber >= low) & (wavenumber <= high)
    return float(trapezoid(values[inside], wavenumber[inside]))


def nyquist(interval: float) -> float:
    """Highest wavenumber that frames at this interval (fs) resolve, cm-1."""
    return 0.5 / (SPEED_OF_LIGHT * interval)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise PaiNNFastError(f"{name} must be positive", got=value)


def _check_range(interval: float, analysis: Analysis) -> None:
    if 0 < analysis.highest < NARROWEST:
        raise PaiNNFastError(
            "too narrow a spectrum", where="highest", got=f"{analysis.highest:g} cm-1",
            expected=f"at least {NARROWEST:g} cm-1, a few of its points",
        )  # fmt: skip
    if not (analysis.highest > 0 and _reach(analysis) <= nyquist(interval) * (1 + 1e-12)):
        scale = np.pi * SPEED_OF_LIGHT * analysis.time_step
        limit = np.sin(scale * nyquist(interval)) / scale if scale else nyquist(interval)  # that appears below it
        raise PaiNNFastError(
            "the spectrum exceeds the Nyquist limit of the frames",
            got=f"{analysis.highest:g} cm-1",
            expected=f"at most {limit:.0f} cm-1 for one frame every {interval:g} fs",
            fix="record more often (dipole_every, polarizability_every, velocities_every) or lower `highest`",
        )


def _lags(analysis: Analysis, interval: float, most: int) -> int:
    """Number of lags, checked against the fewest and the most."""
    lags = analysis.lags(interval)
    if not FEWEST_LAGS <= lags <= most:
        raise PaiNNFastError(
            "the correlation depth does not fit the run",
            got=f"{analysis.depth:g} fs",
            expected=f"{FEWEST_LAGS * interval:g} to {most * interval:g} fs, within the trajectory or its correlation",
            fix="set depth lower, or duration higher",
        )
    return lags
