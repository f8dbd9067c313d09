"""Memory of a network on a CPU, for training and for the engine: packed weights, and what a forward pass keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

from painn_fast.kernels.dense.cpu import aligned, pack, pack_transposed, panel_width
from painn_fast.kernels.network.reference import Weights
from painn_fast.kernels.simd import LANES
from painn_fast.kernels.threads import run


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


def padded(weights: Weights) -> Weights:
    """The same network with F and H padded with zeros to multiples of LANES; nothing else is added to any sum."""
    w, f = weights, weights.message_1.shape[-1]
    missing, hidden = -f % LANES, -len(w.readout_1) % LANES
    if not missing and not hidden:
        return weights

    def wide(t: Tensor) -> Tensor:  # [..., blocks of F]
        return pad(t.unflatten(-1, (t.shape[-1] // f, f)), (0, missing)).flatten(-2)

    def both(t: Tensor) -> Tensor:  # [..., blocks of F, blocks of F]
        return wide(wide(t).mT).mT

    return Weights(
        wide(w.filter), both(w.message_1), wide(w.message_1_bias), both(w.message_2), wide(w.message_2_bias),
        both(w.mix), both(w.update_1), wide(w.update_1_bias), both(w.update_2), wide(w.update_2_bias),
        pad(wide(w.readout_1), (0, 0, 0, hidden)), pad(w.readout_1_bias, (0, hidden)), pad(w.readout_2, (0, hidden)),
        w.readout_2_bias,
    )  # fmt: skip


def arrays(weights: Weights) -> Any:
    """`Weights` of NumPy arrays, row by row in memory."""
    return Weights(*(t.detach().contiguous().numpy() for t in weights))  # type: ignore[arg-type]


def pack_layers(w: Any, epsilon: float, activation: str, *, widest: int, backward: bool = True) -> Layers:
    """The dense layers of `arrays`, padded before; without `backward` no transposes. `widest`: layer of a readout."""
    names = ("message_1", "message_2", "mix", "update_1", "update_2")
    jobs: Jobs = []
    fields: dict[str, np.ndarray] = {}
    for name in names:
        matrices = getattr(w, name)
        fields[name] = _pack_transposed(matrices, jobs)
        fields[f"{name}_t"] = _pack(matrices if backward else matrices[:, :0], jobs)
        if name != "mix":
            fields[f"{name}_bias"] = getattr(w, f"{name}_bias")
    run(_do, jobs)
    zero = np.zeros(max(widest, w.message_2.shape[1]), w.message_2.dtype)
    return Layers(**fields, zero=zero, epsilon=epsilon, softplus=activation == "shifted_softplus")


def pack_network(w: Any, columns: int, epsilon: float, activation: str, *, backward: bool = True) -> NetworkWeights:
    """All of `arrays`, padded before, for a basis of that many columns."""
    jobs: Jobs = []
    transposed = np.zeros((len(w.filter), w.filter.shape[2], columns), w.filter.dtype)
    transposed[:, :, : w.filter.shape[1]] = w.filter.transpose(0, 2, 1)
    readout_1, filters = _pack_transposed(w.readout_1[None], jobs)[0], _pack(w.filter, jobs)
    run(_do, jobs)
    layers = pack_layers(w, epsilon, activation, widest=len(w.readout_1), backward=backward)
    readout = readout_1, w.readout_1_bias, pack(w.readout_1), w.readout_2[0], w.readout_2_bias
    return NetworkWeights(layers, filters, transposed, *readout)


Jobs = list[tuple[Callable[[np.ndarray, np.ndarray], object], np.ndarray, np.ndarray]]
"""What threads do: a function, from where, to where."""


def _do(job: tuple[Callable[[np.ndarray, np.ndarray], object], np.ndarray, np.ndarray], _: int) -> None:
    work, source, to = job
    work(source, to)


def _pack(matrices: np.ndarray, jobs: Jobs) -> np.ndarray:
    """Memory for panels [L, P, K, W] of matrices [L, K, C], and the jobs that fill it."""
    layers, rows, columns = matrices.shape
    width = panel_width(columns, matrices.itemsize)
    to = aligned((layers, columns // width, rows, width), matrices.dtype)
    panels = matrices.reshape(layers, rows, columns // width, width).transpose(0, 2, 1, 3)
    jobs += [(_copy, source, target) for source, target in zip(panels, to, strict=True)]
    return to


def _copy(source: np.ndarray, to: np.ndarray) -> None:
    to[:] = source


def _pack_transposed(matrices: np.ndarray, jobs: Jobs) -> np.ndarray:
    """Memory for panels of the transposes of matrices [L, C, K], and the jobs that fill it."""
    layers, columns, rows = matrices.shape
    width = panel_width(columns, matrices.itemsize) if columns else LANES
    to = aligned((layers, columns // width, rows, width), matrices.dtype)
    jobs += [(pack_transposed, source, target) for source, target in zip(matrices, to, strict=True)]
    return to
