"""Subjects of the tuner: every kernel on synthetic molecules, and its results in float64 by plain torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from painn_fast.kernels.message import triton as message
from painn_fast.kernels.message import triton_adjoint as adjoint
from painn_fast.kernels.message import triton_second as second
from painn_fast.kernels.message.reference import message as message_reference
from painn_fast.kernels.neighbors.ops import neighbors
from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.readout import reference as readout_reference
from painn_fast.kernels.readout.triton import readout
from painn_fast.kernels.tools.tuning.tuner import Subject
from painn_fast.kernels.update import reference as update_reference
from painn_fast.kernels.update import triton_training as update

SIZES = {"ethanol-64": [9] * 64, "qm9-50": [15 + k % 8 for k in range(50)], "large": [9] * 1024}
"""Atoms of each molecule."""
F, K, CUTOFF, EPSILON = 128, 20, 5.0, 1e-8
SPACING = 1.3
"""Å between neighbours."""
MOST_ATOMS = 2000
"""Largest size for the reference, which stores E x F; a larger one is compared with the launch as it was."""

Results = dict[str, Sequence[Tensor]]
Four = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Molecules:
    """Random inputs of all operations on the graph of some molecules."""

    radial: Radial
    graph: tuple[Tensor, Tensor, Tensor]  # row_ptr, sender, mirror
    atom_ptr: Tensor
    inputs: Four  # x, v, r, weight
    adjoints: tuple[Tensor, Tensor]  # gs, gv
    tangents: Four  # of the inputs
    update: tuple[Tensor, ...]  # s, y, vw, dot, g_context, g_dot
    readout: Four  # h, w, b, reference


def molecules(sizes: Sequence[int], device: torch.device) -> Molecules:
    """The same numbers on every device, float32."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    grid = torch.cartesian_prod(*[torch.arange(4.0, dtype=torch.float64)] * 3)
    nearest = grid[(grid - 1.4).norm(dim=1).argsort()]
    positions = torch.cat([nearest[:size] for size in sizes]) * SPACING
    positions += 0.1 * torch.randn(positions.shape, generator=generator)
    atom_ptr = torch.tensor([0, *sizes]).cumsum(0)
    row_ptr, sender, mirror = neighbors(positions, atom_ptr, CUTOFF)
    receiver = torch.repeat_interleave(torch.arange(len(positions)), row_ptr.diff())
    r = (positions[sender] - positions[receiver]).float().to(device)
    n, e = len(positions), len(r)
    first = torch.arange(1, K + 1, device=device) * (math.pi / CUTOFF)
    weight = random(K + 1, 3 * F) / math.sqrt(K)
    return Molecules(
        radial=Radial("sinc", first, torch.ones_like(first), "cosine", CUTOFF),
        graph=(row_ptr.to(device), sender.to(device), mirror.to(device)),
        atom_ptr=atom_ptr.to(device),
        inputs=(random(n, 3 * F), random(n, 3, F), r, weight),
        adjoints=(random(n, F), random(n, 3, F)),
        tangents=(random(n, 3 * F), random(n, 3, F), random(e, 3), random(K + 1, 3 * F) / math.sqrt(K)),
        update=(random(n, F), random(n, 3 * F), random(n, 3, 2 * F), random(n, F), random(n, 2 * F), random(n, F)),
        readout=(random(n, F // 2), random(F // 2), random(1), torch.zeros(20, dtype=torch.float64, device=device)),
    )


def subjects(sizes: Mapping[str, Sequence[int]], device: torch.device) -> list[Subject]:
    """Every launch that has numbers, those of inference first."""
    problems = {size: molecules(atoms, device) for size, atoms in sizes.items()}
    calls = {size: _calls(problem) for size, problem in problems.items()}
    expected: dict[str, Results] = {}
    for size, problem in problems.items():
        if len(problem.inputs[0]) <= MOST_ATOMS:
            expected[size] = references(problem)
        else:
            expected[size] = {name: call() for name, call in calls[size].items()}
    return [
        Subject(name, {size: calls[size][name] for size in sizes}, {size: expected[size][name] for size in sizes})
        for name in next(iter(calls.values()))
    ]


def _calls(p: Molecules) -> dict[str, Callable[[], Sequence[Tensor]]]:
    """Launches by their names, in the order of what they are worth."""
    (row_ptr, sender, mirror), (x, v, r, _), along = p.graph, p.inputs, (*p.tangents[:3], None)
    graph = p.radial, row_ptr, sender
    both = *p.adjoints, *p.inputs
    return {
        "message_force_bwd": lambda: [t for t in message.message_force_bwd(*both, *graph) if t is not None],
        "message_fwd": lambda: message.message_fwd(*p.inputs, *graph),
        "message_bwd": lambda: [t for t in adjoint.message_bwd(*both, *graph, mirror) if t is not None],
        "message_bwd_tangent": lambda: second.message_bwd_tangent(*both, *along, *graph, mirror),
        "message_tangent": lambda: second.message_tangent(*p.inputs, *along, *graph),
        "message_weight_bwd": lambda: [adjoint.message_weight_bwd(*p.adjoints, x, v, r, p.radial, row_ptr, sender)],
        "message_weight_bwd_tangent": lambda: [
            second.message_weight_bwd_tangent(*p.adjoints, x, v, r, *p.tangents[:3], p.radial, row_ptr, sender)
        ],
        "update": lambda: _update(p),
        "readout": lambda: _readout(p),
        "message_bwd_tangent, weight moves": lambda: second.message_bwd_tangent(*both, *p.tangents, *graph, mirror),
        "message_tangent, weight moves": lambda: second.message_tangent(*p.inputs, *p.tangents, *graph),
    }


def _update(p: Molecules) -> list[Tensor]:
    """context, dot, s_out, v_out; gs, g_vw of the norm; gy, g_vw, g_dot of the gate."""
    s, y, vw, dot, g_context, g_dot = p.update
    v, (gs, gv) = p.inputs[1], p.adjoints
    like = (g_context, dot, s, v, s, vw, y, vw, dot)
    context, dot_out, s_out, v_out, gs_out, g_vw, gy, g_vw_gate, g_dot_out = out = [torch.empty_like(t) for t in like]
    update.norm(s, vw, EPSILON, context, dot_out)
    update.gate(s, v, y, vw, dot, s_out, v_out)
    update.norm_adjoint(g_context, g_dot, vw, EPSILON, gs_out, g_vw)
    update.gate_adjoint(gs, gv, y, vw, dot, gy, g_vw_gate, g_dot_out)
    return out


def _readout(p: Molecules) -> list[Tensor]:
    """Energies of atoms and molecules, adjoint of the hidden layer."""
    h = p.readout[0]
    atomic = torch.empty(len(h), dtype=torch.float64, device=h.device)
    total, g = atomic.new_empty(len(p.atom_ptr) - 1), torch.empty_like(h)
    readout(*p.readout, torch.zeros(len(h), dtype=torch.int64, device=h.device), p.atom_ptr, atomic, total, g)
    return [atomic, total, g]


def references(p: Molecules) -> Results:
    """Right results of `_calls`, by autograd of the references in float64."""
    results = _message_references(p)
    s, y, vw, dot, g_context, g_dot = (t.double().requires_grad_() for t in p.update)
    v, (gs, gv) = p.inputs[1].double(), (t.double() for t in p.adjoints)
    normed = update_reference.norm(s, vw, EPSILON)
    gated = update_reference.gate(s, v, y, vw, dot)
    of_norm = torch.autograd.grad(normed, (s, vw), (g_context, g_dot))
    results["update"] = [*normed, *gated, *of_norm, *torch.autograd.grad(gated, (y, vw, dot), (gs, gv))]
    h, w, b, table = (t.double() for t in p.readout)
    elements = torch.zeros(len(h), dtype=torch.int64, device=h.device)
    energies = readout_reference.readout(h, w, b, table, elements, p.atom_ptr)
    results["readout"] = [*energies, readout_reference.adjoint(h, w)]
    return {name: [t.detach() for t in values] for name, values in results.items()}


def _message_references(p: Molecules) -> Results:
    (row_ptr, sender, _), radial = p.graph, p.radial
    radial = replace(radial, first=radial.first.double(), widths=radial.widths.double())
    receiver = torch.repeat_interleave(torch.arange(len(row_ptr) - 1, device=sender.device), row_ptr.diff())
    inputs, adjoints = ([t.double().requires_grad_() for t in group] for group in (p.inputs, p.adjoints))
    x, v, r, weight = inputs
    outputs = message_reference(x, v, r, weight, radial, receiver, sender)
    first = gx, gv, gr, gw = torch.autograd.grad(outputs, inputs, adjoints, create_graph=True)
    force = gr.new_zeros(len(x), 3).index_add(0, receiver, gr).index_add(0, sender, -gr)
    moved = [(g * t).sum() for g, t in zip(first, p.tangents, strict=True)]
    still, moving = (
        torch.autograd.grad(totals, [*adjoints, *inputs], [torch.ones_like(t) for t in totals], retain_graph=True)
        for totals in (moved[:3], moved)
    )
    return {
        "message_fwd": outputs,
        "message_force_bwd": [gx, gv, force],
        "message_bwd": [gx, gv, gr],
        "message_weight_bwd": [gw],
        "message_tangent": still[:2],
        "message_bwd_tangent": still[2:5],
        "message_weight_bwd_tangent": still[5:],
        "message_tangent, weight moves": moving[:2],
        "message_bwd_tangent, weight moves": moving[2:5],
    }
