"""Minima, Hessians, harmonic and anharmonic lines of a model."""

from typing import TYPE_CHECKING

from painn_fast.runtime.lazy import lazy

if TYPE_CHECKING:
    from painn_fast.vibrations.anharmonic import AnharmonicSpectrum, anharmonic
    from painn_fast.vibrations.batch_relax import Relaxed, relax_many
    from painn_fast.vibrations.committee import CommitteeAnharmonic, CommitteeLines, committee, committee_anharmonic
    from painn_fast.vibrations.conformers import Conformer, Conformers, conformers
    from painn_fast.vibrations.derivatives import hessian
    from painn_fast.vibrations.harmonic import HarmonicSpectrum, Roughness, harmonic, harmonic_many, roughness
    from painn_fast.vibrations.relax import relax
    from painn_fast.vibrations.sticks import Sticks, sticks
    from painn_fast.vibrations.thermochemistry import Thermochemistry, thermochemistry

__all__ = [
    "AnharmonicSpectrum",
    "CommitteeAnharmonic",
    "CommitteeLines",
    "Conformer",
    "Conformers",
    "HarmonicSpectrum",
    "Relaxed",
    "Roughness",
    "Sticks",
    "Thermochemistry",
    "anharmonic",
    "committee",
    "committee_anharmonic",
    "conformers",
    "harmonic",
    "harmonic_many",
    "hessian",
    "relax",
    "relax_many",
    "roughness",
    "sticks",
    "thermochemistry",
]

lazy(__name__)
