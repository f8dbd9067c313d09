"""Anharmonic lines of a model by second-order perturbation theory (GVPT2)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ase
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.nn import Potential
from painn_fast.units import AMU_A2_PER_FS2, HBAR, SPEED_OF_LIGHT
from painn_fast.vibrations.derivatives import Compute, atoms_at_once
from painn_fast.vibrations.fourth_order import force_field
from painn_fast.vibrations.harmonic import KM_PER_MOL, HarmonicSpectrum, harmonic, invariants_squared
from painn_fast.vibrations.one_mode import exact_fundamentals, perturbed_fundamentals
from painn_fast.vibrations.perturbation import Levels, State, levels

LARGE_AMPLITUDE = 500.0
"""cm-1: a torsion below stays harmonic and takes no part, since it is no small vibration about one minimum."""
UNLIKE_FOURTH_ORDER = 30.0
"""cm-1: the error of the expansion along one mode from which a line is in doubt; ethanol's O-H has about 20."""


@dataclass(frozen=True)
class AnharmonicSpectrum:
    """Transitions from the vibrational ground state, L of them, in order of their wavenumber.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import anharmonic
        >>> lines = anharmonic(pf.load("ethanol"), molecule("CH3CH2OH"))
        >>> stretch = len(lines.harmonic.wavenumber) - 1
        >>> bool(3650 < lines.fundamentals[stretch] < 3780), lines.left_harmonic
        (True, (0, 1))
    """

    harmonic: HarmonicSpectrum  # of K modes
    active: tuple[int, ...]  # modes that take part
    wavenumber: np.ndarray  # [L] cm-1
    states: tuple[State, ...]  # excited modes of the leading basis state, one entry a quantum
    share: np.ndarray  # [L], weight of the leading basis state
    intensity: np.ndarray | None  # [L] km/mol, None for a model without dipole
    activity: np.ndarray | None  # [L] Raman activity, Å^4/amu, None for a model without polarizability
    resonances: tuple[tuple[State, State], ...]  # Fermi resonances, such as ((3, 4), (7,))
    zero_point: float  # cm-1, harmonic for the modes that stay so
    expansion_error: np.ndarray  # [K] cm-1
    """Of the fundamental of each mode alone, perturbed less exact; NaN for modes that stay harmonic."""

    @property
    def doubtful(self) -> tuple[int, ...]:
        """Modes along which the model's potential is not one of fourth order: their lines are not to be trusted."""
        return tuple(int(k) for k in np.flatnonzero(np.abs(self.expansion_error) > UNLIKE_FOURTH_ORDER))

    @property
    def left_harmonic(self) -> tuple[int, ...]:
        """Modes that take no part."""
        return tuple(sorted(set(range(len(self.harmonic.wavenumber))) - set(self.active)))

    @property
    def fundamentals(self) -> np.ndarray:
        """Wavenumber of one quantum in each mode [K], cm-1; the harmonic one of modes that take no part."""
        result = self.harmonic.wavenumber.copy()
        for value, state in zip(self.wavenumber, self.states, strict=True):
            if len(state) == 1:
                result[state[0]] = value
        return result

    def about(self) -> dict[str, str]:
        """Resonances, modes that stay harmonic, lines in doubt and zero-point energy, for the header of a table."""
        pairs = [
            "{} = {}".format(*(" + ".join(str(k + 1) for k in state) for state in pair)) for pair in self.resonances
        ]
        return {
            "Fermi resonances": ", ".join(pairs) or "none",
            "large amplitude, harmonic": ", ".join(self._named(k) for k in self.left_harmonic) or "none",
            "in doubt, error of the mode alone": ", ".join(self._doubts()) or "none",
            "zero-point energy": f"{self.zero_point:.1f} cm-1",
        }

    def _named(self, mode: int) -> str:
        return f"{mode + 1} ({self.harmonic.names[mode]})"

    def _doubts(self) -> list[str]:
        return [f"{self._named(k)} {self.expansion_error[k]:+.0f} cm-1" for k in self.doubtful]

    def label(self, line: int) -> str:
        """A line by its modes, counted from 1: "12", "2x5" for an overtone, "3 + 7" for a combination."""
        state = self.states[line]
        counted = {mode: state.count(mode) for mode in state}
        return " + ".join(f"{count}x{mode + 1}" if count > 1 else str(mode + 1) for mode, count in counted.items())


def anharmonic(model: Potential, atoms: ase.Atoms, *, lines: HarmonicSpectrum | None = None) -> AnharmonicSpectrum:
    """Fundamentals, overtones and binary combinations of a molecule, with resonances and intensities.

    Cubic and semi-quartic force constants and second and third derivatives of dipole and polarizability are taken by
    central differences along normal modes, all displaced structures in batches on the engine. Along each mode alone the
    model's potential is solved exactly too: where perturbation theory of that mode is off, its line is in doubt.

    Args:
        model: with an energy; dipole and polarizability give intensities.
        atoms: in vacuum; isotopes by their masses.
        lines: of `harmonic` for this model and molecule, where they are known already.

    Returns:
        The lines. Torsions below 500 cm-1 stay harmonic and take no part; above 30 modes, overtones and combinations
        are only those that resonate with fundamentals.

    Raises:
        PaiNNFastError: if the structure does not fit the model, does not relax, or is not a minimum.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import anharmonic
        >>> lines = anharmonic(pf.load("ethanol"), molecule("CH3CH2OH"))
        >>> shift = lines.fundamentals[-1] - lines.harmonic.wavenumber[-1]
        >>> bool(-200 < shift < -100)  # of O-H, cm-1
        True
    """
    lines = harmonic(model, atoms) if lines is None else lines
    active = np.array([k for k in range(len(lines.names)) if not _large_amplitude(lines, k)], dtype=int)
    if (lines.wavenumber[active] <= 0).any():
        raise PaiNNFastError(
            "perturbation theory needs a minimum",
            where=lines.atoms.get_chemical_formula(),
            got=f"imaginary frequencies of {(lines.wavenumber < 0).sum()} modes",
            fix="start from another structure",
        )
    taking_part = lines.atoms, lines.wavenumber[active], lines.modes[active]
    field = force_field(_on_engine(model), *taking_part)
    diagonal = np.einsum("iii->i", field.cubic), np.einsum("iii->i", field.quartic)
    exact = exact_fundamentals(lambda moved: _evaluated(model, moved, ("energy",))["energy"], *taking_part)
    error = np.full(len(lines.names), np.nan)
    error[active] = perturbed_fundamentals(field.omega, *diagonal) - exact
    spectrum = _spectrum(model, lines, active, levels(field), error)
    if spectrum.doubtful:
        warnings.warn(
            f"perturbation theory of {lines.atoms.get_chemical_formula()} fails along modes that the model's potential "
            f"makes no oscillators of fourth order: {', '.join(spectrum._doubts())} off for the mode alone; do not "
            "trust these lines; structures so far from the minimum among the training data help",
            UserWarning,
            stacklevel=2,
        )
    return spectrum


def _large_amplitude(lines: HarmonicSpectrum, mode: int) -> bool:
    return lines.wavenumber[mode] < LARGE_AMPLITUDE and lines.names[mode].endswith("torsion")


def _on_engine(model: Potential) -> Compute:
    names = ("forces", *(name for name in ("dipole", "polarizability") if name in model.properties))

    return lambda moved: _evaluated(model, moved, names)


def _evaluated(model: Potential, moved: list[ase.Atoms], names: tuple[str, ...]) -> Mapping[str, Any]:
    evaluate(model, moved[:1], names)  # a new engine checks itself on its first batch
    return evaluate(model, moved, names, atoms_per_batch=atoms_at_once(model))


def _spectrum(
    model: Potential, lines: HarmonicSpectrum, active: np.ndarray, result: Levels, error: np.ndarray
) -> AnharmonicSpectrum:
    scale = 2.0 * 2.0 * np.pi * SPEED_OF_LIGHT * result.energy * AMU_A2_PER_FS2 / HBAR  # |d/dQ|^2 of |<0|q|1>|^2
    intensity = activity = None
    moments = result.moments
    if "dipole" in model.properties:
        intensity = KM_PER_MOL * scale * (moments[:3] ** 2).sum(axis=0)
        moments = moments[3:]
    if "polarizability" in model.properties:
        isotropic, anisotropic = invariants_squared(moments.T.reshape(-1, 3, 3))
        activity = scale * (45.0 * isotropic + 7.0 * anisotropic)
    rest = np.delete(lines.wavenumber, active)
    return AnharmonicSpectrum(
        harmonic=lines,
        active=tuple(int(k) for k in active),
        wavenumber=result.energy,
        states=tuple(tuple(int(active[k]) for k in state) for state in result.states),
        share=result.share,
        intensity=intensity,
        activity=activity,
        resonances=tuple(
            (tuple(int(active[k]) for k in one), tuple(int(active[k]) for k in other)) for one, other in result.fermi
        ),
        zero_point=result.zero_point + float(rest[rest > 0].sum()) / 2.0,
        expansion_error=error,
    )
