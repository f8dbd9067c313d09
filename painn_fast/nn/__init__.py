"""PaiNN as the paper has it: representation, heads, and the potential made of them."""

from typing import TYPE_CHECKING

from painn_fast.runtime.lazy import lazy

if TYPE_CHECKING:
    from painn_fast.nn.config import (
        DipoleHead,
        ElectronicConfig,
        EnergyHead,
        PolarizabilityHead,
        PotentialConfig,
        RepresentationConfig,
        ScalarHead,
        SpatialExtentHead,
    )
    from painn_fast.nn.derivatives import dipole_derivative, hessian, polarizability_derivative, position_jacobian
    from painn_fast.nn.painn import PaiNN
    from painn_fast.nn.potential import Potential

__all__ = [
    "DipoleHead",
    "ElectronicConfig",
    "EnergyHead",
    "PaiNN",
    "PolarizabilityHead",
    "Potential",
    "PotentialConfig",
    "RepresentationConfig",
    "ScalarHead",
    "SpatialExtentHead",
    "dipole_derivative",
    "hessian",
    "polarizability_derivative",
    "position_jacobian",
]

lazy(__name__)
