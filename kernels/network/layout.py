"""Memory of a network on a CPU, for training and for the engine: packed weights, and what a forward pass keeps."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from painn_fast.kernels.dense.cpu import aligned


class Layers(NamedTuple):
    """Dense layers as panels for `matmul`, [L, P, in, W]; `_t` is the transpose, for the backward pass."""

    message_1: np.ndarray  # F -> F
    message_1_bias: np.ndarray  # [L, F]
    message_1_t: np.ndarray
    message_2: np.ndarray  # F -> 3 F
    message_2_bias: np.ndarray
    message_2_t: np.ndarray
    mix: np.ndarray  # F -> 2 F
    mix_t: np.ndarray
    update_1: np.ndarray  # 2 F -> F
    update_1_bias: np.ndarray
    update_1_t: np.ndarray
    update_2: np.ndarray  # F -> 3 F
    update_2_bias: np.ndarray
    update_2_t: np.ndarray
    zero: np.ndarray  # [3 F] or more, the bias of a product that has none
    epsilon: float
    softplus: bool  # the activation is the shifted softplus, else silu


class NetworkWeights(NamedTuple):
    """A whole network, packed: layers, filters of a basis of K functions, a multiple of LANES, and the readout."""

    layers: Layers
    filter: np.ndarray  # [L, P, K, W]
    filter_t: np.ndarray  # [L, 3 F, K]
    readout_1: np.ndarray  # F -> H
    readout_1_bias: np.ndarray  # [H]
    readout_1_t: np.ndarray
    readout_2: np.ndarray  # [H]
    readout_2_bias: np.ndarray  # [1]


class Activations(NamedTuple):
    """Values of a forward pass, or their tangents; the leading axis is the layer, in turn where fewer are kept."""

    s: np.ndarray  # [L + 1, N, F], what a layer begins with
    v: np.ndarray  # [L + 1, N, 3 F]
    hidden: np.ndarray  # [L, N, F], of the message network
    active: np.ndarray  # [L, N, F], its activation
    x: np.ndarray  # [L, N, 3 F]
    v_mid: np.ndarray  # [L, N, 3 F], after the message
    vw: np.ndarray  # [L, N, 3, 2 F]
    context: np.ndarray  # [L, N, 2 F], s after the message and |V|
    dot: np.ndarray  # [L, N, F]
    update_hidden: np.ndarray  # [L, N, F]
    update_active: np.ndarray  # [L, N, F]
    y: np.ndarray  # [L, N, 3 F]
    read_hidden: np.ndarray  # [N, H]
    read_active: np.ndarray  # [N, H]
    read: np.ndarray  # [N], what is read out


class Adjoints(NamedTuple):
    """Adjoints of a forward pass, which are those of its tangents too; no layers if none are kept."""

    s: np.ndarray  # [L, N, F], of s and v after layer k
    v: np.ndarray  # [L, N, 3 F]
    update_active: np.ndarray  # [L, N, F]
    context: np.ndarray  # [L, N, 2 F]
    s_mid: np.ndarray  # [L, N, F], after the message
    v_mid: np.ndarray  # [L, N, 3 F]
    x: np.ndarray  # [L, N, 3 F]
    active: np.ndarray  # [L, N, F], of the message network
    read: np.ndarray  # [N]


Keep = Literal["everything", "for positions", "nothing"]
"""What a backward pass needs: gradients in the weights, in the positions alone, or none."""


def activations(layers: int, atoms: int, features: int, dtype: np.dtype, *, keep: Keep, hidden: int = 0) -> Activations:
    """Memory for `Activations`; "for positions" updates s in place, and v between a message and the update after it.

    Args:
        layers: L.
        atoms: N.
        features: F, a multiple of LANES.
        dtype: of all.
        keep: which layers have memory of their own.
        hidden: H of the readout.
    """

    def space(*shape: int) -> np.ndarray:
        return aligned((shape[0], atoms, *shape[1:]), dtype)

    f, every = features, layers if keep == "everything" else 1
    most = 1 if keep == "nothing" else layers
    v = space(1 if keep == "nothing" else layers + 1, 3 * f)
    read_hidden, read_active = space(1, hidden)[0], space(1, hidden)[0]
    return Activations(
        s=space(layers + 1 if keep == "everything" else 1, f), v=v, hidden=space(most, f), active=space(every, f),
        x=space(most, 3 * f), v_mid=v[1:] if keep == "for positions" else space(every, 3 * f),
        vw=space(most, 3, 2 * f), context=space(most, 2 * f), dot=space(most, f), update_hidden=space(most, f),
        update_active=space(every, f), y=space(most, 3 * f), read_hidden=read_hidden, read_active=read_active,
        read=np.zeros(atoms, dtype),
    )  # fmt: skip


def adjoints(layers: int, atoms: int, features: int, dtype: np.dtype) -> Adjoints:
    """Memory for `Adjoints`: layers L or 0, atoms N, features F, a multiple of LANES."""
    f = features
    one, two, three = ((layers, atoms, n * f) for n in (1, 2, 3))
    return Adjoints(
        s=aligned(one, dtype), v=aligned(three, dtype), update_active=aligned(one, dtype), context=aligned(two, dtype),
        s_mid=aligned(one, dtype), v_mid=aligned(three, dtype), x=aligned(three, dtype), active=aligned(one, dtype),
        read=np.zeros(atoms, dtype),
    )  # fmt: skip
