"""A time step of ring-polymer dynamics, without the forces."""

from painn_fast.kernels.ring.ops import steps
from painn_fast.kernels.ring.reference import Ring, Steps

__all__ = ["Ring", "Steps", "steps"]
