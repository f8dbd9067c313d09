"""The message of PaiNN over a list of edges (j sends, i receives), in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def message(x: Tensor, v: Tensor, w: Tensor, u: Tensor, receiver: Tensor, sender: Tensor) -> tuple[Tensor, Tensor]:
    """ds_i = sum_j a_ij, dv_i = sum_j (b_ij u_ij + c_ij v_j) with (a, b, c) = x_j * w_ij.

    Args:
        x: [N, 3 F], v: [N, 3, F], w: [E, 3 F], u: [E, 3], receiver and sender: [E].

    Returns:
        ds [N, F], dv [N, 3, F].
    """
    a, b, c = (x[sender] * w).chunk(3, dim=-1)
    dv = b[:, None, :] * u[:, :, None] + c[:, None, :] * v[sender]
    n, _, f = v.shape
    return torch.zeros(n, f, dtype=x.dtype).index_add(0, receiver, a), torch.zeros_like(v).index_add(0, receiver, dv)
