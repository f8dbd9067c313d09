"""Peaks of a spectrum: positions, intensities, and the vibrations that they belong to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.signal
from scipy.special import erf

from painn_fast.spectra.infrared import InfraredSpectrum
from painn_fast.spectra.raman import RamanSpectrum
from painn_fast.vibrations.assignment import joined
from painn_fast.vibrations.harmonic import HarmonicSpectrum

PROMINENCE = 0.02
"""Least prominence of a listed peak, relative to the highest one among the vibrations."""
SIGNIFICANT = 1.5
"""Least prominence of a peak, in standard errors."""
VIBRATIONS_FROM = 150.0
"""cm-1: below, rotation may be far stronger than any vibration and does not set the scale."""
BAND = 0.012
"""Width (standard deviation) relative to the wavenumber of the band that a harmonic mode may become."""
BAND_AT_LEAST = 25.0
"""cm-1."""
TORSION = 0.2
"""The same for torsions, which are far from harmonic at room temperature."""
OVERLAP_WIDTH = 60.0
"""cm-1, of the Gaussians (standard deviation) that harmonic lines become when their shift is fitted."""
BESIDE = 0.4
"""Share, relative to the leading vibration, from which another one of its kind is named beside it."""
HALF = 0.5
"""Part of the height of a peak below which a spectrum does not count for its centre: tails reach far."""
FAINT = 0.1
"""Share of a peak that harmonic modes must explain to name it."""


@dataclass(frozen=True)
class Peak:
    """One peak. `height` and `error` in the spectrum's unit, `intensity` in km/mol (infrared) or Å^4/amu (Raman).

    Example:
        >>> from painn_fast.spectra import Peak
        >>> peak = Peak(3650.0, height=1.2, error=0.1, intensity=40.0, width=30.0, low=3500.0, high=3800.0)
        >>> peak.name, peak.mode is None
        ('unassigned', True)
    """

    position: float  # cm-1, of the maximum
    height: float
    error: float  # of the height
    intensity: float  # integral from `low` to `high`
    width: float  # full width at half maximum, cm-1
    low: float  # cm-1, valley or end of the band
    high: float  # cm-1
    name: str = "unassigned"
    mode: int | None = None  # nearest harmonic mode, counted from 1 in order of wavenumber
    harmonic: float | None = None  # its wavenumber, cm-1
    depolarisation: float | None = None  # Raman only
    conformer: str | None = None  # of the harmonic mode, in a mixture
    centre: float = float("nan")  # cm-1, mean over the band above half its height, weighted by intensity


@dataclass(frozen=True)
class Shift:
    """The map from harmonic to anharmonic wavenumbers: nu = nu_h (1 - constant - slope nu_h / 4000 cm-1)."""

    constant: float = 0.0
    slope: float = 0.0

    def __call__(self, wavenumber: np.ndarray) -> np.ndarray:
        return wavenumber * (1.0 - self.constant - self.slope * wavenumber / 4000.0)


def infrared_peaks(
    spectrum: InfraredSpectrum, harmonic: HarmonicSpectrum | None = None, shift: Shift | None = None
) -> list[Peak]:
    """Find the peaks of an infrared spectrum.

    Args:
        spectrum: infrared.
        harmonic: modes with intensities, which name the peaks.
        shift: of the harmonic lines, as by `fit_shift`; None for none.

    Returns:
        Peaks in order of wavenumber, cm-1; intensities in km/mol.

    Example:
        >>> import numpy as np
        >>> from painn_fast.spectra import Analysis, infrared, infrared_peaks
        >>> time = 2.0 * np.arange(2000)  # fs
        >>> waves = [np.cos(2 * np.pi * 2.99792458e-5 * nu * time) for nu in (1000, 2500)]
        >>> dipole = np.stack([0.02 * waves[0], 0.01 * waves[1], 0 * time], axis=-1)[None]
        >>> spectrum = infrared(dipole, 2.0, 300.0, Analysis(depth=1000.0))
        >>> [round(peak.position) for peak in infrared_peaks(spectrum)]
        [1000, 2500]
    """
    peaks = _peaks(spectrum.wavenumber, spectrum.intensity, spectrum.error, spectrum.analysis.resolution)
    peaks = [replace(peak, intensity=spectrum.integral(peak.low, peak.high)) for peak in peaks]
    return _named(peaks, harmonic, None if harmonic is None else harmonic.intensity, shift)


def raman_peaks(
    spectrum: RamanSpectrum, harmonic: HarmonicSpectrum | None = None, shift: Shift | None = None
) -> list[Peak]:
    """Find the peaks of the Stokes cross-section.

    Args:
        spectrum: Raman.
        harmonic: modes with activities, which name the peaks.
        shift: of the harmonic lines, as by `fit_shift`; None for none.

    Returns:
        Peaks in order of wavenumber, cm-1; intensities are integrals of the activity, Å^4/amu.

    Example:
        >>> import numpy as np
        >>> from painn_fast.spectra import Analysis, raman, raman_peaks
        >>> time = 2.0 * np.arange(2000)  # fs
        >>> breathing = 0.1 * np.cos(2 * np.pi * 2.99792458e-5 * 1000 * time)
        >>> spectrum = raman(breathing[None, :, None, None] * np.eye(3), 2.0, 300.0, Analysis(depth=1000.0))
        >>> (peak,) = raman_peaks(spectrum)
        >>> round(peak.position), round(peak.depolarisation, 2)
        (1000, 0.0)
    """
    peaks = _peaks(spectrum.wavenumber, spectrum.stokes, spectrum.stokes_error, spectrum.analysis.resolution)
    peaks = [
        replace(
            peak,
            intensity=spectrum.integral(peak.low, peak.high),
            depolarisation=spectrum.integrated_depolarisation(peak.low, peak.high),
        )
        for peak in peaks
    ]
    return _named(peaks, harmonic, None if harmonic is None else harmonic.activity, shift)


def fit_shift(
    harmonic: HarmonicSpectrum, infrared: InfraredSpectrum | None = None, raman: RamanSpectrum | None = None
) -> Shift:
    """Fit the smooth red shift of harmonic lines that overlaps best with the spectra.

    Overlap is Bhattacharyya's, the integral of sqrt(f g) of two normalised spectra; lines are broadened to 60 cm-1.

    Args:
        harmonic: modes with intensities or activities.
        infrared: a spectrum of the same molecule.
        raman: another one.

    Returns:
        A function from harmonic wavenumbers [K] cm-1 to shifted ones.

    Example:
        >>> import numpy as np
        >>> from types import SimpleNamespace
        >>> from painn_fast.spectra import Analysis, fit_shift, infrared
        >>> time = 2.0 * np.arange(2000)  # fs
        >>> vibration = np.cos(2 * np.pi * 2.99792458e-5 * 2900 * time)
        >>> spectrum = infrared(vibration[None, :, None] * np.array([0.02, 0, 0]), 2.0, 300.0, Analysis(depth=1000.0))
        >>> modes = SimpleNamespace(wavenumber=np.array([3000.0]), intensity=np.array([80.0]), activity=None)
        >>> bool(abs(fit_shift(modes, spectrum)(modes.wavenumber)[0] - 2900) < 20)
        True
    """
    pairs = []
    if infrared is not None and harmonic.intensity is not None:
        pairs.append((infrared.wavenumber, infrared.intensity, harmonic.intensity))
    if raman is not None and harmonic.activity is not None:
        pairs.append((raman.wavenumber, raman.activity, harmonic.activity))
    grid = [Shift(float(a), float(b)) for a in np.arange(-0.01, 0.0451, 0.005) for b in np.arange(0.0, 0.0601, 0.005)]
    return max(grid, key=lambda shift: sum(_overlap(shift(harmonic.wavenumber), *pair) for pair in pairs))


def _overlap(lines: np.ndarray, nu: np.ndarray, spectrum: np.ndarray, weights: np.ndarray) -> float:
    inside = nu >= VIBRATIONS_FROM
    every = max(1, round(OVERLAP_WIDTH / 12.0 / max(nu[1] - nu[0], 1e-9)))
    nu, spectrum = nu[inside][::every], np.maximum(spectrum[inside][::every], 0.0)
    broad = np.exp(-0.5 * ((nu[:, None] - lines) / OVERLAP_WIDTH) ** 2) @ weights
    return float(np.sqrt(broad * spectrum).sum() / np.sqrt(max(broad.sum() * spectrum.sum(), 1e-300)))


def _peaks(nu: np.ndarray, values: np.ndarray, error: np.ndarray, resolution: float) -> list[Peak]:
    known = np.isfinite(values)
    y = np.interp(nu, nu[known], values[known]) if known.any() else np.zeros_like(nu)
    needed = PROMINENCE * y[nu >= VIBRATIONS_FROM].max(initial=0.0)
    if not needed > 0:
        return []
    apart = max(1.0, 0.5 * resolution / (nu[1] - nu[0]))
    visible, facts = scipy.signal.find_peaks(y, prominence=needed, distance=apart)
    tops = visible[facts["prominences"] >= SIGNIFICANT * np.nan_to_num(error[visible])]
    limits = [_limits(y, top, visible) for top in tops]  # a peak that is not significant ends a band all the same
    lows, highs = np.array(limits, dtype=int).reshape(-1, 2).T.copy()
    widths = scipy.signal.peak_widths(y, tops, prominence_data=(y[tops], lows, highs))[0]  # or to a valley above half
    return [
        Peak(
            position=_vertex(nu, y, top),
            height=float(y[top]),
            error=float(error[top]),
            intensity=0.0,
            width=float(width * (nu[1] - nu[0])),
            low=float(nu[low]),
            high=float(nu[high]),
            centre=centre_of(nu[low : high + 1], y[low : high + 1], HALF),
        )
        for top, low, high, width in zip(tops, lows, highs, widths, strict=True)
    ]


def centre_of(nu: np.ndarray, values: np.ndarray, core: float) -> float:
    """Mean wavenumber of a band [K], weighted by what is above this part of its height; NaN without any."""
    weight = np.maximum(values - core * values.max(), 0.0)
    return float(np.average(nu, weights=weight)) if weight.sum() > 0 else float("nan")


def _limits(y: np.ndarray, top: int, tops: np.ndarray) -> tuple[int, int]:
    """First and last point of a peak: the deepest valley towards the next peak, or where 1 % of the height is left."""
    before, after = tops[tops < top], tops[tops > top]
    start, end = (before[-1] if len(before) else 0), (after[0] if len(after) else len(y) - 1)
    low = int(start + np.argmin(y[start : top + 1]))
    high = int(top + np.argmin(y[top : end + 1]))
    faint = np.flatnonzero(y[low : high + 1] < 0.01 * y[top]) + low
    left, right = faint[faint < top], faint[faint > top]
    return (int(left[-1]) if len(left) else low), (int(right[0]) if len(right) else high)


def _vertex(nu: np.ndarray, y: np.ndarray, top: int) -> float:
    """Top of the parabola through a maximum and its neighbours."""
    a, b, c = y[top - 1 : top + 2]
    bend = a - 2.0 * b + c
    offset = 0.5 * (a - c) / bend if bend < 0 else 0.0
    return float(nu[top] + np.clip(offset, -0.5, 0.5) * (nu[1] - nu[0]))


def _named(
    peaks: list[Peak], harmonic: HarmonicSpectrum | None, lines: np.ndarray | None, shift: Shift | None
) -> list[Peak]:
    if harmonic is None or lines is None or len(lines) == 0:
        return peaks
    nu = (shift or Shift())(harmonic.wavenumber)
    return [_name(peak, harmonic, nu, lines) for peak in peaks]


def _name(peak: Peak, harmonic: HarmonicSpectrum, nu: np.ndarray, lines: np.ndarray) -> Peak:
    """Name a peak after the modes whose bands, at their shifted wavenumbers, have most intensity within its width."""
    if peak.high < 0.7 * nu[nu > 0].min(initial=np.inf):
        return replace(peak, name="rotation")
    relative = np.array([TORSION if name.endswith("torsion") else BAND for name in harmonic.names])
    width = np.sqrt(2.0) * np.maximum(relative * np.abs(nu), BAND_AT_LEAST)
    half = 0.5 * max(peak.width, BAND_AT_LEAST)
    given = 0.5 * lines * (erf((peak.position + half - nu) / width) - erf((peak.position - half - nu) / width))
    if not given.sum() > FAINT * peak.intensity:
        return peak
    shares: dict[str, float] = {}
    for name, value in zip(harmonic.names, given, strict=True):
        shares[name] = shares.get(name, 0.0) + float(value)
    leading = max(shares, key=lambda name: shares[name])
    kind = leading.split(" ", 1)[-1]
    beside = [name for name in shares if name.endswith(kind) and shares[name] >= BESIDE * shares[leading]]
    best = int(np.argmax(given))
    return replace(
        peak,
        name=joined(beside) if " " in leading else leading,
        mode=best + 1,
        harmonic=float(harmonic.wavenumber[best]),
        conformer=None if harmonic.conformer is None else harmonic.conformers[harmonic.conformer[best]][0],
    )
