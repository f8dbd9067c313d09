"""Gaussian noise from a counter, on whatever device the trajectories are."""

from __future__ import annotations

from torch import Tensor

from painn_fast.kernels.backend import backend


def normal(seed: int | Tensor, trajectory: Tensor, step: int | Tensor, count: int, stream: int = 0) -> Tensor:
    """Standard normal numbers [S, count] float64, the same on every device; see `reference.normal`.

    `step` may also be an int64 tensor [1]; with Triton it is read on the device, as a CUDA graph needs.
    """
    numbers: Tensor = backend("random", trajectory.device.type).normal(seed, trajectory, step, count, stream)
    return numbers
