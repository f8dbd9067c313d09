"""Gaussian noise that depends on (seed, trajectory, step, degree of freedom) and on nothing else."""

from painn_fast.kernels.random.ops import normal

__all__ = ["normal"]
