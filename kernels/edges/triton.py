"""Edge vectors from positions on a GPU, and forces and virials from their adjoint: rows and mirrors, no atomics."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from painn_fast.kernels.launch import require_contiguous

EDGES, WARPS = 256, 4
"""Edges of a program that makes vectors, and its warps."""
ROW = 32
"""Edges of a row that are visited together, by one warp."""


@triton.jit(do_not_specialize=["edges"])
def edge_vectors_kernel(
    p_positions, p_receiver, p_sender, p_shift, p_r, edges, UNIT: tl.constexpr, EDGES: tl.constexpr
):
    """r [E, 3], rounded once, from float64."""
    e = tl.program_id(0).to(tl.int64) * EDGES + tl.arange(0, EDGES)
    inside = e < edges
    p_i = p_positions + 3 * tl.load(p_receiver + e, mask=inside, other=0)
    p_j = p_positions + 3 * tl.load(p_sender + e, mask=inside, other=0)
    unit = tl.full((EDGES,), UNIT, tl.float64)  # a bare number would be single precision
    for axis in tl.static_range(3):
        away = tl.load(p_j + axis, mask=inside, other=0.0) - tl.load(p_i + axis, mask=inside, other=0.0)
        away = (away + tl.load(p_shift + 3 * e + axis, mask=inside, other=0.0)) * unit
        tl.store(p_r + 3 * e + axis, away.to(p_r.dtype.element_ty), mask=inside)


@triton.jit
def edge_forces_kernel(p_gr, p_r, p_row_ptr, p_mirror, p_force, p_virial, ROW: tl.constexpr):
    """force [N, 3], virial [N, 3, 3] of one atom; the edge it sends is the mirror of the one that it receives."""
    i = tl.program_id(0).to(tl.int64)
    first, last = tl.load(p_row_ptr + i).to(tl.int64), tl.load(p_row_ptr + i + 1).to(tl.int64)
    for b in tl.static_range(3):
        force = tl.zeros((ROW,), tl.float64)
        x, y, z = tl.zeros((ROW,), tl.float64), tl.zeros((ROW,), tl.float64), tl.zeros((ROW,), tl.float64)
        for start in range(first, last, ROW):
            e = start + tl.arange(0, ROW)
            inside = e < last
            mirror = tl.load(p_mirror + e, mask=inside, other=0)
            g = tl.load(p_gr + 3 * e + b, mask=inside, other=0.0).to(tl.float64)
            force += g - tl.load(p_gr + 3 * mirror + b, mask=inside, other=0.0).to(tl.float64)
            x += g * tl.load(p_r + 3 * e, mask=inside, other=0.0).to(tl.float64)
            y += g * tl.load(p_r + 3 * e + 1, mask=inside, other=0.0).to(tl.float64)
            z += g * tl.load(p_r + 3 * e + 2, mask=inside, other=0.0).to(tl.float64)
        tl.store(p_force + 3 * i + b, tl.sum(force, axis=0))
        tl.store(p_virial + 9 * i + b, tl.sum(x, axis=0))
        tl.store(p_virial + 9 * i + 3 + b, tl.sum(y, axis=0))
        tl.store(p_virial + 9 * i + 6 + b, tl.sum(z, axis=0))


def edge_vectors(positions: Tensor, receiver: Tensor, sender: Tensor, shift: Tensor, unit: float, r: Tensor) -> None:
    """`reference.edge_vectors` into r [E, 3] of any dtype; positions and shift are float64."""
    require_contiguous(positions, receiver, sender, shift, r)
    edges = len(r)
    if edges > 0:
        with torch.cuda.device_of(r):
            edge_vectors_kernel[(triton.cdiv(edges, EDGES),)](
                positions, receiver, sender, shift, r, edges, UNIT=unit, EDGES=EDGES, num_warps=WARPS
            )


def edge_forces(gr: Tensor, r: Tensor, row_ptr: Tensor, mirror: Tensor, force: Tensor, virial: Tensor) -> None:
    """`reference.edge_forces` into force [N, 3] and virial [N, 3, 3], float64; mirror [E] as in a batch."""
    require_contiguous(gr, r, row_ptr, mirror, force, virial)
    if len(force) > 0:
        with torch.cuda.device_of(r):
            edge_forces_kernel[(len(force),)](gr, r, row_ptr, mirror, force, virial, ROW=ROW, num_warps=1)


def cases() -> list[tuple[str, Any, dict[str, str], dict[str, Any], int]]:
    """What the static report compiles."""
    kinds = {"p_r": "*fp32", "p_gr": "*fp32", "edges": "i32"}
    kinds |= dict.fromkeys(("p_positions", "p_shift", "p_force", "p_virial"), "*fp64")
    made = []
    for kernel, fixed, warps in (
        (edge_vectors_kernel, {"UNIT": 1.0, "EDGES": EDGES}, WARPS),
        (edge_forces_kernel, {"ROW": ROW}, 1),
    ):
        types = {name: "constexpr" if name in fixed else kinds.get(name, "*i64") for name in kernel.arg_names}
        made.append((kernel.__name__.removesuffix("_kernel").replace("_", " "), kernel, types, fixed, warps))
    return made
