"""Gaussian noise from a counter, on whatever device the trajectories are."""

from __future__ import annotations

from importlib.util import find_spec

from torch import Tensor

from painn_fast.kernels.random import cpu, reference

TRITON = find_spec("triton") is not None


def normal(seed: int | Tensor, trajectory: Tensor, step: int | Tensor, count: int, stream: int = 0) -> Tensor:
    """Standard normal numbers [S, count] float64, the same on every device; see `reference.normal`.

    `step` may also be an int64 tensor [1]; with Triton it is read on the device, as a CUDA graph needs.
    """
    if trajectory.device.type == "cuda" and TRITON:
        from painn_fast.kernels.random import triton

        return triton.normal(seed, trajectory, step, count, stream)
    backend = cpu if trajectory.device.type == "cpu" else reference
    return backend.normal(seed, trajectory, int(step), count, stream)
