"""Harmonic lines of a model beside those of the method that it learned."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import ase
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.learn.minima import modes
from painn_fast.learn.surface import MethodForces
from painn_fast.nn import Potential
from painn_fast.vibrations.conformers import Conformers, conformers
from painn_fast.vibrations.minima import minima

MOST = 3
"""Conformers whose lines are compared, the most populated ones."""


@dataclass(frozen=True)
class Lines:
    """Of one conformer, in order of wavenumber."""

    name: str
    model: np.ndarray  # [K] cm-1
    method: np.ndarray  # [K] cm-1
    model_intensity: np.ndarray | None  # [K] km/mol
    method_intensity: np.ndarray | None  # [K] km/mol

    @property
    def mean(self) -> float:
        """Mean difference, cm-1."""
        return float(np.abs(self.model - self.method).mean())

    @property
    def worst(self) -> float:
        """Largest difference, cm-1."""
        return float(np.abs(self.model - self.method).max())

    @property
    def correlation(self) -> float | None:
        """Of infrared intensities."""
        if self.model_intensity is None or self.method_intensity is None:
            return None
        return float(np.corrcoef(self.model_intensity, self.method_intensity)[0, 1])


def conformers_of(model: Potential, starts: Sequence[ase.Atoms], temperature: float) -> Conformers:
    """Conformers of a model; the roughness of its surface is in the report, and not a warning too.

    Raises:
        PaiNNFastError: if the model has no minimum with the bonds of the molecule.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return conformers(model, starts, temperature=temperature)
        except PaiNNFastError as error:
            raise error.replaced(fix="the model is not good enough: more labels, or more training steps") from None


def compared(listed: Conformers, surface: MethodForces) -> list[Lines]:
    """Lines of conformers, each relaxed on both surfaces; differences over 0.01 and 0.02 Å on both."""
    chosen = listed.members[:MOST]
    starts: Sequence[ase.Atoms] = [one.atoms for one in chosen]
    relaxed, _ = minima(surface.evaluated, list(starts))
    own = [modes(surface, one) for one in relaxed]
    return [
        Lines(one.name, one.lines.wavenumber, right.wavenumber, one.lines.intensity, right.intensity)
        for one, right in zip(chosen, own, strict=True)
    ]
