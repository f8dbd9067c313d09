"""Derivatives with respect to positions: Hessian, atomic polar tensors, polarizability derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

from painn_fast.graph import AtomicBatch
from painn_fast.nn.potential import Potential


def position_jacobian(potential: Potential, batch: AtomicBatch, name: str) -> Tensor:
    """Derivative of a property of ONE molecule with respect to its positions.

    Args:
        potential: any dtype; float64 for clean Hessians.
        batch: one molecule of n atoms.
        name: "forces", "dipole", "polarizability" or another property; its shape is [...].

    Returns:
        [..., n, 3], the property's unit per Å.
    """
    positions = batch.positions.detach().requires_grad_()
    with torch.enable_grad():
        results = potential(batch.with_positions(positions), (name,), create_graph=True)
    value = results[name] if name in ("forces", "charges") else results[name][0]
    components = value.reshape(-1)
    rows = [_row(component, positions, last=k == len(components) - 1) for k, component in enumerate(components)]
    return torch.stack(rows).reshape(*value.shape, *positions.shape)


def _row(component: Tensor, positions: Tensor, *, last: bool) -> Tensor:
    if not component.requires_grad:
        return torch.zeros_like(positions)
    return torch.autograd.grad(component, positions, retain_graph=not last, materialize_grads=True)[0]


def hessian(potential: Potential, batch: AtomicBatch) -> Tensor:
    """Second derivative of the energy of ONE molecule [3 n, 3 n] eV/Å², symmetrised."""
    n = batch.n_total
    matrix = -position_jacobian(potential, batch, "forces").reshape(3 * n, 3 * n)
    return 0.5 * (matrix + matrix.T)


def dipole_derivative(potential: Potential, batch: AtomicBatch) -> Tensor:
    """Atomic polar tensors d mu / d R of ONE molecule [3, n, 3], e."""
    return position_jacobian(potential, batch, "dipole")


def polarizability_derivative(potential: Potential, batch: AtomicBatch) -> Tensor:
    """d alpha / d R of ONE molecule [3, 3, n, 3], Å²."""
    return position_jacobian(potential, batch, "polarizability")
