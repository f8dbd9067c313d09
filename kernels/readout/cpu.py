"""Energies from the last hidden layer on a CPU; exponentials are torch's: numba has none that are vectors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from painn_fast.kernels.jit import FAST, compiled


@compiled(nogil=True, fastmath=FAST)
def atoms_kernel(
    h: np.ndarray, sigma: np.ndarray, w: np.ndarray, b: np.ndarray, reference: np.ndarray, numbers: np.ndarray,
    atomic: np.ndarray,
) -> None:  # fmt: skip
    """atomic [N]; sigma [N, H] = sigmoid(h)."""
    for i in range(h.shape[0]):
        x, y = h[i], sigma[i]
        total = 0.0
        for c in range(h.shape[1]):
            total += np.float64(x[c] * y[c] * w[c])
        atomic[i] = total + b[0] + reference[numbers[i]]


@compiled(nogil=True, fastmath=FAST)
def adjoint_kernel(h: np.ndarray, sigma: np.ndarray, w: np.ndarray, g: np.ndarray) -> None:
    """g [N, H] = w silu'(h)."""
    one = h.dtype.type(1)
    for i in range(h.shape[0]):
        x, y, out = h[i], sigma[i], g[i]
        for c in range(h.shape[1]):
            out[c] = w[c] * y[c] * (one + x[c] * (one - y[c]))


@compiled(nogil=True)
def molecules_kernel(atomic: np.ndarray, atom_ptr: np.ndarray, total: np.ndarray) -> None:
    """total [M], atoms in order."""
    for m in range(total.shape[0]):
        energy = 0.0
        for i in range(atom_ptr[m], atom_ptr[m + 1]):
            energy += atomic[i]
        total[m] = energy


def readout(
    h: Tensor, w: Tensor, b: Tensor, reference: Tensor, numbers: Tensor, atom_ptr: Tensor, atomic: Tensor,
    total: Tensor, g: Tensor | None = None,
) -> None:  # fmt: skip
    """As `triton.readout`."""
    h, w, b, reference, numbers, atom_ptr = (t.detach().contiguous() for t in (h, w, b, reference, numbers, atom_ptr))
    given = (h.numpy(), torch.sigmoid(h).numpy(), w.numpy())
    atoms_kernel(*given, b.numpy(), reference.numpy(), numbers.numpy(), atomic.numpy())
    molecules_kernel(atomic.numpy(), atom_ptr.numpy(), total.numpy())
    if g is not None:
        adjoint_kernel(*given, g.numpy())
