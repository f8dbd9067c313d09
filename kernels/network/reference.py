"""All blocks of PaiNN with a readout, from the operations of message and update; differentiable to any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from painn_fast.kernels.message.reference import message_of_filter
from painn_fast.kernels.radial.reference import Radial, filter_basis
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


class Readout(NamedTuple):
    """A number for each atom: linear, silu, linear; of nothing where H = 0."""

    hidden: Tensor  # F -> H
    hidden_bias: Tensor
    out: Tensor  # H -> 1
    out_bias: Tensor


def blocks(
    s: Tensor, r: Tensor, radial: Radial, filters: Sequence[Tensor], weights: Sequence[Weights], readout: Readout,
    epsilon: float, row_ptr: Tensor, sender: Tensor, mirror: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Features after all layers, from v = 0, and what is read out of them.

    Args:
        s: [N, F].
        r: [E, 3] vectors from receiver to sender, opposite for an edge and its mirror. The distance of a pair is the
            mean of their lengths: the same number, but its derivative is shared, and filters are those of pairs.
        radial: what filters are made of.
        filters: [K + 1, 3 F] of each layer, its bias in the last row.
        weights: of each layer.
        readout: of s.
        row_ptr, sender, mirror: [N + 1], [E] and [E], edges sorted by receiver.

    Returns:
        s [N, F], v [N, 3, F] and read [N].
    """
    d = torch.linalg.vector_norm(r, dim=1)
    basis, u = filter_basis((d + d[mirror]) / 2, radial), r / d[:, None]
    receiver = torch.repeat_interleave(torch.arange(len(row_ptr) - 1, device=row_ptr.device), row_ptr.diff())
    v = s.new_zeros(s.shape[0], 3, s.shape[1])
    for weight, w in zip(filters, weights, strict=True):
        x = linear(silu(linear(s, w.message_1, w.message_1_bias)), w.message_2, w.message_2_bias)
        ds, dv = message_of_filter(x, v, basis @ weight, u, receiver, sender)
        s, v = s + ds, v + dv
        vw = linear(v, w.mix)
        context, dot = norm(s, vw, epsilon)
        y = linear(silu(linear(context, w.update_1, w.update_1_bias)), w.update_2, w.update_2_bias)
        s, v = gate(s, v, y, vw, dot)
    read = linear(silu(linear(s, readout.hidden, readout.hidden_bias)), readout.out, readout.out_bias)
    return s, v, read[:, 0]
