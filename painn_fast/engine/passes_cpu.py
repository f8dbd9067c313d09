"""Energy and forces of a chunk of molecules in one compiled call: the kernels in their order, without autograd.

n atoms, P pairs (each edge of the graph once, its mirror implied), F features, L layers, T filters. v is
[n, 3 F]: x, y and z one after another. The first layer, whose scalars depend on no position and whose vectors are
zero, and the last, whose vectors the energy does not need, do less.

Filters come from a table of splines, or, where that is not exact enough, from the K functions that they are made of: a
product with the weights for each block of pairs gives rows of values and slopes, a table whose knots are the pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from painn_fast.graph.cells import FARTHEST
from painn_fast.kernels.dense.cpu import activation, activation_adjoint, aligned, matmul
from painn_fast.kernels.jit import compiled
from painn_fast.kernels.message.edges_cpu import gather
from painn_fast.kernels.message.pairs_cpu import forces_of_pairs, message_bwd, message_fwd, pair_geometry
from painn_fast.kernels.network.layout import Activations, Layers, activations
from painn_fast.kernels.network.passes_cpu import message_network, update
from painn_fast.kernels.update.cpu import gate_bwd, norm_bwd

GEOMETRY, ATOMS_FORWARD, PAIRS_FORWARD, ATOMS_BACKWARD, PAIRS_BACKWARD = range(5)
ROWS = 144
"""Atoms of a block: more read the weights less often, fewer keep their features in the cache."""
EXACT_PAIRS = 32
"""Pairs whose exact filters are made together: these stay in the cache until the messages have read them."""


class EngineWeights(NamedTuple):
    """A model; one without an energy has a readout of zeros."""

    layers: Layers
    embedding: np.ndarray  # [max_z, F]
    first_x: np.ndarray  # [max_z, 3 F], the first message network of the embedding
    table: np.ndarray  # [T, knots + 6, 3 F], without rows where filters are exact
    filter: np.ndarray  # [T, panels, K, W] for exact filters, otherwise [T, 0, 0, 0]
    table_start: float
    spacing: float
    cutoff: float
    unit: float  # length units of the model in an Å
    readout: tuple[np.ndarray, ...]  # hidden layers of the energy, packed
    readout_bias: tuple[np.ndarray, ...]
    readout_t: tuple[np.ndarray, ...]
    readout_last: np.ndarray  # [H]
    readout_offset: np.ndarray  # [max_z] float64: last bias, atomic reference and mean, model units


class Pairs(NamedTuple):
    """The graph of a chunk."""

    numbers: np.ndarray  # [n]
    receiver: np.ndarray  # [P]
    sender: np.ndarray  # [P]
    shift: np.ndarray  # [P, 3] Å
    molecule: np.ndarray  # [n] index of its molecule in the batch
    embedded: np.ndarray  # [n, F] before the first message, of models with a charge or a spin; otherwise [0, F]


class Scratch(NamedTuple):
    """Memory of a thread for chunks of up to n atoms and P pairs."""

    kept: Activations  # for the backward pass
    direction: np.ndarray  # [P, 3]
    distance: np.ndarray  # [P]
    knot: np.ndarray  # [P]
    spline: np.ndarray  # [P, 12]
    basis: np.ndarray  # [P, 2, K] for exact filters: functions of the distance and their derivatives
    pull: np.ndarray  # [P, 3] float64, -dE/dr_ij in model units
    filters: np.ndarray  # [2, 3 F], of one pair; the only memory that belongs to no atom and no pair
    wide: np.ndarray  # [n, 3 F], scratch like the four below
    narrow: np.ndarray  # [n, F]
    double: np.ndarray  # [n, 2 F]
    g_vw: np.ndarray  # [n, 3, 2 F]
    gv_out: np.ndarray  # [n, 3 F]
    gs: np.ndarray  # [n, F]
    gv: np.ndarray  # [n, 3 F]
    readout: tuple[np.ndarray, ...]  # [n, H]
    readout_active: tuple[np.ndarray, ...]  # [n, H]


def scratch(
    atoms: int, pairs: int, layers: int, features: int, functions: int, hidden: tuple[int, ...], dtype: np.dtype
) -> Scratch:
    """Memory for `Scratch`; `functions` are K, or 0 with a table, and `hidden` the widths of the readout."""

    def space(*shape: int) -> np.ndarray:
        memory = aligned(shape, dtype)
        memory.fill(0)
        return memory

    n, f = atoms, features
    return Scratch(
        kept=activations(layers, n, f, dtype, keep="for positions"),
        direction=space(pairs, 3),
        distance=space(pairs),
        knot=np.zeros(pairs, np.int64),
        spline=space(pairs, 12),
        basis=space(pairs if functions else 0, 2, functions),
        pull=np.zeros((pairs, 3)),
        filters=space(2, 3 * f),
        wide=space(n, 3 * f),
        narrow=space(n, f),
        double=space(n, 2 * f),
        g_vw=space(n, 3, 2 * f),
        gv_out=space(n, 3 * f),
        gs=space(n, f),
        gv=space(n, 3 * f),
        readout=tuple(space(n, width) for width in hidden),
        readout_active=tuple(space(n, width) for width in hidden),
    )


@compiled(nogil=True, notice=("energies and forces", 8))
def energy_and_forces(
    w: EngineWeights, g: Pairs, m: Scratch, positions: np.ndarray, want_forces: bool, energies: np.ndarray,
    forces: np.ndarray, virial: np.ndarray,
) -> None:  # fmt: skip
    """Atomic energies [n], forces [n, 3] and virials [M, 3, 3] (grow) in model units of energy, and Å.

    Args:
        positions: [n, 3] Å.
    """
    pairs, layers = len(g.receiver), m.kept.x.shape[0]
    _geometry(w, g, m, positions, 0, pairs)
    for k in range(layers + 1):
        for first in range(0, len(g.numbers), ROWS):
            _atoms_forward(w, g, m, k, first, min(first + ROWS, len(g.numbers)), want_forces, energies)
        if k < layers:
            _pairs(w, g, m, k, 0, pairs, False)
    if want_forces:
        for k in range(layers - 1, -1, -1):
            for first in range(0, len(g.numbers), ROWS):
                _atoms_backward(w, m, k, first, min(first + ROWS, len(g.numbers)))
            _pairs(w, g, m, k, 0, pairs, True)
        finish(w, g, m, positions, forces, virial)


@compiled(nogil=True)
def in_units(
    energies: np.ndarray, forces: np.ndarray, positions: np.ndarray, molecule: np.ndarray, unit: np.ndarray,
    energy: np.ndarray,
) -> bool:  # fmt: skip
    """Atomic energies [K, N] and forces [K, N, 3], or none, of K models from their units [K], and energies of molecules
    [K, M] (grow).

    Returns:
        Whether these are finite, and the positions [N, 3] within `FARTHEST`.
    """
    nothing, near = 0.0, True  # zero times any number; otherwise NaN
    for i in range(len(positions)):
        for x in range(3):
            near = near and abs(positions[i, x]) <= FARTHEST
    for k in range(len(unit)):
        for i in range(len(molecule)):
            energies[k, i] *= unit[k]
            energy[k, molecule[i]] += energies[k, i]
            nothing += 0.0 * energies[k, i]
        for i in range(forces.shape[1]):
            for x in range(3):
                forces[k, i, x] *= unit[k]
                nothing += 0.0 * forces[k, i, x]
    return near and nothing == 0.0


@compiled(nogil=True, notice=("energies and forces of large molecules", 8))
def step(
    w: EngineWeights, g: Pairs, m: Scratch, positions: np.ndarray, want_forces: bool, energies: np.ndarray, which: int,
    k: int, ranges: np.ndarray,
) -> None:  # fmt: skip
    """One step of `energy_and_forces` for some atoms or pairs, in its order; no two calls at a time write to one atom.

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
            _pairs(w, g, m, k, first, last, False)
        elif which == ATOMS_BACKWARD:
            _atoms_backward(w, m, k, first, last)
        else:
            _pairs(w, g, m, k, first, last, True)


@compiled(nogil=True)
def _geometry(w, g, m, positions, low, high):  # type: ignore[no-untyped-def]
    """Directions and table rows of pairs low to high."""
    pair_geometry(
        positions, g.receiver[low:high], g.sender[low:high], g.shift[low:high], w.unit, w.table_start, w.spacing,
        w.cutoff, m.direction[low:high], m.distance[low:high], m.knot[low:high], m.spline[low:high],
    )  # fmt: skip
    m.pull[low:high] = 0.0


@compiled(nogil=True)
def _atoms_forward(w, g, m, k, first, last, want_forces, energies):  # type: ignore[no-untyped-def]
    """Atoms first to last between the messages of layers k - 1 and k: the one's update, the other's network.

    Before the first messages the embedding, after the last the readout.
    """
    a = m.kept
    layers = a.x.shape[0]
    if k == 0:
        a.v[0, first:last] = 0.0
        if len(g.embedded):
            for i in range(first, last):
                for c in range(a.s.shape[2]):
                    a.s[0, i, c] = g.embedded[i, c]
            message_network(w.layers, a, 0, first, last)
        else:
            gather(w.embedding, g.numbers[first:last], last - first, a.s[0, first:last])
            gather(w.first_x, g.numbers[first:last], last - first, a.x[0, first:last])
    else:
        update(w.layers, a, k - 1, first, last)
    if k == layers:
        _readout(w, g, m, first, last, want_forces, energies)
        return
    if k > 0:
        message_network(w.layers, a, k, first, last)
    _copy(a.v[k, first:last], a.v[k + 1, first:last])


@compiled(nogil=True)
def _pairs(w, g, m, k, low, high, backward):  # type: ignore[no-untyped-def]
    """Messages of layer k along pairs low to high; `backward`, what these pull, in `m.pull`, and their adjoints."""
    if w.filter.shape[1] > 0:
        _pairs_exactly(w, g, m, k, low, high, backward)
    else:
        table, knot, spline = w.table[k % w.table.shape[0]], m.knot[low:high], m.spline[low:high]
        _visit(w.spacing, table, g, m, k, low, high, knot, spline, backward)


@compiled(nogil=True, allocates=True)
def _pairs_exactly(w, g, m, k, low, high, backward):  # type: ignore[no-untyped-def]
    """The same with filters that are computed for `EXACT_PAIRS` at a time."""
    table = np.empty((2 * EXACT_PAIRS + 4, w.table.shape[2]), w.table.dtype)
    row, at = np.empty(EXACT_PAIRS, m.knot.dtype), np.empty((EXACT_PAIRS, 12), m.spline.dtype)
    for first in range(low, high, EXACT_PAIRS):
        last = min(first + EXACT_PAIRS, high)
        _filters(w, m, k, first, last, table, row, at)
        _visit(w.spacing, table, g, m, k, first, last, row, at, backward)


@compiled(nogil=True)
def _visit(spacing, table, g, m, k, first, last, knot, spline, backward):  # type: ignore[no-untyped-def]
    """Pairs first to last, whose rows and weights in the table are `knot` and `spline`."""
    a, receiver, sender, direction = m.kept, g.receiver[first:last], g.sender[first:last], m.direction[first:last]
    if backward:
        message_bwd(
            a.x[k], a.v[k], m.gs, m.gv, table, spacing, receiver, sender, direction, m.distance[first:last], knot,
            spline, k > 0, m.filters, m.wide, m.gv_out, m.pull[first:last],
        )  # fmt: skip
    else:
        message_fwd(a.x[k], a.v[k], table, receiver, sender, direction, knot, spline, k > 0, a.s[0], a.v[k + 1])


@compiled(nogil=True)
def _filters(w, m, k, first, last, table, row, at):  # type: ignore[no-untyped-def]
    """A table for pairs first to last alone, their rows in it and the weights of these.

    Value and slope of a filter are two rows; those behind the last pair are read, times zero.
    """
    pairs, functions = last - first, m.basis.shape[2]
    basis = m.basis[first:last].reshape(2 * pairs, functions)
    matmul(basis, w.filter[k % w.table.shape[0]], w.layers.zero, table[: 2 * pairs])
    table[2 * pairs : 2 * pairs + 4] = 0.0
    for q in range(pairs):
        row[q] = 2 * q if m.knot[first + q] >= 0 else -1
        for c in range(12):
            at[q, c] = 0.0 * m.spline[first + q, 0]  # NaN stays NaN
        at[q, 0] += 1.0
        at[q, 7] += 1.0


@compiled(nogil=True)
def _readout(w, g, m, first, last, want_forces, energies):  # type: ignore[no-untyped-def]
    """Atomic energies, and the adjoint of s in `m.gs`."""
    d, a = w.layers, m.kept
    end, s = len(w.readout) - 1, a.s[0, first:last]
    matmul(s, w.readout[0], w.readout_bias[0], m.readout[0][first:last])
    activation(d.softplus, m.readout[0][first:last], m.readout_active[0][first:last])
    for k in range(1, end + 1):
        matmul(m.readout_active[k - 1][first:last], w.readout[k], w.readout_bias[k], m.readout[k][first:last])
        activation(d.softplus, m.readout[k][first:last], m.readout_active[k][first:last])
    for i in range(first, last):
        total = 0.0
        for c in range(len(w.readout_last)):
            total += m.readout_active[end][i, c] * w.readout_last[c]
        energies[i] = total + w.readout_offset[g.numbers[i]]
    if want_forces:
        for i in range(first, last):
            for c in range(len(w.readout_last)):
                m.readout_active[end][i, c] = w.readout_last[c]
        for k in range(end, 0, -1):
            activation_adjoint(d.softplus, m.readout[k][first:last], m.readout_active[k][first:last])
            matmul(m.readout_active[k][first:last], w.readout_t[k], d.zero, m.readout_active[k - 1][first:last])
        activation_adjoint(d.softplus, m.readout[0][first:last], m.readout_active[0][first:last])
        matmul(m.readout_active[0][first:last], w.readout_t[0], d.zero, m.gs[first:last])


@compiled(nogil=True)
def _atoms_backward(w, m, k, first, last):  # type: ignore[no-untyped-def]
    """Adjoints of atoms first to last between the messages of layers k + 1 and k, `_atoms_forward` the other way."""
    d, a = w.layers, m.kept
    layers, f = a.x.shape[0], m.gs.shape[1]
    inner = k < layers - 1
    gs, gv, gv_out, gx = m.gs[first:last], m.gv[first:last], m.gv_out[first:last], m.wide[first:last]
    narrow, g_context, g_vw, rows = m.narrow[first:last], m.double[first:last], m.g_vw[first:last], 3 * (last - first)
    if inner:
        _copy(gv_out, gv)
        hidden = a.hidden[k + 1, first:last]
        matmul(gx, d.message_2_t[k + 1], d.zero, narrow)
        activation_adjoint(d.softplus, hidden, narrow)
        matmul(narrow, d.message_1_t[k + 1], d.zero, hidden)  # which has been read for the last time
        _add(hidden, gs)
    vw, y, dot = a.vw[k, first:last], a.y[k, first:last], a.dot[k, first:last]
    gate_bwd(gs, gv, vw, dot, inner, gx)
    matmul(gx, d.update_2_t[k], d.zero, narrow)
    activation_adjoint(d.softplus, a.update_hidden[k, first:last], narrow)
    matmul(narrow, d.update_1_t[k], d.zero, g_context)
    norm_bwd(gs, gv, y, vw, a.context[k, first:last], g_context, inner, g_vw)
    matmul(g_vw.reshape(rows, 2 * f), d.mix_t[k], d.zero, gv_out.reshape(rows, f))
    if inner:
        _add(gv_out, gv)
    else:
        _copy(gv_out, gv)
    gx[:] = 0.0
    _copy(gv, gv_out)


@compiled(nogil=True)
def _copy(a, b):  # type: ignore[no-untyped-def]
    """b = a, without the message about shapes that numba would compile."""
    for i in range(a.shape[0]):
        for c in range(a.shape[1]):
            b[i, c] = a[i, c]


@compiled(nogil=True)
def _add(a, b):  # type: ignore[no-untyped-def]
    """b += a."""
    for i in range(a.shape[0]):
        for c in range(a.shape[1]):
            b[i, c] += a[i, c]


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
