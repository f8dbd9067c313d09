"""The message of PaiNN over a list of edges (j sends, i receives), in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from painn_fast.kernels.radial.reference import Radial, filter_basis


def message(
    x: Tensor, v: Tensor, r: Tensor, weight: Tensor, radial: Radial, receiver: Tensor, sender: Tensor
) -> tuple[Tensor, Tensor]:
    """ds_i = sum_j a_ij, dv_i = sum_j (b_ij u_ij + c_ij v_j) with (a, b, c) = x_j * w(d_ij), d = |r|, u = r / d.

    Args:
        x: [N, 3 F], v: [N, 3, F].
        r: [E, 3] from receiver to sender.
        weight: [K + 1, 3 F] of the filter, its bias in the last row.
        radial: the K functions of the filter and its cut-off.
        receiver, sender: [E].

    Returns:
        ds [N, F], dv [N, 3, F].
    """
    d = torch.linalg.vector_norm(r, dim=1)
    return message_of_filter(x, v, filter_basis(d, radial) @ weight, r / d[:, None], receiver, sender)


def message_of_filter(
    x: Tensor, v: Tensor, w: Tensor, u: Tensor, receiver: Tensor, sender: Tensor
) -> tuple[Tensor, Tensor]:
    """The same for filters w [E, 3 F] and directions u [E, 3]."""
    a, b, c = (x[sender] * w).chunk(3, dim=-1)
    dv = b[:, None, :] * u[:, :, None] + c[:, None, :] * v[sender]
    ds = x.new_zeros(v.shape[0], v.shape[2]).index_add(0, receiver, a)
    return ds, torch.zeros_like(v).index_add(0, receiver, dv)
