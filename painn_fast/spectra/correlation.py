"""Time-correlation functions of fluctuating quantities and their spectral densities.

Components are summed before anything else is done to them, so that relative intensities survive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from painn_fast.errors import PaiNNFastError
from painn_fast.spectra.window import resolution, window
from painn_fast.units import AMU_A2_PER_FS2, KB, SPEED_OF_LIGHT

SPACING = 1.0
"""cm-1 at most, between points of a spectrum."""
FEWEST_LAGS = 8
BLOCKS_OF_ONE = 4
"""Blocks that a single trajectory is cut into for its error."""


@dataclass(frozen=True)
class Analysis:
    """How a series becomes a spectrum.

    Attributes:
        window: "gaussian", "hann" or "blackman".
        depth: length of the correlation function, fs.
        highest: end of the spectrum, cm-1.
    """

    window: str = "gaussian"
    depth: float = 2000.0
    highest: float = 4000.0

    @property
    def resolution(self) -> float:
        """Full width at half maximum of an infinitely sharp line, cm-1."""
        return resolution(self.window, self.depth)


@dataclass(frozen=True)
class Density:
    """A spectral density of each block (trajectory) on a grid of wavenumbers."""

    wavenumber: np.ndarray  # [K] cm-1
    blocks: np.ndarray  # [blocks, K]


def autocorrelation(series: np.ndarray, lags: int) -> np.ndarray:
    """<x(0) . x(t)>, summed over components, averaged over origins, of each trajectory.

    Args:
        series: [S, T, ...]; everything after T is a component.
        lags: number of lags, 0 included; at most T.

    Returns:
        [S, lags], each lag divided by the number of its own origins (unbiased).
    """
    steps = series.shape[1]
    flat = series.reshape(len(series), steps, -1)
    length = scipy.fft.next_fast_len(steps + lags, real=True)  # zero padding: nothing wraps around
    transform = scipy.fft.rfft(flat, length, axis=1)
    power = (transform.real**2 + transform.imag**2).sum(axis=2)
    return scipy.fft.irfft(power, length, axis=1)[:, :lags] / (steps - np.arange(lags))


def mode_density(series: np.ndarray, interval: float, temperature: float, analysis: Analysis) -> Density:
    """Spectral density of the velocity of x, scaled such that a harmonic mode integrates to |dx/dQ|^2.

        D(nu) = 2 c beta Integral <x_dot(0) . x_dot(t)> w(t) cos(2 pi c nu t) dt     over -depth..depth

    Q is the mass-weighted normal coordinate, whose velocity has the variance kB T classically and in the
    Kubo-transformed sense, which is what a bead average gives. x_dot is the difference of neighbouring frames divided
    by their interval; what that takes away from a frequency, (sin(omega dt/2) / (omega dt/2))^2, is given back.

    Args:
        series: x [S, T, ...], in a unit u.
        interval: between frames, fs.
        temperature: K.
        analysis: window, depth and range.

    Returns:
        u^2 / (Å^2 amu) per cm-1.

    Raises:
        PaiNNFastError: if the series is too short, not finite, or sampled too coarsely for the range.
    """
    lags = _check(series, interval, temperature, analysis)
    velocity = np.diff(in_blocks(series, lags), axis=1) / interval
    correlation = autocorrelation(velocity, lags) * window(analysis.window, lags)
    nu, transform = cosine_transform(correlation, interval, analysis.highest)
    half = np.pi * SPEED_OF_LIGHT * nu * interval  # omega dt / 2
    given_back = (1.0 / np.sinc(half / np.pi)) ** 2
    scale = 2.0 * SPEED_OF_LIGHT / (KB * temperature) * AMU_A2_PER_FS2
    return Density(nu, scale * given_back * transform)


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


def mean_and_error(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over blocks [B, K] and its standard error [K]; NaN for a single block."""
    count = len(blocks)
    if count < 2:
        return blocks.mean(axis=0), np.full(blocks.shape[1:], np.nan)
    return blocks.mean(axis=0), blocks.std(axis=0, ddof=1) / np.sqrt(count)


def in_blocks(series: np.ndarray, lags: int) -> np.ndarray:
    """Trajectories [S, T, ...] as they are; one alone in blocks, if it has two correlation depths or more for each."""
    if len(series) > 1:
        return series
    count = max(1, min(BLOCKS_OF_ONE, series.shape[1] // (2 * lags + 1)))
    length = series.shape[1] // count
    return series[0, : count * length].reshape(count, length, *series.shape[2:])


def nyquist(interval: float) -> float:
    """Highest wavenumber that frames at this interval (fs) can tell, cm-1."""
    return 0.5 / (SPEED_OF_LIGHT * interval)


def _check(series: np.ndarray, interval: float, temperature: float, analysis: Analysis) -> int:
    """Number of lags, after making sure that the series allows for them."""
    if series.ndim < 2 or len(series) == 0:
        raise PaiNNFastError("not a series of trajectories", got=f"shape {series.shape}", expected="[S, T, ...]")
    if not np.isfinite(series).all():
        trajectory, frame = (int(i) for i in np.argwhere(~np.isfinite(series))[0][:2])
        raise PaiNNFastError("a series that is not finite", where=f"trajectory {trajectory}, frame {frame}")
    for name, value in (("interval", interval), ("temperature", temperature), ("depth", analysis.depth)):
        if not value > 0:
            raise PaiNNFastError(f"{name} must be positive", got=value)
    if not 0 < analysis.highest <= nyquist(interval):
        raise PaiNNFastError(
            "the spectrum goes beyond what the frames can tell",
            got=f"{analysis.highest:g} cm-1",
            expected=f"at most {nyquist(interval):.0f} cm-1 for one frame every {interval:g} fs",
            fix="record more often (dipole_every, polarizability_every) or lower `highest`",
        )
    lags = round(analysis.depth / interval)
    if not FEWEST_LAGS <= lags < series.shape[1]:
        raise PaiNNFastError(
            "the correlation depth does not fit the run",
            got=f"{analysis.depth:g} fs",
            expected=f"{FEWEST_LAGS * interval:g} to {(series.shape[1] - 1) * interval:g} fs, as long as a trajectory",
            fix="set depth lower, or duration higher",
        )
    return lags
