"""Main bands of a molecule: groups of harmonic modes, and where each method puts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from painn_fast.spectra.infrared import InfraredSpectrum
from painn_fast.spectra.peaks import VIBRATIONS_FROM, Shift, fit_shift
from painn_fast.spectra.raman import RamanSpectrum
from painn_fast.vibrations.harmonic import HarmonicSpectrum

GAP = 150.0
"""cm-1 between harmonic lines of one name that are two bands."""
MAIN = 0.03
"""Of the strongest band: weaker ones are not listed."""
FAINT = 0.01
"""Of the strongest mode: weaker ones belong to no band."""
NEIGHBOUR = 0.1
"""Of a band's intensity: a line this strong ends its window half way."""
REACH = 0.04
"""Of the wavenumber: how far a band may be from where the smooth shift of the harmonic lines puts it."""
REACH_AT_LEAST = 50.0
"""cm-1."""
CORE = 0.05
"""Of the height: what is lower does not count for the centre."""


@dataclass(frozen=True)
class Place:
    """Where a method puts a band."""

    centre: float  # cm-1, mean over the band, weighted by intensity
    error: float  # of the centre, from blocks; NaN if there is but one
    peak: float  # cm-1, where it is highest
    intensity: float  # over the window, km/mol (infrared) or Å^4/amu (Raman)


@dataclass(frozen=True)
class Band:
    """Modes of one name that lie together, and the band that each method makes of them."""

    spectrum: str  # "infrared" or "Raman"
    name: str
    modes: tuple[int, ...]  # counted from 1 in order of wavenumber
    harmonic: float  # cm-1, mean over the modes, weighted by intensity
    intensity: float  # harmonic, km/mol or Å^4/amu
    places: dict[str, Place]  # by method


Spectra = tuple[InfraredSpectrum | None, RamanSpectrum | None]


def compare_bands(harmonic: HarmonicSpectrum, spectra: Mapping[str, Spectra]) -> list[Band]:
    """Main bands of both spectra in order of wavenumber.

    Of each method the harmonic lines are shifted, smoothly, to where they overlap best with its spectra; a band is what
    lies around the shifted lines of its modes, as far as half the way to the next line of weight.

    Args:
        harmonic: modes with intensities.
        spectra: infrared and Raman of each method, by its name.
    """
    shifts = {label: fit_shift(harmonic, *one) for label, one in spectra.items()}
    found = []
    for kind, weights in (("infrared", harmonic.intensity), ("Raman", harmonic.activity)):
        if weights is None:
            continue
        groups = _groups(harmonic, weights)
        strongest = max((weights[group].sum() for group in groups), default=0.0)
        for group in groups:
            if not weights[group].sum() > MAIN * strongest:
                continue
            places = {}
            for label, (infrared, raman) in spectra.items():
                window = _window(group, harmonic.wavenumber, weights, shifts[label])
                if kind == "infrared" and infrared is not None:
                    curve = infrared.wavenumber, infrared.intensity, infrared.blocks, infrared.weights
                elif kind == "Raman" and raman is not None:
                    curve = raman.wavenumber, raman.activity, raman.blocks, raman.weights
                else:
                    continue
                places[label] = _place(*curve, *window)
            if places:
                found.append(_band(kind, group, harmonic, weights, places))
    return found


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


def _place(
    nu: np.ndarray,
    mean: np.ndarray,
    blocks: np.ndarray | None,
    weights: np.ndarray | None,
    low: float,
    high: float,
) -> Place:
    """The error of the centre is that of the jackknife: leave out one block after the other."""
    inside = (nu >= low) & (nu <= high)
    x, y = nu[inside], mean[inside]
    error = float("nan")
    if blocks is not None and weights is not None and len(blocks) > 1:
        share = weights[:, None]
        without = (y - share * blocks[:, inside]) / (1.0 - share)
        centres = np.array([_centre(x, one) for one in without])
        error = float(np.sqrt((len(blocks) - 1) * np.mean((centres - centres.mean()) ** 2)))
    return Place(_centre(x, y), error, float(x[np.argmax(y)]), float(np.trapezoid(y, x)))


def _centre(nu: np.ndarray, values: np.ndarray) -> float:
    weight = np.maximum(values - CORE * values.max(), 0.0)
    return float(np.average(nu, weights=weight)) if weight.sum() > 0 else float("nan")


def _band(
    kind: str, group: np.ndarray, harmonic: HarmonicSpectrum, weights: np.ndarray, places: dict[str, Place]
) -> Band:
    return Band(
        spectrum=kind,
        name=harmonic.names[group[0]],
        modes=tuple(int(k) + 1 for k in group),
        harmonic=float(np.average(harmonic.wavenumber[group], weights=weights[group])),
        intensity=float(weights[group].sum()),
        places=places,
    )
