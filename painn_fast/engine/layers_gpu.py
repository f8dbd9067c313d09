"""Energy and forces on a GPU, a launch a layer forward and one backward: for batches that are not large."""

from __future__ import annotations

from torch import Tensor

from painn_fast.engine.gpu_weights import GpuWeights
from painn_fast.engine.passes_gpu import Buffers, Wanted, mlp_of
from painn_fast.kernels.layer.triton import Backward, Edges, Readout, Results, layer_bwd, layer_fwd, layer_warps
from painn_fast.kernels.node.triton import Kept
from painn_fast.kernels.readout.triton import molecule_totals


def launch_layers(w: GpuWeights, m: Buffers, wanted: Wanted, precision: str, positions: Tensor) -> None:
    """What `launch_all` does, for a readout of one hidden layer and without stress.

    The node of the last layer goes on with the readout and its own adjoint. Then a launch is the adjoint of a message
    and of the node before it, each for a program's own atoms; their neighbours' gs and gv are of the launch before.
    """
    last, scale = len(w.layers) - 1, w.energy_unit
    edges = Edges(m.r, m.row_ptr, m.sender, positions, m.shift, w.unit)
    adjoints = (m.gs, m.gv_middle), (m.gs_before, m.gv_before)
    for k, layer in enumerate(w.layers):
        s, v = (m.s_first, None) if k == 0 else (m.s, m.v[k - 1])
        readout, back, x = None, None, None
        if k < last:
            following, x = mlp_of(w.layers[k + 1].message), m.x[k + 1]
        else:
            following = mlp_of(w.readout)
            g_hidden = m.g_hidden[0] if wanted.forces else None
            readout = Readout(w.last, w.last_bias, w.reference, m.numbers, m.atomic, g_hidden)
            back = _backward(w, m, k, adjoints[k % 2]) if wanted.forces else None
        layer_fwd(
            m.x[k], v, s, edges, layer.filter, w.radial, (m.s_middle, m.v_middle), layer.mix.weight,
            mlp_of(layer.update), following, w.epsilon, _kept(w, m, k), m.narrow, m.s, m.v[k], x,
            readout=readout, back=back, vectors=k < last or wanted.vectors, precision=precision,
        )  # fmt: skip
        edges = edges._replace(positions=None, shift=None)
    if not wanted.forces:
        molecule_totals(m.atomic, m.atom_ptr, m.total, scale, layer_warps(w.dtype, precision))
    for k in range(last, -1, -1) if wanted.forces else ():
        before = (_kept(w, m, k - 1), _backward(w, m, k - 1, adjoints[(k - 1) % 2]), m.gx, m.gv) if k > 0 else None
        results = Results(m.forces, m.atomic, m.atom_ptr, m.total, scale) if k == 0 else None
        layer_bwd(
            *adjoints[k % 2], m.x[k], m.v[k - 1] if k > 0 else None, edges, w.layers[k].filter, w.radial, m.force[0],
            add=k < last, before=before, results=results, epsilon=w.epsilon, precision=precision,
        )  # fmt: skip


def _backward(w: GpuWeights, m: Buffers, k: int, out: tuple[Tensor, Tensor]) -> Backward:
    """Of the node of layer k."""
    layer, inner = w.layers[k], k + 1 < len(w.layers)
    following = [dense.transposed for dense in (w.layers[k + 1].message if inner else w.readout)]
    weights = layer.mix.transposed, layer.update[0].transposed, layer.update[1].transposed
    after = following[0], following[1] if inner else None
    return Backward(*weights, *after, m.narrow, m.total_gs, m.g_vw, *out)


def _kept(w: GpuWeights, m: Buffers, k: int) -> Kept:
    following = m.message_hidden[k + 1] if k + 1 < len(w.layers) else m.hidden[0]
    return Kept(m.vw[k], m.update_hidden[k], m.y[k], following)
