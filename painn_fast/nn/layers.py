"""Layers that several parts of the network share."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Self

from torch import Tensor, nn
from torch.nn.functional import softplus


class ShiftedSoftplus(nn.Module):
    """log(1 + exp(x)) - log 2."""

    def forward(self, x: Tensor) -> Tensor:
        return softplus(x) - math.log(2.0)


ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "shifted_softplus": ShiftedSoftplus}


def dense(n_in: int, n_out: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer, Xavier-uniform weights and zero bias."""
    layer = nn.Linear(n_in, n_out, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def mlp(widths: tuple[int, ...], activation: str) -> nn.Sequential:
    """Dense layers of these widths with an activation between them."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [dense(n_in, n_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def linears(network: nn.Sequential) -> list[Tensor]:
    """Weight and bias of each dense layer of an `mlp`, in order."""
    return [tensor for layer in network if isinstance(layer, nn.Linear) for tensor in (layer.weight, layer.bias)]


class Float64Buffers(nn.Module):
    """A module whose own buffers stay float64 when the network changes its dtype: total energies need the digits."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        kept = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            if buffer is not None:
                moved = self._buffers[name]
                self._buffers[name] = buffer.to(moved.device) if moved is not None else buffer
        return self
