"""All message and update blocks of PaiNN, from the operations of the two blocks; differentiable to any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from painn_fast.kernels.message.reference import message_of_filter
from painn_fast.kernels.update.reference import gate, norm


class Weights(NamedTuple):
    """Of one layer, as torch's linear layers have them: [out, in] and [out]."""

    message_1: Tensor  # F -> F
    message_1_bias: Tensor
    message_2: Tensor  # F -> 3 F
    message_2_bias: Tensor
    mix: Tensor  # F -> 2 F
    update_1: Tensor  # 2 F -> F
    update_1_bias: Tensor
    update_2: Tensor  # F -> 3 F
    update_2_bias: Tensor


def blocks(
    s: Tensor, basis: Tensor, u: Tensor, filters: Sequence[Tensor], weights: Sequence[Weights], epsilon: float,
    row_ptr: Tensor, sender: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Features after all layers, from v = 0.

    Args:
        s: [N, F].
        basis: [E, K] radial basis times cut-off; columns beyond the rows of the filters are not read.
        u: [E, 3] unit vectors from receiver to sender.
        filters: [K, 3 F] of each layer, its bias in the last row.
        weights: of each layer.
        row_ptr, sender: [N + 1] and [E], edges sorted by receiver.

    Returns:
        s [N, F] and v [N, 3, F].
    """
    receiver = torch.repeat_interleave(torch.arange(len(row_ptr) - 1, device=row_ptr.device), row_ptr.diff())
    v = s.new_zeros(s.shape[0], 3, s.shape[1])
    for weight, w in zip(filters, weights, strict=True):
        x = linear(silu(linear(s, w.message_1, w.message_1_bias)), w.message_2, w.message_2_bias)
        ds, dv = message_of_filter(x, v, basis[:, : len(weight)] @ weight, u, receiver, sender)
        s, v = s + ds, v + dv
        vw = linear(v, w.mix)
        context, dot = norm(s, vw, epsilon)
        y = linear(silu(linear(context, w.update_1, w.update_1_bias)), w.update_2, w.update_2_bias)
        s, v = gate(s, v, y, vw, dot)
    return s, v
