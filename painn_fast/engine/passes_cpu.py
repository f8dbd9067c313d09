"""Energy and forces of a chunk of molecules in one compiled call: the kernels in their order, without autograd.

n atoms, P pairs (each edge of the graph once, its mirror implied), F features, L layers, T filter tables. v is
[n, 3 F]: x, y and z one after another. The first layer, whose scalars depend on the element alone and whose vectors are
zero, and the last, whose vectors the energy does not need, do less.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from painn_fast.kernels.dense.cpu import matmul, silu, silu_adjoint
from painn_fast.kernels.jit import compiled
from painn_fast.kernels.message.pairs_cpu import forces_of_pairs, message_bwd, message_fwd, pair_geometry
from painn_fast.kernels.update.cpu import gate_bwd, gate_fwd, norm_bwd, norm_fwd

GEOMETRY, ATOMS_FORWARD, PAIRS_FORWARD, ATOMS_BACKWARD, PAIRS_BACKWARD = range(5)
ROWS = 144
"""Atoms of a block: more read the weights less often, fewer keep their features in the cache."""


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
    pairs, layers = len(g.receiver), m.x.shape[0]
    _geometry(w, g, m, positions, 0, pairs)
    for k in range(layers + 1):
        for first in range(0, len(g.numbers), ROWS):
            _atoms_forward(w, g, m, k, first, min(first + ROWS, len(g.numbers)), want_forces, energies)
        if k < layers:
            _pairs_forward(w, g, m, k, 0, pairs)
    if want_forces:
        for k in range(layers - 1, -1, -1):
            for first in range(0, len(g.numbers), ROWS):
                _atoms_backward(w, m, k, first, min(first + ROWS, len(g.numbers)))
            _pairs_backward(w, g, m, k, 0, pairs)
        finish(w, g, m, positions, forces, virial)


@compiled(nogil=True)
def in_units(
    energies: np.ndarray, forces: np.ndarray, positions: np.ndarray, molecule: np.ndarray, unit: float,
    energy: np.ndarray,
) -> bool:  # fmt: skip
    """Atomic energies [N] and forces [N, 3], or none, from model units, and energies of molecules [M] (grow).

    Returns:
        Whether these and the positions [N, 3] are finite.
    """
    nothing = 0.0  # times any number; otherwise NaN
    for i in range(len(energies)):
        energies[i] *= unit
        energy[molecule[i]] += energies[i]
        nothing += 0.0 * energies[i]
        for x in range(3):
            nothing += 0.0 * positions[i, x]
    for i in range(len(forces)):
        for x in range(3):
            forces[i, x] *= unit
            nothing += 0.0 * forces[i, x]
    return nothing == 0.0


@compiled(nogil=True)
def step(
    w: Weights, g: Pairs, m: Scratch, positions: np.ndarray, want_forces: bool, energies: np.ndarray, which: int,
    k: int, ranges: np.ndarray,
) -> None:  # fmt: skip
    """One step of `evaluate` for some atoms or pairs: whoever calls keeps the order and lets no two write to one atom.

    Args:
        which: `GEOMETRY`, `ATOMS_FORWARD`, `PAIRS_FORWARD`, `ATOMS_BACKWARD` or `PAIRS_BACKWARD`.
        k: layer.
        ranges: [R, 2], first and last + 1 of the atoms or pairs.
    """
    for r in range(len(ranges)):
        first, last = ranges[r]
        if which == GEOMETRY:
            _geometry(w, g, m, positions, first, last)
        elif which == ATOMS_FORWARD:
            _atoms_forward(w, g, m, k, first, last, want_forces, energies)
        elif which == PAIRS_FORWARD:
            _pairs_forward(w, g, m, k, first, last)
        elif which == ATOMS_BACKWARD:
            _atoms_backward(w, m, k, first, last)
        else:
            _pairs_backward(w, g, m, k, first, last)


@compiled(nogil=True)
def _geometry(w, g, m, positions, low, high):  # type: ignore[no-untyped-def]
    """Directions and table rows of pairs low to high."""
    pair_geometry(
        positions, g.receiver[low:high], g.sender[low:high], g.shift[low:high], w.unit, w.table_start, w.spacing,
        w.cutoff, m.direction[low:high], m.distance[low:high], m.knot[low:high], m.fraction[low:high],
    )  # fmt: skip
    m.pull[low:high] = 0.0


@compiled(nogil=True)
def _atoms_forward(w, g, m, k, first, last, want_forces, energies):  # type: ignore[no-untyped-def]
    """Atoms first to last between the messages of layers k - 1 and k: the one's update, the other's network.

    Before the first messages the embedding, after the last the readout.
    """
    s, layers = m.s[first:last], m.x.shape[0]
    if k == 0:
        m.v[0, first:last] = 0.0
        for i in range(first, last):
            m.s[i] = w.embedding[g.numbers[i]]
            m.x[0, i] = w.first_x[g.numbers[i]]
    else:
        _update(w, m, k - 1, first, last)
    if k == layers:
        _readout(w, g, m, first, last, want_forces, energies)
        return
    if k > 0:
        hidden, narrow = m.hidden[k, first:last], m.narrow[first:last]
        matmul(s, w.message_1[k], w.message_1_bias[k], hidden)
        silu(hidden, narrow)
        matmul(narrow, w.message_2[k], w.message_2_bias[k], m.x[k, first:last])
    m.v[k + 1, first:last] = m.v[k, first:last]


@compiled(nogil=True)
def _pairs_forward(w, g, m, k, low, high):  # type: ignore[no-untyped-def]
    """Messages of layer k along pairs low to high."""
    message_fwd(
        m.x[k], m.v[k], w.table[k % w.table.shape[0]], g.receiver[low:high], g.sender[low:high], m.direction[low:high],
        m.knot[low:high], m.fraction[low:high], k > 0, m.s, m.v[k + 1],
    )  # fmt: skip


@compiled(nogil=True)
def _update(w, m, k, first, last):  # type: ignore[no-untyped-def]
    s, v, vw, narrow = m.s[first:last], m.v[k + 1, first:last], m.vw[k, first:last], m.narrow[first:last]
    context, dot, y, hidden = (
        m.context[k, first:last],
        m.dot[k, first:last],
        m.y[k, first:last],
        m.update_hidden[k, first:last],
    )
    rows, f = 3 * (last - first), s.shape[1]
    matmul(v.reshape(rows, f), w.mix[k], w.zero, vw.reshape(rows, 2 * f))
    norm_fwd(s, vw, w.epsilon, context, dot)
    matmul(context, w.update_1[k], w.update_1_bias[k], hidden)
    silu(hidden, narrow)
    matmul(narrow, w.update_2[k], w.update_2_bias[k], y)
    gate_fwd(y, vw, dot, True, s, v)  # a dipole needs the last v


@compiled(nogil=True)
def _readout(w, g, m, first, last, want_forces, energies):  # type: ignore[no-untyped-def]
    """Atomic energies, and the adjoint of s in `m.gs`."""
    end, s = len(w.readout) - 1, m.s[first:last]
    matmul(s, w.readout[0], w.readout_bias[0], m.readout[0][first:last])
    silu(m.readout[0][first:last], m.readout_silu[0][first:last])
    for k in range(1, end + 1):
        matmul(m.readout_silu[k - 1][first:last], w.readout[k], w.readout_bias[k], m.readout[k][first:last])
        silu(m.readout[k][first:last], m.readout_silu[k][first:last])
    for i in range(first, last):
        total = 0.0
        for c in range(len(w.readout_last)):
            total += m.readout_silu[end][i, c] * w.readout_last[c]
        energies[i] = total + w.readout_offset[g.numbers[i]]
    if want_forces:
        for i in range(first, last):
            m.readout_silu[end][i] = w.readout_last
        for k in range(end, 0, -1):
            silu_adjoint(m.readout[k][first:last], m.readout_silu[k][first:last])
            matmul(m.readout_silu[k][first:last], w.readout_t[k], w.zero, m.readout_silu[k - 1][first:last])
        silu_adjoint(m.readout[0][first:last], m.readout_silu[0][first:last])
        matmul(m.readout_silu[0][first:last], w.readout_t[0], w.zero, m.gs[first:last])


@compiled(nogil=True)
def _atoms_backward(w, m, k, first, last):  # type: ignore[no-untyped-def]
    """Adjoints of atoms first to last between the messages of layers k + 1 and k, `_atoms_forward` the other way."""
    layers, f = m.x.shape[0], m.s.shape[1]
    inner = k < layers - 1
    gs, gv, gv_out, gx = m.gs[first:last], m.gv[first:last], m.gv_out[first:last], m.wide[first:last]
    narrow, g_context, g_vw, rows = m.narrow[first:last], m.double[first:last], m.g_vw[first:last], 3 * (last - first)
    if inner:
        gv[:] = gv_out
        hidden = m.hidden[k + 1, first:last]
        matmul(gx, w.message_2_t[k + 1], w.zero, narrow)
        silu_adjoint(hidden, narrow)
        matmul(narrow, w.message_1_t[k + 1], w.zero, hidden)  # which has been read for the last time
        _add(hidden, gs)
    vw, y, dot = m.vw[k, first:last], m.y[k, first:last], m.dot[k, first:last]
    gate_bwd(gs, gv, vw, dot, inner, gx)
    matmul(gx, w.update_2_t[k], w.zero, narrow)
    silu_adjoint(m.update_hidden[k, first:last], narrow)
    matmul(narrow, w.update_1_t[k], w.zero, g_context)
    norm_bwd(gs, gv, y, vw, m.context[k, first:last], g_context, inner, g_vw)
    matmul(g_vw.reshape(rows, 2 * f), w.mix_t[k], w.zero, gv_out.reshape(rows, f))
    if inner:
        _add(gv_out, gv)
    else:
        gv[:] = gv_out
    gx[:] = 0.0
    gv_out[:] = gv


@compiled(nogil=True)
def _add(a, b):  # type: ignore[no-untyped-def]
    """b += a."""
    for i in range(a.shape[0]):
        for c in range(a.shape[1]):
            b[i, c] += a[i, c]


@compiled(nogil=True)
def _pairs_backward(w, g, m, k, low, high):  # type: ignore[no-untyped-def]
    """What pairs low to high pull in layer k, in `m.pull`, and their adjoints."""
    message_bwd(
        m.x[k], m.v[k], m.gs, m.gv, w.table[k % w.table.shape[0]], w.spacing, g.receiver[low:high], g.sender[low:high],
        m.direction[low:high], m.distance[low:high], m.knot[low:high], m.fraction[low:high], k > 0, m.wide, m.gv_out,
        m.pull[low:high],
    )  # fmt: skip


@compiled(nogil=True)
def finish(w, g, m, positions, forces, virial):  # type: ignore[no-untyped-def]
    """Forces and virials from what all pairs pull."""
    p = m.pull[: len(g.receiver)]
    forces_of_pairs(p, g.receiver, g.sender, w.unit, forces)
    for q in range(len(g.receiver)):
        i, j = g.receiver[q], g.sender[q]
        for a in range(3):
            r = positions[j, a] - positions[i, a] + g.shift[q, a]
            for b in range(3):
                virial[g.molecule[i], a, b] += r * p[q, b] * w.unit
