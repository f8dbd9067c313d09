"""A whole network with its readout, composed of the references of message and update; differentiable to any order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, silu, softplus

from painn_fast.kernels.message.reference import message_of_filter
from painn_fast.kernels.radial.reference import Radial, filter_basis
from painn_fast.kernels.update.reference import gate, norm


class Weights(NamedTuple):
    """Of L layers and a readout through H numbers (none where H = 0): [out, in] and [out], as torch has them."""

    filter: Tensor  # [L, K + 1, 3 F], the bias in the last row
    message_1: Tensor  # [L, F, F]
    message_1_bias: Tensor
    message_2: Tensor  # [L, 3 F, F]
    message_2_bias: Tensor
    mix: Tensor  # [L, 2 F, F]
    update_1: Tensor  # [L, F, 2 F]
    update_1_bias: Tensor
    update_2: Tensor  # [L, 3 F, F]
    update_2_bias: Tensor
    readout_1: Tensor  # [H, F]
    readout_1_bias: Tensor
    readout_2: Tensor  # [1, H]
    readout_2_bias: Tensor


def _shifted_softplus(x: Tensor) -> Tensor:
    return softplus(x) - math.log(2.0)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": silu, "shifted_softplus": _shifted_softplus}


def network(
    s: Tensor, r: Tensor, radial: Radial, weights: Weights, activation: str, epsilon: float, row_ptr: Tensor,
    sender: Tensor, mirror: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Features after all layers, from v = 0, and what is read out of them.

    Args:
        s: [N, F].
        r: [E, 3] vectors from receiver to sender, opposite for an edge and its mirror. The distance of a pair is the
            mean of their lengths: the same number, but its derivative is shared, and filters are those of pairs.
        radial: functions of the filters.
        weights: of all layers and the readout.
        activation: of all networks, a name in `ACTIVATIONS`.
        epsilon: inside the norm of vectors.
        row_ptr, sender, mirror: [N + 1], [E] and [E], edges sorted by receiver.

    Returns:
        s [N, F], v [N, 3, F] and read [N].
    """
    act, w = ACTIVATIONS[activation], weights
    d = torch.linalg.vector_norm(r, dim=1)
    basis, u = filter_basis((d + d[mirror]) / 2, radial), r / d[:, None]
    receiver = torch.repeat_interleave(torch.arange(len(row_ptr) - 1, device=row_ptr.device), row_ptr.diff())
    v = s.new_zeros(s.shape[0], 3, s.shape[1])
    for k in range(len(w.filter)):
        x = linear(act(linear(s, w.message_1[k], w.message_1_bias[k])), w.message_2[k], w.message_2_bias[k])
        ds, dv = message_of_filter(x, v, basis @ w.filter[k], u, receiver, sender)
        s, v = s + ds, v + dv
        vw = linear(v, w.mix[k])
        context, dot = norm(s, vw, epsilon)
        y = linear(act(linear(context, w.update_1[k], w.update_1_bias[k])), w.update_2[k], w.update_2_bias[k])
        s, v = gate(s, v, y, vw, dot)
    read = linear(act(linear(s, w.readout_1, w.readout_1_bias)), w.readout_2, w.readout_2_bias)
    return s, v, read[:, 0]
