"""Weights of a network as the passes on a CPU read them: padded, and packed into panels."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

from painn_fast.kernels.dense.cpu import aligned, pack_transposed, panel_width
from painn_fast.kernels.jit import compiled
from painn_fast.kernels.network.layout import Layers, NetworkWeights
from painn_fast.kernels.network.reference import Weights
from painn_fast.kernels.simd import LANES, load, store
from painn_fast.kernels.threads import run


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


def pack_layers(w: Any, epsilon: float, activation: str, *, widest: int) -> Layers:
    """The dense layers of `arrays`, padded before. `widest`: columns of a layer of a readout."""
    layers = layer_panels(w, epsilon, activation, widest=widest)
    run(lambda k, _: _pack_layer(layers, w, k), range(len(w.mix)))
    return layers


def layer_panels(w: Any, epsilon: float, activation: str, *, widest: int, backward: bool = True) -> Layers:
    """Memory for packed layers.

    Args:
        w: `Weights` of arrays, padded before.
        epsilon: inside the norm of vectors.
        activation: of all networks.
        widest: columns of a layer of a readout.
        backward: or there are no transposes.
    """
    fields: dict[str, np.ndarray] = {}
    for name in ("message_1", "message_2", "mix", "update_1", "update_2"):
        matrices = getattr(w, name)
        columns, rows = matrices[0].shape
        fields[name] = _panels(len(matrices), rows, columns, matrices[0].dtype)
        fields[f"{name}_t"] = _panels(len(matrices), columns if backward else 0, rows, matrices[0].dtype)
        if name != "mix":
            fields[f"{name}_bias"] = np.empty((len(matrices), columns), matrices[0].dtype)
    zero = np.zeros(max(widest, fields["message_2_bias"].shape[1]), w.mix[0].dtype)
    return Layers(**fields, zero=zero, epsilon=epsilon, softplus=activation == "shifted_softplus")


def network_panels(w: Any, epsilon: float, activation: str, *, backward: bool = True) -> NetworkWeights:
    """As `layer_panels`, of a whole network with a filter; biases of its readout stay where they are."""
    layers = layer_panels(w, epsilon, activation, widest=len(w.readout_1), backward=backward)
    (count, rows, columns), (hidden, f), dtype = w.filter.shape, w.readout_1.shape, w.filter.dtype
    return NetworkWeights(
        layers=layers,
        filter=_panels(count, rows, columns, dtype),
        filter_t=np.zeros((count, columns, rows + -rows % LANES), dtype),
        readout_1=_panels(1, f, hidden, dtype)[0],
        readout_1_bias=w.readout_1_bias,
        readout_1_t=_panels(1, hidden, f, dtype)[0],
        readout_2=w.readout_2[0],
        readout_2_bias=w.readout_2_bias,
    )


def fill(to: NetworkWeights, w: Any) -> None:
    """Pack the weights that the memory `to` was made for, again where they have changed."""

    def work(k: int, _: int) -> None:
        if k == len(w.filter):
            _pack_both(w.readout_1, to.readout_1, to.readout_1_t)
            return
        _fill_filter(w.filter[k], to.filter[k], to.filter_t[k])
        _pack_layer(to.layers, w, k)

    run(work, range(len(w.filter) + 1))


@compiled(nogil=True)
def fill_from(to: NetworkWeights, filters: np.ndarray, values: np.ndarray, starts: np.ndarray, readout: int) -> None:
    """As `fill` on one thread, in one call: between calls it would wait for other threads that run Python.

    Args:
        to: the memory, not empty for a backward pass.
        filters: [L, K + 1, 3 F].
        values: all other weights.
        starts: [9, L], where in `values` each of them begins, from message_1 to update_2_bias as `Weights` has them.
        readout: where readout_1 begins.
    """
    w = to.layers
    for k in range(filters.shape[0]):
        _fill_filter(filters[k], to.filter[k], to.filter_t[k])
        _fill_layer(
            w, k,
            _matrix(values, starts[0, k], w.message_1, w.message_1_t),
            _matrix(values, starts[2, k], w.message_2, w.message_2_t),
            _matrix(values, starts[4, k], w.mix, w.mix_t),
            _matrix(values, starts[5, k], w.update_1, w.update_1_t),
            _matrix(values, starts[7, k], w.update_2, w.update_2_t),
            _row(values, starts[1, k], w.message_1_bias),
            _row(values, starts[3, k], w.message_2_bias),
            _row(values, starts[6, k], w.update_1_bias),
            _row(values, starts[8, k], w.update_2_bias),
        )  # fmt: skip
    _pack_both(_matrix(values, readout, to.readout_1, to.readout_1_t), to.readout_1, to.readout_1_t)


@compiled(inline="always")  # a function of its own could not return a view
def _matrix(values, start, transposed, panels):  # type: ignore[no-untyped-def]
    """The one [C, K] that begins at `start`, for these panels."""
    shape = panels.shape[-2], transposed.shape[-2]
    return values[start : start + shape[0] * shape[1]].reshape(shape)


@compiled(inline="always")  # a function of its own could not return a view
def _row(values, start, to):  # type: ignore[no-untyped-def]
    return values[start : start + to.shape[-1]]


def _panels(count: int, rows: int, columns: int, dtype: np.dtype) -> np.ndarray:
    """Memory for panels of matrices [rows, columns]."""
    width = panel_width(columns, dtype.itemsize) if columns else LANES
    return aligned((count, columns // width, rows, width), dtype)


def _pack_layer(to: Layers, w: Any, k: int) -> None:
    matrices: list[np.ndarray] = [w.message_1[k], w.message_2[k], w.mix[k], w.update_1[k], w.update_2[k]]
    biases: list[np.ndarray] = [w.message_1_bias[k], w.message_2_bias[k], w.update_1_bias[k], w.update_2_bias[k]]
    _fill_layer(to, k, *matrices, *biases)


@compiled(nogil=True)
def _fill_layer(  # type: ignore[no-untyped-def]
    to, k, message_1, message_2, mix, update_1, update_2, message_1_bias, message_2_bias, update_1_bias, update_2_bias
):  # fmt: skip
    _pack_both(message_1, to.message_1[k], to.message_1_t[k])
    _pack_both(message_2, to.message_2[k], to.message_2_t[k])
    _pack_both(mix, to.mix[k], to.mix_t[k])
    _pack_both(update_1, to.update_1[k], to.update_1_t[k])
    _pack_both(update_2, to.update_2[k], to.update_2_t[k])
    _copy(message_1_bias, to.message_1_bias[k])
    _copy(message_2_bias, to.message_2_bias[k])
    _copy(update_1_bias, to.update_1_bias[k])
    _copy(update_2_bias, to.update_2_bias[k])


@compiled(nogil=True)
def _fill_filter(matrix, panels, transposed):  # type: ignore[no-untyped-def]
    _pack(matrix, panels)
    for k in range(matrix.shape[0]):
        for c in range(matrix.shape[1]):
            transposed[c, k] = matrix[k, c]


@compiled(nogil=True)
def _copy(row, to):  # type: ignore[no-untyped-def]
    for c in range(0, row.shape[0], LANES):
        store(to, c, load(row, c))


@compiled(nogil=True)
def _pack_both(matrix, transposed, panels):  # type: ignore[no-untyped-def]
    """The transpose of a matrix [C, K], and itself, which has no rows where there is no backward pass."""
    pack_transposed(matrix, transposed)
    if panels.shape[1] > 0:
        _pack(matrix, panels)


@compiled(nogil=True)
def _pack(matrix, panels):  # type: ignore[no-untyped-def]
    width = panels.shape[2]
    for p in range(panels.shape[0]):
        for k in range(panels.shape[1]):
            for c in range(0, width, LANES):
                store(panels[p, k], c, load(matrix[k], p * width + c))
