"""Main bands of a molecule: groups of harmonic modes, and their positions by each method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.integrate import trapezoid

from painn_fast.spectra.infrared import InfraredSpectrum
from painn_fast.spectra.peaks import VIBRATIONS_FROM, Shift, centre_of, fit_shift
from painn_fast.spectra.raman import RamanSpectrum
from painn_fast.vibrations.harmonic import HarmonicSpectrum

GAP = 150.0
"""cm-1 between harmonic lines of one name from which they are two bands."""
MAIN = 0.03
"""Least intensity of a listed band, relative to the strongest one."""
FAINT = 0.01
"""Least intensity of a mode in a band, relative to the strongest mode."""
NEIGHBOUR = 0.1
"""Intensity, relative to the band's, of a line that ends the window of the band half way."""
REACH = 0.08
"""Largest distance of a band from the smoothly shifted harmonic lines, relative to the wavenumber. A window has to hold
the O-H stretch of T-RPMD, 190 cm-1 wide, or its ends decide where the centre is, and trajectories seem to agree."""
REACH_AT_LEAST = 50.0
"""cm-1."""
CORE = 0.05
"""Part of the height below which a spectrum does not count for the centre."""


@dataclass(frozen=True)
class BandPosition:
    """Position and intensity of a band by one method."""

    centre: float  # cm-1, mean over the band, weighted by intensity
    error: float  # of the centre, from blocks; NaN for a single block
    peak: float  # cm-1, where it is highest
    intensity: float  # over the window, km/mol (infrared) or Å^4/amu (Raman)


@dataclass(frozen=True)
class Band:
    """Neighbouring modes of one name, and their band by each method.

    Example:
        >>> from painn_fast.spectra import Band
        >>> band = Band("infrared", "O-H stretch", modes=(21,), harmonic=3921.0, intensity=43.0, positions={})
        >>> band.modes
        (21,)
    """

    spectrum: str  # "infrared" or "Raman"
    name: str
    modes: tuple[int, ...]  # counted from 1 in order of wavenumber
    harmonic: float  # cm-1, mean over the modes, weighted by intensity
    intensity: float  # harmonic, km/mol or Å^4/amu
    positions: dict[str, BandPosition]  # by method


Spectra = tuple[InfraredSpectrum | None, RamanSpectrum | None]


def compare_bands(harmonic: HarmonicSpectrum, spectra: Mapping[str, Spectra]) -> list[Band]:
    """Find the main bands of both spectra.

    For each method the harmonic lines are shifted, smoothly, to the best overlap with its spectra; a band is the part
    of the spectrum around the shifted lines of its modes, up to half the distance to the next strong line.

    Args:
        harmonic: modes with intensities.
        spectra: infrared and Raman of each method, by its name.

    Returns:
        Infrared bands, then Raman ones, each in order of wavenumber.

    Example:
        >>> import numpy as np
        >>> from types import SimpleNamespace
        >>> from painn_fast.spectra import Analysis, compare_bands, infrared
        >>> time = 2.0 * np.arange(2000)  # fs
        >>> vibration = np.cos(2 * np.pi * 2.99792458e-5 * 1650 * time)
        >>> spectrum = infrared(vibration[None, :, None] * np.array([0.02, 0, 0]), 2.0, 300.0, Analysis(depth=1000.0))
        >>> modes = SimpleNamespace(
        ...     wavenumber=np.array([1700.0]), intensity=np.array([80.0]), activity=None, names=("H-O-H bend",)
        ... )
        >>> (band,) = compare_bands(modes, {"classical": (spectrum, None)})
        >>> f"{band.name}: {band.positions['classical'].centre:.0f} cm-1, harmonic {band.harmonic:.0f} cm-1"
        'H-O-H bend: 1650 cm-1, harmonic 1700 cm-1'
    """
    shifts = {label: fit_shift(harmonic, *one) for label, one in spectra.items()}
    bands = []
    for kind, weights in (("infrared", harmonic.intensity), ("Raman", harmonic.activity)):
        if weights is None:
            continue
        groups = _groups(harmonic, weights)
        strongest = max((weights[group].sum() for group in groups), default=0.0)
        for group in groups:
            if not weights[group].sum() > MAIN * strongest:
                continue
            positions = {}
            for label, (infrared, raman) in spectra.items():
                window = _window(group, harmonic.wavenumber, weights, shifts[label])
                if kind == "infrared" and infrared is not None:
                    curve = infrared.wavenumber, infrared.intensity, infrared.blocks, infrared.weights
                elif kind == "Raman" and raman is not None:
                    curve = raman.wavenumber, raman.activity, raman.blocks, raman.weights
                else:
                    continue
                positions[label] = _position(*curve, *window)
            if positions:
                bands.append(_band(kind, group, harmonic, weights, positions))
    return bands


def _groups(harmonic: HarmonicSpectrum, weights: np.ndarray) -> list[np.ndarray]:
    """Indices of neighbouring modes of one name without a wide gap, vibrations that can be seen only."""
    nu = harmonic.wavenumber
    groups: list[list[int]] = []
    for k in np.flatnonzero((nu > VIBRATIONS_FROM) & (weights > FAINT * weights.max(initial=0.0))):
        last = groups[-1][-1] if groups else None
        if last is not None and harmonic.names[last] == harmonic.names[k] and nu[k] - nu[last] <= GAP:
            groups[-1].append(int(k))
        else:
            groups.append([int(k)])
    return [np.array(group) for group in groups]


def _window(group: np.ndarray, nu: np.ndarray, weights: np.ndarray, shift: Shift) -> tuple[float, float]:
    """Ends of a band, cm-1."""
    lines = shift(nu)
    first, last = float(lines[group].min()), float(lines[group].max())
    low, high = (end + sign * max(REACH * end, REACH_AT_LEAST) for end, sign in ((first, -1.0), (last, 1.0)))
    others = np.delete(lines, group)[np.delete(weights, group) > NEIGHBOUR * weights[group].sum()]
    below, above = others[others < first], others[others > last]
    if len(below):
        low = max(low, 0.5 * (first + float(below.max())))
    if len(above):
        high = min(high, 0.5 * (last + float(above.min())))
    return low, high


def _position(
    nu: np.ndarray,
    mean: np.ndarray,
    blocks: np.ndarray | None,
    weights: np.ndarray | None,
    low: float,
    high: float,
) -> BandPosition:
    """The error of the centre is that of the jackknife: leave out one block after the other."""
    inside = (nu >= low) & (nu <= high)
    x, y = nu[inside], mean[inside]
    error = float("nan")
    if blocks is not None and weights is not None and len(blocks) > 1:
        share = weights[:, None]
        without = (y - share * blocks[:, inside]) / (1.0 - share)
        centres = np.array([centre_of(x, one, CORE) for one in without])
        error = float(np.sqrt((len(blocks) - 1) * np.mean((centres - centres.mean()) ** 2)))
    return BandPosition(centre_of(x, y, CORE), error, float(x[np.argmax(y)]), float(trapezoid(y, x)))


def _band(
    kind: str, group: np.ndarray, harmonic: HarmonicSpectrum, weights: np.ndarray, positions: dict[str, BandPosition]
) -> Band:
    return Band(
        spectrum=kind,
        name=harmonic.names[group[0]],
        modes=tuple(int(k) + 1 for k in group),
        harmonic=float(np.average(harmonic.wavenumber[group], weights=weights[group])),
        intensity=float(weights[group].sum()),
        positions=positions,
    )
