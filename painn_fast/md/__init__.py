"""Dynamics: many trajectories of many beads in one batch."""

from typing import TYPE_CHECKING

from painn_fast.runtime.lazy import lazy

if TYPE_CHECKING:
    from painn_fast.md.export import export
    from painn_fast.md.force_field import ForceField
    from painn_fast.md.forces import ModelForces
    from painn_fast.md.run import run
    from painn_fast.md.settings import MDSettings
    from painn_fast.md.trajectory import Trajectory

__all__ = ["ForceField", "MDSettings", "ModelForces", "Trajectory", "export", "run"]

lazy(__name__)
