"""Gaussian noise from a counter, on whatever device the trajectories are."""

from __future__ import annotations

from torch import Tensor

from painn_fast.kernels.random import cpu, reference


def normal(seed: int, trajectory: Tensor, step: int, count: int, stream: int = 0) -> Tensor:
    """Standard normal numbers [S, count] float64, the same on every device; see `reference.normal`."""
    backend = cpu if trajectory.device.type == "cpu" else reference
    return backend.normal(seed, trajectory, step, count, stream)
