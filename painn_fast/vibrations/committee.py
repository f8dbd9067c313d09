"""Lines of one molecule by several models: their means, and their spread as the error of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from painn_fast.errors import PaiNNFastError
from painn_fast.vibrations.anharmonic import AnharmonicSpectrum
from painn_fast.vibrations.harmonic import HarmonicSpectrum

SAME = 0.3
"""Å, root mean square: minima of the members of a committee that are further apart are different conformers."""


@dataclass(frozen=True)
class CommitteeLines:
    """Means over the models, and standard deviations between them (with M - 1 for M models).

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import committee, harmonic
        >>> models = [pf.load("ethanol"), pf.load("ethanol")]  # of which one would not be trained like the other
        >>> lines = committee([harmonic(model, molecule("CH3CH2OH")) for model in models])
        >>> lines.members, float(lines.wavenumber_error.max())
        (2, 0.0)
    """

    lines: HarmonicSpectrum  # minimum, modes and names of the first model
    wavenumber_error: np.ndarray  # [K] cm-1
    intensity_error: np.ndarray | None  # [K] km/mol, None for models without dipole
    activity_error: np.ndarray | None  # [K] Å^4/amu, None for models without polarizability
    members: int


@dataclass(frozen=True)
class CommitteeAnharmonic:
    """Means over the models, and standard deviations between them (with M - 1 for M models).

    A state that another model mixes so much that it leads no line there has the values of the first model, and errors
    that are NaN.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import anharmonic, committee_anharmonic
        >>> one = anharmonic(pf.load("ethanol"), molecule("CH3CH2OH"))
        >>> both = committee_anharmonic([one, one])  # of which one would be of another model
        >>> float(both.wavenumber_error.max()), both.harmonic.members
        (0.0, 2)
    """

    lines: AnharmonicSpectrum  # modes, states and resonances of the first model, in order of its lines
    wavenumber_error: np.ndarray  # [L] cm-1
    intensity_error: np.ndarray | None  # [L] km/mol, None for models without dipole
    activity_error: np.ndarray | None  # [L] Å^4/amu, None for models without polarizability
    zero_point_error: float  # cm-1
    harmonic: CommitteeLines

    def errors(self, name: str) -> dict[str, float]:
        """Errors of "wavenumber", "intensity" or "activity" by the labels of lines; of modes that stay harmonic too."""
        own, plain = getattr(self, f"{name}_error"), getattr(self.harmonic, f"{name}_error")
        if own is None or plain is None:
            return {}
        result = {str(k + 1): float(plain[k]) for k in self.lines.left_harmonic}
        return result | {self.lines.label(i): float(error) for i, error in enumerate(own)}


def committee(spectra: Sequence[HarmonicSpectrum]) -> CommitteeLines:
    """Combine the lines of one minimum by several models; modes are matched by their overlap, not by their order.

    Args:
        spectra: of `harmonic`, one a model.

    Returns:
        Means and standard deviations, in order of the lines of the first model.

    Raises:
        PaiNNFastError: for less than two, or minima that are different structures.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import committee, harmonic
        >>> lines = harmonic(pf.load("ethanol"), molecule("CH3CH2OH"))
        >>> float(committee([lines, lines]).intensity_error.max())
        0.0
    """
    if len(spectra) < 2:
        raise PaiNNFastError("a committee needs two models or more", got=len(spectra))
    first = spectra[0]
    order = [_order(first, one, k) for k, one in enumerate(spectra)]

    nu, nu_error = _required(_mean_and_error(spectra, "wavenumber", order))
    intensity, intensity_error = _mean_and_error(spectra, "intensity", order)
    lines = replace(
        first,
        wavenumber=nu,
        intensity=intensity,
        isotropic=_mean_and_error(spectra, "isotropic", order)[0],
        anisotropic=_mean_and_error(spectra, "anisotropic", order)[0],
        roughness=None,
    )
    activity_error = _mean_and_error(spectra, "activity", order)[1]
    return CommitteeLines(lines, nu_error, intensity_error, activity_error, len(spectra))


def committee_anharmonic(spectra: Sequence[AnharmonicSpectrum]) -> CommitteeAnharmonic:
    """Combine the anharmonic lines of one minimum by several models; states are matched by the overlap of their modes.

    Args:
        spectra: of `anharmonic`, one a model.

    Returns:
        Means and standard deviations, in order of the lines of the first model.

    Raises:
        PaiNNFastError: for less than two, or minima that are different structures.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import anharmonic, committee_anharmonic
        >>> one = anharmonic(pf.load("ethanol"), molecule("CH3CH2OH"))
        >>> bool(committee_anharmonic([one, one]).lines.zero_point == one.zero_point)
        True
    """
    plain = committee([one.harmonic for one in spectra])
    first = spectra[0]
    rows = np.zeros((len(spectra), len(first.states)), dtype=int)
    for k, one in enumerate(spectra):
        mode = np.argsort(_order(first.harmonic, one.harmonic, k))  # of the first, for each of this model
        where = {tuple(sorted(mode[list(state)].tolist())): i for i, state in enumerate(one.states)}
        rows[k] = [where.get(tuple(sorted(state)), -1) for state in first.states]

    nu, nu_error = _required(_mean_and_error(spectra, "wavenumber", rows))
    intensity, intensity_error = _mean_and_error(spectra, "intensity", rows)
    activity, activity_error = _mean_and_error(spectra, "activity", rows)
    zero_points = [one.zero_point for one in spectra]
    lines = replace(
        first,
        harmonic=plain.lines,
        wavenumber=nu,
        intensity=intensity,
        activity=activity,
        zero_point=float(np.mean(zero_points)),
    )
    zero_point_error = float(np.std(zero_points, ddof=1))
    return CommitteeAnharmonic(lines, nu_error, intensity_error, activity_error, zero_point_error, plain)


def _mean_and_error(
    spectra: Sequence[Any], name: str, rows: Sequence[np.ndarray] | np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Over the models [L], from the rows of each; -1 is a line that a model lacks. None where a model has no values."""
    each = [getattr(one, name) for one in spectra]
    if any(one is None for one in each):
        return None, None
    values = np.array([one[own] for one, own in zip(each, rows, strict=True)])
    everywhere = (np.array(rows) >= 0).all(axis=0)
    mean, error = values.mean(axis=0), values.std(axis=0, ddof=1)
    return np.where(everywhere, mean, values[0]), np.where(everywhere, error, np.nan)


def _required(values: tuple[np.ndarray | None, np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
    """Of what every model has."""
    mean, error = values
    assert mean is not None
    assert error is not None
    return mean, error


def _order(first: HarmonicSpectrum, other: HarmonicSpectrum, number: int) -> np.ndarray:
    """For each mode of the first the mode of the other that overlaps most, each once [K]."""
    masses = first.atoms.get_masses()
    places = [one.atoms.positions - one.atoms.get_center_of_mass() for one in (first, other)]
    if places[0].shape != places[1].shape or (first.atoms.numbers != other.atoms.numbers).any():
        raise PaiNNFastError("lines of different molecules", where=f"model {number}", fix="one molecule for all models")
    left, _, right = np.linalg.svd(places[1].T @ (masses[:, None] * places[0]))
    turn = left @ right  # a mirror image has the same lines
    distance = float(np.sqrt(((places[1] @ turn - places[0]) ** 2).sum(axis=1).mean()))
    if distance > SAME or len(first.wavenumber) != len(other.wavenumber):
        raise PaiNNFastError(
            "models of a committee relax to different minima",
            where=f"model {number}",
            got=f"{distance:.2f} Å apart",
            expected=f"at most {SAME} Å",
            fix="start each from the minimum of the first",
        )
    overlap = np.einsum("a,kai,lai->kl", masses, first.modes, other.modes @ turn) ** 2
    return np.asarray(linear_sum_assignment(-overlap)[1])
