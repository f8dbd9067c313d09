"""Subjects of the tuner: atoms of a program of layers, by the number of atoms a multiprocessor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from painn_fast.kernels.layer.triton import Backward, Edges, layer_bwd, layer_fwd
from painn_fast.kernels.message.reference import message
from painn_fast.kernels.node.reference import Mlp, node
from painn_fast.kernels.node.triton import SHARES, Kept, numbers_of
from painn_fast.kernels.tools.tuning.subjects import EPSILON, MOST_ATOMS, F, Molecules, molecules
from painn_fast.kernels.tools.tuning.tuner import Subject

MOLECULE = 9
"""Atoms of each, but for the last one."""


def sizes(processors: int) -> dict[str, list[int]]:
    """Numbers of atoms to measure, by the name of what they tune: at the end of each range, and below."""
    listed = {f"layer, {share} atoms a multiprocessor": [3 * share * processors // 4, share * processors]
              for share in SHARES}  # fmt: skip
    least = listed[numbers_of(1, processors)]
    if least[0] > MOLECULE:
        least.insert(0, MOLECULE)
    listed["layer, more atoms"] = [3 * SHARES[-1] * processors // 2, 6 * SHARES[-1] * processors]
    return listed


def layer_subjects(device: torch.device, processors: int) -> list[Subject]:
    """One for each range of atoms a multiprocessor."""
    return [_subject(name, atoms, device) for name, atoms in sizes(processors).items()]


def _subject(name: str, numbers: Sequence[int], device: torch.device) -> Subject:
    calls: dict[str, Callable[[], Sequence[Tensor]]] = {}
    expected: dict[str, Sequence[Tensor]] = {}
    for atoms in numbers:
        whole, rest = divmod(atoms, MOLECULE)
        problem = layer(molecules([MOLECULE] * whole + [rest] * (rest > 0), device))
        calls[f"{atoms} atoms"] = problem.call
        expected[f"{atoms} atoms"] = problem.reference() if atoms <= MOST_ATOMS else [t.clone() for t in problem.call()]
    return Subject(name, calls, expected)


@dataclass(frozen=True)
class Layer:
    """A message, a node and, backward, the next message: both launches of a layer within a network."""

    molecules: Molecules
    mix: Tensor  # [F, 2 F]
    update: Mlp
    following: Mlp
    memory: dict[str, Tensor]

    def call(self) -> list[Tensor]:
        """s, v and x after the node; gs and gv before it, and the force of the next message."""
        p, m = self.molecules, self.memory
        (row_ptr, sender, _), (x, v, r, weight), s, (gs, gv) = p.graph, p.inputs, p.update[0], p.adjoints
        edges = Edges(r, row_ptr, sender)
        kept = Kept(m["vw"], m["hidden"], m["y"], m["next_hidden"])
        layer_fwd(
            x, v, s, edges, weight, p.radial, (m["s_middle"], m["v_middle"]), self.mix, self.update, self.following,
            EPSILON, kept, m["norm"], m["s"], m["v"], m["x"],
        )  # fmt: skip
        back = Backward(
            m["mix"], m["first"], m["second"], m["next"], m["x_weight"], m["narrow"], m["total"], m["g_vw"], m["gs"],
            m["gv"],
        )  # fmt: skip
        layer_bwd(
            gs, gv, m["x"], m["v"], edges, weight, p.radial, m["force"], add=False,
            before=(kept, back, m["gx"], m["gv_middle"]), epsilon=EPSILON,
        )  # fmt: skip
        return [m[name] for name in ("s", "v", "x", "gs", "gv", "force")]

    def reference(self) -> list[Tensor]:
        """The same in float64, by autograd of the references."""
        p = self.molecules
        (row_ptr, sender, _), s = p.graph, p.update[0].double()
        radial = replace(p.radial, first=p.radial.first.double(), widths=p.radial.widths.double())
        receiver = torch.repeat_interleave(torch.arange(len(s), device=s.device), row_ptr.diff())
        x, v, r, weight = (t.double() for t in p.inputs)
        gs, gv = (t.double() for t in p.adjoints)
        ds, dv = message(x, v, r, weight, radial, receiver, sender)
        s, v, r = ((s + ds).requires_grad_(), (v + dv).requires_grad_(), r.requires_grad_())
        after = node(s, v, self.mix.double(), _double(self.update), _double(self.following), EPSILON)
        ds, dv = message(after[2], after[1], r, weight, radial, receiver, sender)
        g = torch.autograd.grad((after[0] + ds, after[1] + dv), (s, v, r), (gs, gv))
        force = s.new_zeros(len(s), 3).index_add(0, receiver, g[2]).index_add(0, sender, -g[2])
        return [t.detach() for t in (*after, *g[:2], force)]


def _double(mlp: Mlp) -> Mlp:
    second, bias = (None if t is None else t.double() for t in (mlp.second, mlp.second_bias))
    return Mlp(mlp.first.double(), mlp.first_bias.double(), second, bias)


def layer(p: Molecules) -> Layer:
    """With random weights, and memory for what it makes."""
    device, n = p.inputs[0].device, len(p.inputs[0])
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=generator) / math.sqrt(shape[0])).to(device)

    def mlp(inputs: int) -> Mlp:
        return Mlp(random(inputs, F), random(F), random(F, 3 * F), random(3 * F))

    mix, update, following = random(F, 2 * F), mlp(2 * F), mlp(F)
    shapes = {
        **dict.fromkeys(("s_middle", "hidden", "next_hidden", "norm", "s", "narrow", "total", "gs"), (F,)),
        **dict.fromkeys(("v_middle", "v", "gv_middle", "gv"), (3, F)),
        **dict.fromkeys(("y", "x", "gx"), (3 * F,)),
        **dict.fromkeys(("vw", "g_vw"), (3, 2 * F)),
        "force": (3,),
    }
    memory = {name: torch.empty(n, *shape, device=device) for name, shape in shapes.items()}
    weights = {"mix": mix, "first": update.first, "second": update.second, "next": following.first,
               "x_weight": following.second}  # fmt: skip
    memory |= {name: weight.T.contiguous() for name, weight in weights.items() if weight is not None}
    return Layer(p, mix, update, following, memory)
