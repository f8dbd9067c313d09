"""Minima, Hessians, harmonic and anharmonic lines of a model."""

from typing import TYPE_CHECKING

from painn_fast.runtime.lazy import lazy

if TYPE_CHECKING:
    from painn_fast.vibrations.anharmonic import AnharmonicSpectrum, anharmonic
    from painn_fast.vibrations.derivatives import hessian
    from painn_fast.vibrations.harmonic import HarmonicSpectrum, Roughness, harmonic, roughness
    from painn_fast.vibrations.relax import relax

__all__ = [
    "AnharmonicSpectrum",
    "HarmonicSpectrum",
    "Roughness",
    "anharmonic",
    "harmonic",
    "hessian",
    "relax",
    "roughness",
]

lazy(__name__)
