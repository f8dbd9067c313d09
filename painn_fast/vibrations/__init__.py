"""Minima, Hessians and harmonic lines of a model."""

from typing import TYPE_CHECKING

from painn_fast.runtime.lazy import lazy

if TYPE_CHECKING:
    from painn_fast.vibrations.conformers import Conformer, Conformers, conformers
    from painn_fast.vibrations.derivatives import hessian
    from painn_fast.vibrations.harmonic import HarmonicSpectrum, Roughness, harmonic, roughness
    from painn_fast.vibrations.relax import relax

__all__ = [
    "Conformer",
    "Conformers",
    "HarmonicSpectrum",
    "Roughness",
    "conformers",
    "harmonic",
    "hessian",
    "relax",
    "roughness",
]

lazy(__name__)
