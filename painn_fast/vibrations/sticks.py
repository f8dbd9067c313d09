"""Lines with intensities, harmonic or anharmonic, as a picture or a table takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from painn_fast.vibrations.anharmonic import AnharmonicSpectrum
from painn_fast.vibrations.harmonic import HarmonicSpectrum


@dataclass(frozen=True)
class Sticks:
    """Transitions from the vibrational ground state, L of them, in order of their wavenumber.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import harmonic, sticks
        >>> lines = sticks(harmonic(pf.load("ethanol"), molecule("CH3CH2OH")))
        >>> lines.labels[-1], lines.names[-1], len(lines.intensity)
        ('21', 'O-H stretch', 21)
    """

    wavenumber: np.ndarray  # [L] cm-1
    intensity: np.ndarray | None  # infrared [L] km/mol, None for a model without dipole
    activity: np.ndarray | None  # Raman [L] Å^4/amu, None for a model without polarizability
    names: tuple[str, ...]  # such as "O-H stretch", "2 x C-O stretch", "C-O stretch + O-H bend"
    labels: tuple[str, ...]  # modes, counted from 1: "12", "2x5", "3 + 7"
    quanta: np.ndarray  # [L], 1 for fundamentals
    anharmonic: np.ndarray  # [L], false for modes that are treated as harmonic
    conformer: np.ndarray | None = None  # [L] of a mixture, in which intensities have the weight of their conformer
    conformers: tuple[tuple[str, float], ...] = ()  # names and populations

    @property
    def kind(self) -> str:
        """Of the lines as a whole."""
        return "anharmonic" if self.anharmonic.any() else "harmonic"

    @property
    def fundamental_activity(self) -> np.ndarray | None:
        """Raman activity of fundamentals [L]; NaN of other lines, whose intensities are of first order only."""
        return None if self.activity is None else np.where(self.quanta == 1, self.activity, np.nan)


def sticks(spectrum: HarmonicSpectrum | AnharmonicSpectrum) -> Sticks:
    """Lines of a molecule with intensities.

    Args:
        spectrum: of `harmonic` or `anharmonic`.

    Returns:
        Of a harmonic spectrum the fundamentals that are not imaginary. Of an anharmonic one fundamentals, overtones
        and combinations, and the harmonic fundamentals of modes that stay so; Raman activities of overtones and
        combinations are of first order.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import anharmonic, sticks
        >>> lines = sticks(anharmonic(pf.load("ethanol"), molecule("CH3CH2OH")))
        >>> overtone = lines.labels.index("2x21")
        >>> lines.names[overtone], bool(7100 < lines.wavenumber[overtone] < 7450)
        ('2 x O-H stretch', True)
    """
    lines = spectrum.harmonic if isinstance(spectrum, AnharmonicSpectrum) else spectrum
    own = spectrum if isinstance(spectrum, AnharmonicSpectrum) else None
    modes = [k for k in (own.left_harmonic if own else range(len(lines.names))) if lines.wavenumber[k] > 0]
    states = [(k,) for k in modes] + list(own.states if own else ())
    wavenumber = np.concatenate([lines.wavenumber[modes], own.wavenumber if own else []])
    order = np.argsort(wavenumber, kind="stable")

    def sorted_values(harmonic: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
        if harmonic is None:
            return None
        return np.concatenate([harmonic[modes], other if other is not None else []])[order]

    return Sticks(
        wavenumber=wavenumber[order],
        intensity=sorted_values(lines.intensity, own.intensity if own else None),
        activity=sorted_values(lines.activity, own.activity if own else None),
        names=tuple(_joined([lines.names[k] for k in states[i]], states[i], " x ") for i in order),
        labels=tuple(_joined([str(k + 1) for k in states[i]], states[i], "x") for i in order),
        quanta=np.array([len(states[i]) for i in order], dtype=int),
        anharmonic=order >= len(modes),
        conformer=None if lines.conformer is None else lines.conformer[[states[i][0] for i in order]],
        conformers=lines.conformers,
    )


def mixture(parts: Sequence[tuple[str, float, Sticks]]) -> Sticks:
    """Lines of a mixture of conformers, from name, population and lines of each; of a single one its own."""
    if len(parts) == 1:
        return parts[0][2]
    order = np.argsort(np.concatenate([one.wavenumber for _, _, one in parts]), kind="stable")

    def joined(name: str, *, weighted: bool = False) -> Any:
        values = [(share if weighted else 1, getattr(one, name)) for _, share, one in parts]
        if any(value is None for _, value in values):
            return None
        return np.concatenate([share * value if weighted else np.asarray(value) for share, value in values])[order]

    return Sticks(
        wavenumber=joined("wavenumber"),
        intensity=joined("intensity", weighted=True),
        activity=joined("activity", weighted=True),
        names=tuple(joined("names").tolist()),
        labels=tuple(joined("labels").tolist()),
        quanta=joined("quanta"),
        anharmonic=joined("anharmonic"),
        conformer=np.repeat(np.arange(len(parts)), [len(one.wavenumber) for _, _, one in parts])[order],
        conformers=tuple((name, share) for name, share, _ in parts),
    )


def _joined(names: list[str], state: tuple[int, ...], times: str) -> str:
    """A state by the names of its quanta: "2x5", "3 + 7"."""
    counted = {mode: (state.count(mode), name) for mode, name in zip(state, names, strict=True)}
    return " + ".join(f"{count}{times}{name}" if count > 1 else name for count, name in counted.values())
