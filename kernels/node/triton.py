"""Everything that one atom does between two messages on a GPU: one launch forward, one backward.

A program owns 2 to 16 atoms and all of their features. Products run over blocks of output features and of the sum; what
one product hands to the next goes through memory, where most of it must be kept for the backward pass, and a barrier.
The loops stay loops: any number of features that is a multiple of 16, and little code. The derivation is in README.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from painn_fast.kernels.launch import default, launches, multiprocessors, require_contiguous
from painn_fast.kernels.message.triton import LANES
from painn_fast.kernels.node.reference import Mlp
from painn_fast.kernels.node.triton_atoms import node_backward, node_forward


@dataclass(frozen=True)
class Shape:
    """How a launch is divided.

    Args:
        rows: atoms of a program; a tensor core takes 16 at least.
        block, depth: output features of a product at a time and terms of its sum, at most; powers of two that divide
            the number of features are taken.
        warps: of a program.
        stages: of loads ahead of products; more than one of split products has given NaN elsewhere.
        registers: that a thread of a layer may have, where the compiler would stop sooner and spill; 0: as it does.
    """

    rows: int
    block: int
    depth: int
    warps: int
    stages: int
    registers: int = 0


SHAPES = {
    "ieee": Shape(8, 128, 32, 8, 2),
    "tf32x3": Shape(16, 32, 32, 8, 1),
    "tf32": Shape(16, 64, 32, 8, 2),
    "bf16": Shape(16, 64, 32, 8, 2),
}
"""By precision of the factors in products; sums are in the dtype of the features. README.md has the alternatives.

Of "ieee" only rows depend on the number of atoms: block and depth are the order of sums, and an atom has one in any
batch."""
ALONE = 240
"""Registers of a thread where a program of 8 warps is the only one of its multiprocessor, which has 256 for each."""
SHARES = (2, 4, 8)
"""Atoms a multiprocessor up to which launches of "ieee" have rows of their own."""
OF_64_LANES = {"ieee": Shape(4, 64, 32, 4, 2)}
"""Where a warp has 64 lanes, as far as it differs; for any number of atoms."""
PRECISIONS = tuple(SHAPES)
DOUBLE = Shape(8, 32, 16, 4, 1)
"""Of a float64 network."""


@triton.jit(do_not_specialize=["n"])
def node_fwd_kernel(
    p_s, p_v, p_mix, p_first, p_first_bias, p_second, p_second_bias,
    p_next, p_next_bias, p_x_weight, p_x_bias,
    p_vw, p_norm, p_hidden, p_y, p_s_out, p_v_out, p_next_hidden, p_x, n,
    EPSILON: tl.constexpr, VECTORS: tl.constexpr, PRECISION: tl.constexpr, F: tl.constexpr, H: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_H: tl.constexpr, DEPTH: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """s_out, v_out, next_hidden [N, H], x [N, 3 F] (not where its weight is None); vw, hidden, y are kept."""
    i = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    mask = i < n
    node_forward(
        p_s, p_v, p_mix, p_first, p_first_bias, p_second, p_second_bias, p_next, p_next_bias, p_x_weight,
        p_x_bias, p_vw, p_norm, p_hidden, p_y, p_s_out, p_v_out, p_next_hidden, p_x, i, mask, EPSILON, VECTORS,
        PRECISION, F, H, ROWS, BLOCK, BLOCK_H, DEPTH, STAGES,
    )  # fmt: skip


@triton.jit(do_not_specialize=["n"])
def node_bwd_kernel(
    p_gs, p_gv, p_g_next, p_mix, p_first, p_second, p_next, p_x_weight,
    p_vw, p_hidden, p_y, p_next_hidden,
    p_narrow, p_total, p_g_vw, p_gs_out, p_gv_out, n,
    EPSILON: tl.constexpr, PRECISION: tl.constexpr, F: tl.constexpr, H: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr, DEPTH_H: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """gs_out, gv_out of s and v before the update. Weights are [out, in]; narrow, total and g_vw are scratch.

    g_next is the adjoint of x, or where there is none (its weight is None) of the readout's hidden layer; then gs and
    gv are zero and not read.
    """
    i = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    mask = i < n
    node_backward(
        p_gs, p_gv, p_g_next, p_mix, p_first, p_second, p_next, p_x_weight, p_vw, p_hidden, p_y, p_next_hidden,
        p_narrow, p_total, p_g_vw, p_gs_out, p_gv_out, i, mask, EPSILON, PRECISION, F, H, ROWS, BLOCK, DEPTH,
        DEPTH_H, STAGES,
    )  # fmt: skip


class Kept(NamedTuple):
    """What the backward pass needs of a layer: y holds B and G, next_hidden is the input of the next silu."""

    vw: Tensor  # [N, 3, 2 F]
    hidden: Tensor  # [N, F]
    y: Tensor  # [N, 3 F]
    next_hidden: Tensor  # [N, H], H = F except in a readout


def node_fwd(
    s: Tensor, v: Tensor, mix: Tensor, update: Mlp, following: Mlp, epsilon: float, kept: Kept, norm: Tensor,
    s_out: Tensor, v_out: Tensor, x: Tensor | None, *, vectors: bool = True, precision: str = "ieee",
) -> None:  # fmt: skip
    """`reference.node` into s_out, v_out (not with `vectors` False), kept.next_hidden and x.

    All tensors are contiguous; no output may be an input. Weights are in the dtype of s, or bfloat16 with "bf16".

    Args:
        norm: [N, F], scratch.
        x: [N, 3 F], None where `following` has one layer.
    """
    given = (s, v, mix, *update, *following, kept.vw, norm, kept.hidden, kept.y, s_out, v_out, kept.next_hidden, x)
    H = kept.next_hidden.shape[1]
    _launch(node_fwd_kernel, given, s, H, EPSILON=epsilon, VECTORS=vectors, PRECISION=precision)


def node_bwd(
    gs: Tensor, gv: Tensor, g_next: Tensor, mix: Tensor, update: tuple[Tensor, Tensor],
    following: tuple[Tensor, Tensor | None], epsilon: float, kept: Kept, narrow: Tensor, total: Tensor, g_vw: Tensor,
    gs_out: Tensor, gv_out: Tensor, *, precision: str = "ieee",
) -> None:  # fmt: skip
    """The adjoint of `node_fwd`: gs_out [N, F] and gv_out [N, 3, F], of s and v.

    gs may be gs_out; no other output may be an input.

    Args:
        gs, gv: of s_out and v_out; zero and not read where `following` has one layer, that of a readout.
        g_next: of x [N, 3 F], or of the readout's hidden layer [N, H].
        mix, update, following: weights of products, as [out, in].
        narrow, total: [N, F], g_vw: [N, 3, 2 F], scratch.
    """
    scratch = (narrow, total, g_vw)
    given = (gs, gv, g_next, mix, *update, *following, kept.vw, kept.hidden, kept.y, kept.next_hidden, *scratch)
    _launch(node_bwd_kernel, (*given, gs_out, gv_out), gs_out, kept.next_hidden.shape[1], EPSILON=epsilon,
            PRECISION=precision)  # fmt: skip


def _launch(
    kernel: Any, given: tuple[Tensor | None, ...], features: Tensor, hidden: int, *, PRECISION: str, **constants: Any
) -> None:
    n, f = features.shape
    require_contiguous(*given)
    if n > 0:
        shape = DOUBLE if features.dtype == torch.float64 else shape_of(PRECISION, n, features.device)
        fixed = {**constants, "PRECISION": PRECISION, **sizes(kernel, shape, f, hidden)}
        with torch.cuda.device_of(features):
            kernel[(triton.cdiv(n, shape.rows),)](*given, n, **fixed, num_warps=shape.warps, num_stages=1)


def shape_of(
    precision: str, atoms: int, device: torch.device | None = None, *, lanes: int = LANES, processors: int = 0
) -> Shape:
    """Of a launch over so many atoms, on a device with so many multiprocessors; by default its own number."""
    if lanes == 64 and precision in OF_64_LANES:
        return OF_64_LANES[precision]
    if precision != "ieee":
        return SHAPES[precision]
    name = numbers_of(atoms, processors or multiprocessors(device))
    return of_rows(precision, launches(device)[name]["atoms"])


def of_rows(precision: str, rows: int) -> Shape:
    """With so many atoms a program; few have a multiprocessor alone, and all of its registers."""
    return replace(SHAPES[precision], rows=rows, registers=ALONE if rows <= 4 else 0)


def numbers_of(atoms: int, processors: int) -> str:
    """Name of the numbers of a launch, in `kernels.launch`."""
    share = next((share for share in SHARES if atoms <= share * processors), None)
    return "layer, more atoms" if share is None else f"layer, {share} atoms a multiprocessor"


def shapes(precision: str, lanes: int) -> list[Shape]:
    """Without measuring, for any number of atoms."""
    if precision != "ieee" or lanes == 64:
        return [shape_of(precision, 1, lanes=lanes)]
    rows = {numbers["atoms"] for name, numbers in default().items() if name.startswith("layer")}
    return [of_rows(precision, count) for count in sorted(rows)]


def sizes(kernel: Any, shape: Shape, features: int, hidden: int) -> dict[str, int]:
    """Constants of a kernel: the division of its products."""
    listed = {
        "F": features,
        "H": hidden,
        "ROWS": shape.rows,
        "BLOCK": min(shape.block, features & -features),
        "BLOCK_H": min(shape.block, hidden & -hidden),
        "DEPTH": min(shape.depth, features & -features),
        "DEPTH_H": min(shape.depth, hidden & -hidden),
        "STAGES": shape.stages,
    }
    return {name: size for name, size in listed.items() if name in kernel.arg_names}


def cases(lanes: int) -> list[tuple[str, Any, dict[str, str], dict[str, Any], int]]:
    """What the static report compiles: both, within the network and before the readout, in all precisions, shapes."""
    made = []
    known = [name for name in PRECISIONS if name != "tf32x3" or lanes == 32]  # AMD has no such products
    for kernel in (node_fwd_kernel, node_bwd_kernel):
        made += [case(kernel, 128, precision, shape) for precision in known for shape in shapes(precision, lanes)]
        for shape in shapes("ieee", lanes):
            made += [case(kernel, f, "ieee", shape, last=f == 128) for f in (64, 128)]
    return made


def title(kernel: Any, features: int, precision: str, shape: Shape) -> str:
    """Of a case; with the atoms of a program where these depend on the batch."""
    rows = f", {shape.rows} atoms" if precision == "ieee" else ""
    return f"{kernel.__name__.removesuffix('_kernel')} F={features} {precision}{rows}"


def case(
    kernel: Any, features: int, precision: str, shape: Shape, *, last: bool = False
) -> tuple[str, Any, dict[str, str], dict[str, Any], int]:
    """What the static report compiles for so many features; `last` is before the readout."""
    divided = sizes(kernel, shape, features, features // 2 if last else features)
    fixed: dict[str, Any] = {"EPSILON": 1e-8, "VECTORS": not last, "PRECISION": precision, **divided}
    if last:
        fixed |= dict.fromkeys(("p_x_weight", "p_x_bias", "p_x"))
    fixed = {name: fixed[name] for name in kernel.arg_names if name in fixed}
    weights = {"p_mix", "p_first", "p_second", "p_next", "p_x_weight"} if precision == "bf16" else set()
    types = {
        name: "constexpr" if name in fixed else "i32" if name == "n" else "*bf16" if name in weights else "*fp32"
        for name in kernel.arg_names
    }
    name = title(kernel, features, precision, shape) + ", readout" * last
    return name, kernel, types, fixed, shape.warps
