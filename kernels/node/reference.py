"""What one atom does between two messages, in plain torch: the update block, then the network that makes the next x."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import silu

from painn_fast.kernels.update import reference


class Mlp(NamedTuple):
    """Two layers with a silu between them, or only the first (`second` None). Weights are [in, out]."""

    first: Tensor
    first_bias: Tensor
    second: Tensor | None
    second_bias: Tensor | None


def node(
    s: Tensor, v: Tensor, mix: Tensor, update: Mlp, following: Mlp, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The update block and what follows it.

    Args:
        s: [N, F], v: [N, 3, F], after a message.
        mix: [F, 2 F], makes V and W.
        update: 2 F -> F -> 3 F.
        following: the next message's F -> F -> 3 F, or the first hidden layer of a readout, F -> H.
        epsilon: inside the root of the norm.

    Returns:
        s, v after the update, and x [N, 3 F], or what goes into the readout's silu [N, H].
    """
    vw = v @ mix
    context, dot = reference.norm(s, vw, epsilon)
    y = _apply(update, context)
    s, v = reference.gate(s, v, y, vw, dot)
    return s, v, _apply(following, s)


def _apply(mlp: Mlp, a: Tensor) -> Tensor:
    hidden = a @ mlp.first + mlp.first_bias
    if mlp.second is None or mlp.second_bias is None:
        return hidden
    return silu(hidden) @ mlp.second + mlp.second_bias
