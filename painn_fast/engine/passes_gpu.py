"""Energy and forces on a GPU, without autograd: the launches of one evaluation, in memory that exists before.

N atoms, E edges, M molecules, F features, L layers. Nothing is allocated and nothing waits for the device, so that the
whole can be captured in a CUDA graph. The first layer, whose scalars depend on the element alone and whose vectors are
zero, and the last, whose vectors the energy does not need, do less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import silu

from painn_fast.engine.gpu_weights import Dense, GpuWeights
from painn_fast.kernels.edges.triton import edge_forces, edge_vectors
from painn_fast.kernels.message.triton import force_blocks, message_force_bwd, message_fwd
from painn_fast.kernels.message.triton_adjoint import message_bwd
from painn_fast.kernels.node.reference import Mlp
from painn_fast.kernels.node.triton import Kept, node_bwd, node_fwd
from painn_fast.kernels.readout.triton import readout
from painn_fast.kernels.update.triton import gate_bwd, gate_fwd_kernel, launch, norm_bwd, norm_fwd


class Wanted(NamedTuple):
    """What an evaluation makes besides energies."""

    forces: bool
    stress: bool
    vectors: bool  # after the last layer, for heads that read them


@dataclass(frozen=True)
class Buffers:
    """Memory for up to N atoms, E edges and M molecules; leading axis L: one a layer, kept for the backward pass."""

    # the graph: atoms beyond the real ones have empty rows and element 0, and belong to no molecule
    numbers: Tensor  # [N] int64
    row_ptr: Tensor  # [N + 1] int64
    receiver: Tensor  # [E] int64
    sender: Tensor  # [E] int64
    mirror: Tensor  # [E] int64
    shift: Tensor  # [E, 3] float64, Å
    atom_ptr: Tensor  # [M + 1] int64
    positions: Tensor  # [N, 3] float64, Å
    # forward
    r: Tensor  # [E, 3] model units
    s_first: Tensor  # [N, F] of the elements
    s_middle: Tensor  # [N, F] after a message
    s: Tensor  # [N, F] after an update
    v_middle: Tensor  # [N, 3, F]
    v: Tensor  # [L, N, 3, F]
    x: Tensor  # [L, N, 3 F]
    message_hidden: Tensor  # [L, N, F]
    vw: Tensor  # [L, N, 3, 2 F]
    context: Tensor  # [L, N, 2 F]
    dot: Tensor  # [L, N, F]
    update_hidden: Tensor  # [L, N, F]
    y: Tensor  # [L, N, 3 F]
    hidden: list[Tensor]  # [N, H] of the readout
    atomic: Tensor  # [N] float64, energies in model units
    total: Tensor  # [M] float64, eV
    # backward
    g_hidden: list[Tensor]  # [N, H]
    gs: Tensor  # [N, F]
    gs_before: Tensor  # [N, F], of the layer before, where all layers are launched as one
    total_gs: Tensor  # [N, F], scratch
    gv: Tensor  # [N, 3, F] of v after an update
    gv_middle: Tensor  # [N, 3, F] of v before it
    gv_before: Tensor  # [N, 3, F]
    gx: Tensor  # [N, 3 F]
    gy: Tensor  # [N, 3 F]
    g_context: Tensor  # [N, 2 F]
    g_vw: Tensor  # [N, 3, 2 F]
    narrow: Tensor  # [N, F]
    force: Tensor  # [parts, N, 3] model units, a sum over its parts
    forces: Tensor  # [N, 3] float64, eV/Å
    gr: Tensor  # [E, 3] model units
    pair_force: Tensor  # [N, 3] float64, from gr
    virial: Tensor  # [N, 3, 3] float64, from gr

    def tensors(self) -> Iterator[Tensor]:
        """All of them."""
        for field in fields(self):
            value = getattr(self, field.name)
            yield from value if isinstance(value, list) else (value,)


def buffers(w: GpuWeights, atoms: int, edges: int, molecules: int, device: torch.device) -> Buffers:
    """Memory that stands for an empty graph."""
    n, f, layers = atoms, w.features, len(w.layers)
    widths = [dense.weight.shape[1] for dense in w.readout]

    def space(*shape: int, dtype: torch.dtype = w.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    def whole(*shape: int) -> Tensor:
        return space(*shape, dtype=torch.int64)

    def double(*shape: int) -> Tensor:
        return space(*shape, dtype=torch.float64)

    return Buffers(
        numbers=whole(n),
        row_ptr=whole(n + 1),
        receiver=whole(edges),
        sender=whole(edges),
        mirror=whole(edges),
        shift=double(edges, 3),
        atom_ptr=whole(molecules + 1),
        positions=double(n, 3),
        r=space(edges, 3),
        s_first=space(n, f),
        s_middle=space(n, f),
        s=space(n, f),
        v_middle=space(n, 3, f),
        v=space(layers, n, 3, f),
        x=space(layers, n, 3 * f),
        message_hidden=space(layers, n, f),
        vw=space(layers, n, 3, 2 * f),
        context=space(layers, n, 2 * f),
        dot=space(layers, n, f),
        update_hidden=space(layers, n, f),
        y=space(layers, n, 3 * f),
        hidden=[space(n, width) for width in widths],
        atomic=double(n),
        total=double(molecules),
        g_hidden=[space(n, width) for width in widths],
        gs=space(n, f),
        gs_before=space(n, f),
        total_gs=space(n, f),
        gv=space(n, 3, f),
        gv_middle=space(n, 3, f),
        gv_before=space(n, 3, f),
        gx=space(n, 3 * f),
        gy=space(n, 3 * f),
        g_context=space(n, 2 * f),
        g_vw=space(n, 3, 2 * f),
        narrow=space(n, f),
        force=space(force_blocks(f, device), n, 3),
        forces=double(n, 3),
        gr=space(edges, 3),
        pair_force=double(n, 3),
        virial=double(n, 3, 3),
    )


def launch_all(w: GpuWeights, m: Buffers, wanted: Wanted, node: Node, positions: Tensor) -> None:
    """Atomic energies and totals, and what else is wanted, from the graph in `m` and positions [N, 3] Å."""
    last = len(w.layers) - 1
    edge_vectors(positions, m.receiver, m.sender, m.shift, w.unit, m.r)
    for k in range(last + 1):
        s, v = (m.s_first, m.v[0]) if k == 0 else (m.s, m.v[k - 1])
        out = m.s_middle, m.v_middle
        graph = m.r, w.layers[k].filter, w.radial, m.row_ptr, m.sender
        message_fwd(m.x[k], v, *graph, k > 0, s=s, out=out)
        node.forward(w, m, k, vectors=k < last or wanted.vectors)
    _readout(w, m, wanted.forces or wanted.stress)
    if wanted.forces or wanted.stress:
        for k in range(last, -1, -1):
            node.backward(w, m, k)
            (_message_bwd if wanted.stress else _message_force_bwd)(w, m, k)
    if wanted.forces:
        torch.sum(m.force, 0, dtype=torch.float64, out=m.forces)
        m.forces.mul_(w.energy_unit * w.unit)
    if wanted.stress:
        edge_forces(m.gr, m.r, m.row_ptr, m.mirror, m.pair_force, m.virial)


def _message_force_bwd(w: GpuWeights, m: Buffers, k: int) -> None:
    """gx, gv and the force that layer k adds."""
    graph = m.r, w.layers[k].filter, w.radial, m.row_ptr, m.sender
    out = (m.gx, m.gv, m.force) if k > 0 else (None, None, m.force)
    add = k < len(w.layers) - 1
    v = m.v[max(k - 1, 0)]  # not read in the first layer
    message_force_bwd(m.gs, m.gv_middle, m.x[k], v, *graph, k > 0, residual=True, add=add, out=out)


def _message_bwd(w: GpuWeights, m: Buffers, k: int) -> None:
    """gx, gv and what layer k adds to the adjoint of r."""
    graph = m.r, w.layers[k].filter, w.radial, m.row_ptr, m.sender, m.mirror
    gx, gv_in, gr = message_bwd(m.gs, m.gv_middle, m.x[k], m.v[max(k - 1, 0)], *graph, k > 0)
    if gv_in is not None:
        m.gx.copy_(gx)
        torch.add(m.gv_middle, gv_in, out=m.gv)
    m.gr.copy_(gr) if k == len(w.layers) - 1 else m.gr.add_(gr)


def _readout(w: GpuWeights, m: Buffers, adjoint: bool) -> None:
    """Energies, and the adjoint of the first hidden layer, which is there already."""
    for k in range(1, len(w.readout)):
        _multiply(silu(m.hidden[k - 1]), w.readout[k].weight, m.hidden[k], w.readout[k].bias)
    last = m.g_hidden[-1] if adjoint else None
    readout(
        m.hidden[-1],
        w.last,
        w.last_bias,
        w.reference,
        m.numbers,
        m.atom_ptr,
        m.atomic,
        m.total,
        last,
        scale=w.energy_unit,
    )
    if adjoint:
        for k in range(len(w.readout) - 1, 0, -1):
            _multiply(m.g_hidden[k], w.readout[k].transposed, m.g_hidden[k - 1])
            _silu_backward(m.g_hidden[k - 1], m.hidden[k - 1])


class Node(Protocol):
    """What atoms do between two messages."""

    def forward(self, w: GpuWeights, m: Buffers, k: int, *, vectors: bool) -> None:
        """s and v after the update of layer k, and x of the next layer or the first hidden layer of the readout."""

    def backward(self, w: GpuWeights, m: Buffers, k: int) -> None:
        """gs and gv of s and v before the update of layer k, from gs, gv, gx or the adjoint of the readout."""


@dataclass(frozen=True)
class FusedNode(Node):
    """One launch forward and one backward, products in a precision."""

    precision: str

    def forward(self, w: GpuWeights, m: Buffers, k: int, *, vectors: bool) -> None:
        layer, following, x = w.layers[k], mlp_of(w.readout[:1]), None
        if k + 1 < len(w.layers):
            following, x = mlp_of(w.layers[k + 1].message), m.x[k + 1]
        update = mlp_of(layer.update)
        given = m.s_middle, m.v_middle, layer.mix.weight, update, following, w.epsilon, self._kept(w, m, k)
        node_fwd(*given, m.narrow, m.s, m.v[k], x, vectors=vectors, precision=self.precision)

    def backward(self, w: GpuWeights, m: Buffers, k: int) -> None:
        layer, inner = w.layers[k], k + 1 < len(w.layers)
        following = [dense.transposed for dense in (w.layers[k + 1].message if inner else w.readout[:1])]
        update = layer.update[0].transposed, layer.update[1].transposed
        given = m.gs, m.gv, m.gx if inner else m.g_hidden[0], layer.mix.transposed, update
        after = following[0], following[1] if inner else None
        memory = m.narrow, m.total_gs, m.g_vw, m.gs, m.gv_middle
        node_bwd(*given, after, w.epsilon, self._kept(w, m, k), *memory, precision=self.precision)

    def _kept(self, w: GpuWeights, m: Buffers, k: int) -> Kept:
        following = m.message_hidden[k + 1] if k + 1 < len(w.layers) else m.hidden[0]
        return Kept(m.vw[k], m.update_hidden[k], m.y[k], following)


def mlp_of(layers: Sequence[Dense]) -> Mlp:
    """One or two layers as the kernels take them."""
    first, *second = layers
    assert first.bias is not None  # as in every layer but the mixing of channels
    rest = (second[0].weight, second[0].bias) if second else (None, None)
    return Mlp(first.weight, first.bias, *rest)


class BlasNode(Node):
    """Matrix products by the BLAS, one pass over memory between them."""

    def forward(self, w: GpuWeights, m: Buffers, k: int, *, vectors: bool) -> None:
        layer, f = w.layers[k], w.features
        _multiply(m.v_middle.view(-1, f), layer.mix.weight, m.vw[k].view(-1, 2 * f))
        norm_fwd(m.s_middle, m.vw[k], w.epsilon, m.context[k], m.dot[k])
        self._mlp(m.context[k], layer.update, m.update_hidden[k], m.y[k], m)
        given = m.s_middle, m.v_middle, m.y[k], m.vw[k], m.dot[k], m.s, m.v[k]
        launch(gate_fwd_kernel, m.s.shape, *given, VECTORS=vectors)
        if k + 1 < len(w.layers):
            self._mlp(m.s, w.layers[k + 1].message, m.message_hidden[k + 1], m.x[k + 1], m)
        else:
            _multiply(m.s, w.readout[0].weight, m.hidden[0], w.readout[0].bias)

    def backward(self, w: GpuWeights, m: Buffers, k: int) -> None:
        layer, f, inner = w.layers[k], w.features, k + 1 < len(w.layers)
        if inner:
            first, second = w.layers[k + 1].message
            _multiply(m.gx, second.transposed, m.narrow)
            _silu_backward(m.narrow, m.message_hidden[k + 1])
            _multiply(m.narrow, first.transposed, m.gs, m.gs)
        else:
            _multiply(m.g_hidden[0], w.readout[0].transposed, m.gs)
        gate_bwd(m.gs, m.gv, m.vw[k], m.dot[k], inner, m.gy)
        _multiply(m.gy, layer.update[1].transposed, m.narrow)
        _silu_backward(m.narrow, m.update_hidden[k])
        _multiply(m.narrow, layer.update[0].transposed, m.g_context)
        norm_bwd(m.gs, m.gv, m.y[k], m.vw[k], m.context[k], m.g_context, inner, m.g_vw)
        gv, g_vw = m.gv.view(-1, f) if inner else None, m.g_vw.view(-1, 2 * f)
        _multiply(g_vw, layer.mix.transposed, m.gv_middle.view(-1, f), gv)

    def _mlp(self, a: Tensor, layers: tuple[Dense, Dense], hidden: Tensor, out: Tensor, m: Buffers) -> None:
        first, second = layers
        _multiply(a, first.weight, hidden, first.bias)
        torch.ops.aten.silu.out(hidden, out=m.narrow)
        _multiply(m.narrow, second.weight, out, second.bias)


def _multiply(a: Tensor, weight: Tensor, out: Tensor, add: Tensor | None = None) -> None:
    """out = a weight + add; factors are rounded to the dtype of the weight, sums are in that of `out`."""
    if weight.dtype != a.dtype:
        product = torch.mm(a.to(weight.dtype), weight)
        out.copy_(product) if add is None else torch.add(product, add, out=out)
    elif add is None:
        torch.mm(a, weight, out=out)
    else:
        torch.addmm(add, a, weight, out=out)


def _silu_backward(g: Tensor, h: Tensor) -> None:
    """g becomes g silu'(h)."""
    torch.ops.aten.silu_backward.grad_input(g, h, grad_input=g)
