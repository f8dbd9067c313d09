"""Energy and forces of a chunk of molecules in one compiled call: the kernels in their order, without autograd.

n atoms, P pairs (each edge of the graph once, its mirror implied), F features, L layers, T filter tables. v is
[n, 3 F]: x, y and z one after another. The first layer, whose scalars depend on the element alone and whose vectors are
zero, and the last, whose vectors the energy does not need, do less.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from painn_fast.kernels.compiled import compiled
from painn_fast.kernels.dense.cpu import matmul, silu, silu_adjoint
from painn_fast.kernels.message.cpu import forces_of_pairs, message_bwd, message_fwd, pair_geometry
from painn_fast.kernels.update.cpu import gate_bwd, gate_fwd, norm_bwd, norm_fwd


class Weights(NamedTuple):
    """Of a model, packed for `matmul`; `_t` is the transpose, for the way back. Leading axis: layer."""

    embedding: np.ndarray  # [max_z, F]
    first_x: np.ndarray  # [max_z, 3 F], the first message network of the embedding
    message_1: np.ndarray  # F -> F
    message_1_bias: np.ndarray
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
    table: np.ndarray  # [T, knots + 1, 2, 3 F]
    table_start: float
    spacing: float
    cutoff: float
    unit: float  # length units of the model in an Å
    epsilon: float
    readout: tuple[np.ndarray, ...]  # hidden layers of the energy
    readout_bias: tuple[np.ndarray, ...]
    readout_t: tuple[np.ndarray, ...]
    readout_last: np.ndarray  # [H]
    readout_offset: np.ndarray  # [max_z] float64: last bias, atomic reference and mean, model units
    zero: np.ndarray  # [3 F] zeros, where a product has no bias


class Pairs(NamedTuple):
    """The graph of a chunk."""

    numbers: np.ndarray  # [n]
    receiver: np.ndarray  # [P]
    sender: np.ndarray  # [P]
    shift: np.ndarray  # [P, 3] Å
    molecule: np.ndarray  # [n] place of its molecule in the batch


class Scratch(NamedTuple):
    """Memory of a thread for chunks of up to n atoms and P pairs; what layers keep for the way back is [L, n, ...]."""

    direction: np.ndarray  # [P, 3]
    distance: np.ndarray  # [P]
    knot: np.ndarray  # [P]
    fraction: np.ndarray  # [P]
    pull: np.ndarray  # [P, 3] float64, -dE/dr_ij in model units
    s: np.ndarray  # [n, F]
    v: np.ndarray  # [L + 1, n, 3 F]
    x: np.ndarray  # [L, n, 3 F]
    hidden: np.ndarray  # [L, n, F], of the message network
    vw: np.ndarray  # [L, n, 3, 2 F]
    context: np.ndarray  # [L, n, 2 F]
    dot: np.ndarray  # [L, n, F]
    update_hidden: np.ndarray  # [L, n, F]
    y: np.ndarray  # [L, n, 3 F]
    wide: np.ndarray  # [n, 3 F] and four more for a while
    narrow: np.ndarray  # [n, F]
    double: np.ndarray  # [n, 2 F]
    g_vw: np.ndarray  # [n, 3, 2 F]
    gv_out: np.ndarray  # [n, 3 F]
    gs: np.ndarray  # [n, F]
    gv: np.ndarray  # [n, 3 F]
    readout: tuple[np.ndarray, ...]  # [n, H]
    readout_silu: tuple[np.ndarray, ...]  # [n, H]


def scratch(atoms: int, pairs: int, layers: int, features: int, hidden: tuple[int, ...], dtype: np.dtype) -> Scratch:
    """Memory for `Scratch`; `hidden` are the widths of the readout."""

    def space(*shape: int) -> np.ndarray:
        return np.zeros(shape, dtype)

    n, f = atoms, features
    return Scratch(
        direction=space(pairs, 3),
        distance=space(pairs),
        knot=np.zeros(pairs, np.int64),
        fraction=space(pairs),
        pull=np.zeros((pairs, 3)),
        s=space(n, f),
        v=space(layers + 1, n, 3 * f),
        x=space(layers, n, 3 * f),
        hidden=space(layers, n, f),
        vw=space(layers, n, 3, 2 * f),
        context=space(layers, n, 2 * f),
        dot=space(layers, n, f),
        update_hidden=space(layers, n, f),
        y=space(layers, n, 3 * f),
        wide=space(n, 3 * f),
        narrow=space(n, f),
        double=space(n, 2 * f),
        g_vw=space(n, 3, 2 * f),
        gv_out=space(n, 3 * f),
        gs=space(n, f),
        gv=space(n, 3 * f),
        readout=tuple(space(n, width) for width in hidden),
        readout_silu=tuple(space(n, width) for width in hidden),
    )


@compiled(nogil=True)
def evaluate(
    w: Weights, g: Pairs, m: Scratch, positions: np.ndarray, want_forces: bool, energies: np.ndarray,
    forces: np.ndarray, virial: np.ndarray,
) -> None:  # fmt: skip
    """Atomic energies [n], forces [n, 3] and virials [M, 3, 3] (grow) in model units of energy, and Å.

    Args:
        positions: [n, 3] Å.
    """
    n = len(g.numbers)
    _forward(w, g, m, n, positions)
    _readout(w, g, m, n, want_forces, energies)
    if want_forces:
        _backward(w, g, m, n)
        p = m.pull[: len(g.receiver)]
        forces_of_pairs(p, g.receiver, g.sender, w.unit, forces)
        for q in range(len(g.receiver)):
            i, j = g.receiver[q], g.sender[q]
            for a in range(3):
                r = positions[j, a] - positions[i, a] + g.shift[q, a]
                for b in range(3):
                    virial[g.molecule[i], a, b] += r * p[q, b] * w.unit


@compiled(nogil=True)
def _forward(w, g, m, n, positions):  # type: ignore[no-untyped-def]
    pair_geometry(
        positions, g.receiver, g.sender, g.shift, w.unit, w.table_start, w.spacing, w.cutoff, m.direction, m.distance,
        m.knot, m.fraction,
    )  # fmt: skip
    s, layers, f = m.s[:n], m.x.shape[0], m.s.shape[1]
    m.v[0, :n] = 0.0
    for i in range(n):
        s[i] = w.embedding[g.numbers[i]]
        m.x[0, i] = w.first_x[g.numbers[i]]
    for k in range(layers):
        x, v, vw, context, y = m.x[k, :n], m.v[k + 1, :n], m.vw[k, :n], m.context[k, :n], m.y[k, :n]
        if k > 0:
            matmul(s, w.message_1[k], w.message_1_bias[k], m.hidden[k, :n])
            silu(m.hidden[k, :n], m.narrow[:n])
            matmul(m.narrow[:n], w.message_2[k], w.message_2_bias[k], x)
        v[:] = m.v[k, :n]
        message_fwd(
            x, m.v[k, :n], w.table[k % w.table.shape[0]], g.receiver, g.sender, m.direction, m.knot, m.fraction, k > 0,
            s, v,
        )  # fmt: skip
        matmul(v.reshape(3 * n, f), w.mix[k], w.zero, vw.reshape(3 * n, 2 * f))
        norm_fwd(s, vw, w.epsilon, context, m.dot[k, :n])
        matmul(context, w.update_1[k], w.update_1_bias[k], m.update_hidden[k, :n])
        silu(m.update_hidden[k, :n], m.narrow[:n])
        matmul(m.narrow[:n], w.update_2[k], w.update_2_bias[k], y)
        gate_fwd(y, vw, m.dot[k, :n], True, s, v)  # a dipole needs the last v


@compiled(nogil=True)
def _readout(w, g, m, n, want_forces, energies):  # type: ignore[no-untyped-def]
    """Atomic energies, and the adjoint of s in `m.gs`."""
    last = len(w.readout) - 1
    matmul(m.s[:n], w.readout[0], w.readout_bias[0], m.readout[0][:n])
    silu(m.readout[0][:n], m.readout_silu[0][:n])
    for k in range(1, last + 1):
        matmul(m.readout_silu[k - 1][:n], w.readout[k], w.readout_bias[k], m.readout[k][:n])
        silu(m.readout[k][:n], m.readout_silu[k][:n])
    for i in range(n):
        total = 0.0
        for c in range(len(w.readout_last)):
            total += m.readout_silu[last][i, c] * w.readout_last[c]
        energies[i] = total + w.readout_offset[g.numbers[i]]
    if want_forces:
        for i in range(n):
            m.readout_silu[last][i] = w.readout_last
        for k in range(last, 0, -1):
            silu_adjoint(m.readout[k][:n], m.readout_silu[k][:n])
            matmul(m.readout_silu[k][:n], w.readout_t[k], w.zero, m.readout_silu[k - 1][:n])
        silu_adjoint(m.readout[0][:n], m.readout_silu[0][:n])
        matmul(m.readout_silu[0][:n], w.readout_t[0], w.zero, m.gs[:n])


@compiled(nogil=True)
def _backward(w, g, m, n):  # type: ignore[no-untyped-def]
    """What each pair pulls, in `m.pull`, from the adjoint of s."""
    layers, f = m.x.shape[0], m.s.shape[1]
    gs, gv, gv_out, gx, g_context, g_vw = m.gs[:n], m.gv[:n], m.gv_out[:n], m.wide[:n], m.double[:n], m.g_vw[:n]
    m.pull[: len(g.receiver)] = 0.0
    for k in range(layers - 1, -1, -1):
        inner = k < layers - 1
        vw, y = m.vw[k, :n], m.y[k, :n]
        gate_bwd(gs, gv, vw, m.dot[k, :n], inner, gx)
        matmul(gx, w.update_2_t[k], w.zero, m.narrow[:n])
        silu_adjoint(m.update_hidden[k, :n], m.narrow[:n])
        matmul(m.narrow[:n], w.update_1_t[k], w.zero, g_context)
        norm_bwd(gs, gv, y, vw, m.context[k, :n], g_context, inner, g_vw)
        matmul(g_vw.reshape(3 * n, 2 * f), w.mix_t[k], w.zero, gv_out.reshape(3 * n, f))
        if inner:
            for i in range(n):
                for c in range(3 * f):
                    gv[i, c] += gv_out[i, c]
        else:
            gv[:] = gv_out
        gx[:] = 0.0
        gv_out[:] = gv
        message_bwd(
            m.x[k, :n], m.v[k, :n], gs, gv, w.table[k % w.table.shape[0]], w.spacing, g.receiver, g.sender,
            m.direction, m.distance, m.knot, m.fraction, k > 0, gx, gv_out, m.pull,
        )  # fmt: skip
        if k > 0:
            gv[:] = gv_out
            matmul(gx, w.message_2_t[k], w.zero, m.narrow[:n])
            silu_adjoint(m.hidden[k, :n], m.narrow[:n])
            g_s = m.hidden[k, :n]  # has been read for the last time
            matmul(m.narrow[:n], w.message_1_t[k], w.zero, g_s)
            for i in range(n):
                for c in range(f):
                    gs[i, c] += g_s[i, c]
