"""A layer of a network in one launch on a GPU, forward and backward, energies and forces included.

What atoms do between two messages needs nothing of other atoms: a program that owns some atoms gathers their messages
and goes on with them. Only the next message needs all programs to be done. README.md has the order of launches.
"""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from painn_fast.kernels.launch import require_contiguous
from painn_fast.kernels.message.triton import LANES, MOST_HELD
from painn_fast.kernels.message.triton_rows import gather, scatter
from painn_fast.kernels.node.reference import Mlp
from painn_fast.kernels.node.triton import DOUBLE, PRECISIONS, Kept, Shape, shape_of, shapes, sizes, title
from painn_fast.kernels.node.triton_atoms import node_backward, node_forward
from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.radial.triton import Constants, constants
from painn_fast.kernels.readout.triton import ATOMS, atomic_energies, total_of

PRODUCT_BYTES = 61_440
"""Of shared memory, for filters by products: weights as two numbers each, a tile of the basis, and one of filters."""
LINKED = False
"""Whether a launch may begin while the one before it ends, where that is possible; README.md has what is known."""
COLUMNS = 32
"""Hidden features of the readout that a tile sums; the order of sums is the same for any number of rows."""


@triton.jit
def begin(LINKED: tl.constexpr):
    """Where launches are linked, wait until all before have ended and their numbers can be seen; the next may begin.

    Nothing may come before it, and no program may leave it out: the next launch waits for the end of this one alone.
    """
    if LINKED:
        gdc_wait()
        gdc_launch_dependents()


@triton.jit(do_not_specialize=["n"])
def layer_fwd_kernel(
    p_x_in, p_v_in, p_s_in, p_positions, p_shift, p_r, p_filter, p_radial, p_widths, p_row_ptr, p_sender, p_s, p_v,
    p_mix, p_first, p_first_bias, p_second, p_second_bias, p_next, p_next_bias, p_x_weight, p_x_bias,
    p_vw, p_norm, p_hidden, p_y, p_s_out, p_v_out, p_next_hidden, p_x,
    p_last, p_last_bias, p_reference, p_numbers, p_atomic, p_g_hidden,
    p_mix_back, p_first_back, p_second_back, p_next_back, p_narrow, p_total, p_g_vw, p_gs_out, p_gv_out, n,
    C: tl.constexpr, GATHER: tl.constexpr, HELD: tl.constexpr, DOT: tl.constexpr, UNIT: tl.constexpr,
    SPAN: tl.constexpr, EPSILON: tl.constexpr, VECTORS: tl.constexpr, PRECISION: tl.constexpr, F: tl.constexpr,
    H: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_H: tl.constexpr, DEPTH: tl.constexpr,
    DEPTH_H: tl.constexpr, STAGES: tl.constexpr, COLUMNS: tl.constexpr, LINKED: tl.constexpr,
):  # fmt: skip
    """A message, with GATHER of vectors too, and the node after it.

    Before a readout (p_atomic) energies of atoms; where their adjoint is wanted (p_g_hidden) also gs_out and gv_out,
    of s and v before the node.
    """
    begin(LINKED)
    i = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    mask = i < n
    gather(
        p_x_in, p_v_in, p_s_in, p_positions, p_shift, p_r, p_filter, p_radial, p_widths, p_row_ptr, p_sender, p_s, p_v,
        i, mask, C, F, ROWS, SPAN, GATHER, HELD, UNIT, DOT,
    )  # fmt: skip
    tl.debug_barrier()
    node_forward(
        p_s, p_v, p_mix, p_first, p_first_bias, p_second, p_second_bias, p_next, p_next_bias, p_x_weight, p_x_bias,
        p_vw, p_norm, p_hidden, p_y, p_s_out, p_v_out, p_next_hidden, p_x, i, mask,
        EPSILON, VECTORS, PRECISION, F, H, ROWS, BLOCK, BLOCK_H, DEPTH, STAGES,
    )  # fmt: skip
    if p_atomic is not None:
        tl.debug_barrier()
        row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        atomic_energies(
            p_next_hidden, p_last, p_last_bias, p_reference, p_numbers, p_atomic, p_g_hidden, row, n, H, ROWS, COLUMNS
        )
    if p_g_hidden is not None:
        tl.debug_barrier()
        node_backward(
            None, None, p_g_hidden, p_mix_back, p_first_back, p_second_back, p_next_back, None,
            p_vw, p_hidden, p_y, p_next_hidden, p_narrow, p_total, p_g_vw, p_gs_out, p_gv_out, i, mask,
            EPSILON, PRECISION, F, H, ROWS, BLOCK, DEPTH, DEPTH_H, STAGES,
        )  # fmt: skip


@triton.jit(do_not_specialize=["n", "molecules"])
def layer_bwd_kernel(
    p_gs, p_gv, p_x_in, p_v_in, p_r, p_filter, p_radial, p_widths, p_row_ptr, p_sender, p_force,
    p_gx, p_gv_in, p_mix, p_first, p_second, p_next, p_x_weight, p_vw, p_hidden, p_y, p_next_hidden,
    p_narrow, p_total, p_g_vw, p_gs_out, p_gv_out, p_forces, p_atomic, p_atom_ptr, p_energy, n, molecules,
    C: tl.constexpr, HELD: tl.constexpr, DOT: tl.constexpr, ADD: tl.constexpr, SPAN: tl.constexpr, SCALE: tl.constexpr,
    UNIT: tl.constexpr, EPSILON: tl.constexpr, PRECISION: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr, STAGES: tl.constexpr, ATOMS: tl.constexpr, LINKED: tl.constexpr,
):  # fmt: skip
    """The adjoint of a message, and of the node before it: gs_out, gv_out, and the force [N, 3] so far.

    In the first layer (p_forces) there is no node before: energies [M] and forces [N, 3] leave in float64, times
    SCALE and, for forces, UNIT.
    """
    begin(LINKED)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    i = row[:, None]
    mask = i < n
    p_force += 3 * row
    f0, f1, f2 = scatter(
        p_gs, p_gv, p_x_in, p_v_in, p_r, p_filter, p_radial, p_widths, p_row_ptr, p_sender, p_gx, p_gv_in, i, mask,
        C, F, ROWS, SPAN, p_forces is None, HELD, DOT,
    )  # fmt: skip
    if ADD:
        f0 += tl.load(p_force, mask=row < n, other=0.0)
        f1 += tl.load(p_force + 1, mask=row < n, other=0.0)
        f2 += tl.load(p_force + 2, mask=row < n, other=0.0)
        tl.debug_barrier()  # every warp may read what one of them replaces
    if p_forces is None:
        tl.store(p_force, f0, mask=row < n)
        tl.store(p_force + 1, f1, mask=row < n)
        tl.store(p_force + 2, f2, mask=row < n)
        tl.debug_barrier()
        node_backward(
            p_gs, p_gv_in, p_gx, p_mix, p_first, p_second, p_next, p_x_weight, p_vw, p_hidden, p_y, p_next_hidden,
            p_narrow, p_total, p_g_vw, p_gs_out, p_gv_out, i, mask,
            EPSILON, PRECISION, F, F, ROWS, BLOCK, DEPTH, DEPTH, STAGES,
        )  # fmt: skip
    else:
        p_forces += 3 * row
        scale = tl.full((ROWS,), SCALE * UNIT, tl.float64)  # a bare number would be single precision
        tl.store(p_forces, f0.to(tl.float64) * scale, mask=row < n)
        tl.store(p_forces + 1, f1.to(tl.float64) * scale, mask=row < n)
        tl.store(p_forces + 2, f2.to(tl.float64) * scale, mask=row < n)
        for m in range(tl.program_id(0), molecules, tl.num_programs(0)):
            total_of(p_atomic, p_atom_ptr, p_energy, m, SCALE, ATOMS)


class Edges(NamedTuple):
    """Of a graph whose edges have exact mirrors; `r` is written where `positions` are given, else read."""

    r: Tensor  # [E, 3]
    row_ptr: Tensor  # [N + 1]
    sender: Tensor  # [E]
    positions: Tensor | None = None  # [N, 3] float64, Å
    shift: Tensor | None = None  # [E, 3] float64, Å
    unit: float = 1.0
    """Units of r in an Å."""


class Readout(NamedTuple):
    """The last layer of a readout, as of `kernels.readout`; `g_hidden` [N, H] is scratch where forces are wanted."""

    weight: Tensor
    bias: Tensor
    reference: Tensor
    numbers: Tensor
    atomic: Tensor  # [N] float64
    g_hidden: Tensor | None


class Backward(NamedTuple):
    """Weights [out, in] of a node, scratch, and results, of `kernels.node.triton.node_bwd`."""

    mix: Tensor
    first: Tensor
    second: Tensor
    next: Tensor
    x_weight: Tensor | None
    narrow: Tensor
    total: Tensor
    g_vw: Tensor
    gs_out: Tensor
    gv_out: Tensor


class Results(NamedTuple):
    """What leaves the first layer: sums over molecules of `atomic` [N] and forces, times `scale`."""

    forces: Tensor  # [N, 3] float64
    atomic: Tensor
    atom_ptr: Tensor
    energy: Tensor  # [M] float64
    scale: float


def layer_fwd(
    x: Tensor, v: Tensor | None, s: Tensor, edges: Edges, weight: Tensor, radial: Radial, middle: tuple[Tensor, Tensor],
    mix: Tensor, update: Mlp, following: Mlp, epsilon: float, kept: Kept, norm: Tensor, s_out: Tensor, v_out: Tensor,
    x_out: Tensor | None, *, readout: Readout | None = None, back: Backward | None = None, vectors: bool = True,
    precision: str = "ieee",
) -> None:  # fmt: skip
    """`message_fwd` of s and v, then `node_fwd`; the last one also `kernels.readout` and, with `back`, `node_bwd`.

    No output may be an input, but s_out may be s.

    Args:
        v: None in the first layer, where it is zero.
        middle: s and v between the two, scratch.
    """
    given = (
        *middle,
        mix,
        *update,
        *following,
        kept.vw,
        norm,
        kept.hidden,
        kept.y,
        s_out,
        v_out,
        kept.next_hidden,
        x_out,
    )
    after = tuple(readout or (None,) * 6)
    if back is not None:
        after += (*back[:4], *back[5:])
    else:
        after += (None,) * 9
    graph = edges.positions, edges.shift, edges.r, weight, radial.first, radial.widths, edges.row_ptr, edges.sender
    flags: dict[str, Any] = {"GATHER": v is not None, "UNIT": edges.unit, "EPSILON": epsilon, "VECTORS": vectors}
    flags |= {"PRECISION": precision, "COLUMNS": COLUMNS}
    arguments = (x, s if v is None else v, s, *graph, *given, *after)
    _launch(layer_fwd_kernel, arguments, s, kept.next_hidden.shape[1], radial, (), **flags)


def layer_bwd(
    gs: Tensor, gv: Tensor, x: Tensor, v: Tensor | None, edges: Edges, weight: Tensor, radial: Radial, force: Tensor, *,
    add: bool, before: tuple[Kept, Backward, Tensor, Tensor] | None = None, results: Results | None = None,
    epsilon: float = 0.0, precision: str = "ieee",
) -> None:  # fmt: skip
    """`message_force_bwd`, then `node_bwd` of the layer before; in the first layer the results instead.

    gs and gv are read by all programs: the node's results go elsewhere.

    Args:
        v: None in the first layer.
        force: [N, 3], to which with `add` that of this layer is added; the first layer only reads it.
        before: what the node kept, its weights, and scratch gx [N, 3 F] and gv [N, 3, F].
    """
    arguments = gs, gv, x, gv if v is None else v, edges.r, weight, radial.first, radial.widths
    arguments += edges.row_ptr, edges.sender, force
    if before is None:
        arguments += (None,) * 16
    else:
        kept, back, gx, gv_in = before
        arguments += (gx, gv_in, *back[:5], *kept, *back[5:])
    last = (None,) * 4 if results is None else tuple(results[:4])
    molecules = 0 if results is None else len(results.energy)
    flags: dict[str, Any] = {"ADD": add, "SCALE": 1.0 if results is None else results.scale, "UNIT": edges.unit}
    flags |= {"EPSILON": epsilon, "ATOMS": ATOMS, "PRECISION": precision}
    _launch(layer_bwd_kernel, (*arguments, *last), gs, gs.shape[1], radial, (molecules,), **flags)


def _launch(
    kernel: Any, given: tuple[Tensor | None, ...], features: Tensor, hidden: int, radial: Radial,
    numbers: tuple[int, ...], *, PRECISION: str, **constant: Any,
) -> None:  # fmt: skip
    n, f = features.shape
    require_contiguous(*given)
    if n > 0:
        shape = layer_shape(features.dtype, PRECISION, n, features.device)
        functions = constants(radial, features.dtype)
        product = by_product(functions, features.dtype)
        span = span_of(shape, f, features.dtype, product)
        fixed = {"C": functions, "HELD": functions.count <= MOST_HELD, "DOT": product, "SPAN": span}
        fixed |= {**constant, "PRECISION": PRECISION, **sizes(kernel, shape, f, hidden)}
        fixed["LINKED"] = LINKED and can_be_linked()
        options = {"num_warps": shape.warps, "num_stages": 1, **registers_of(shape)}
        options |= {"launch_pdl": True} if fixed["LINKED"] else {}
        with torch.cuda.device_of(features):
            kernel[(triton.cdiv(n, shape.rows),)](*given, n, *numbers, **fixed, **options)


def registers_of(shape: Shape) -> dict[str, int]:
    """The option of the compiler for NVIDIA's GPUs."""
    return {"maxnreg": shape.registers} if shape.registers else {}


def layer_shape(dtype: torch.dtype, precision: str, atoms: int, device: torch.device | None = None) -> Shape:
    """Of a launch over so many atoms."""
    return DOUBLE if dtype == torch.float64 else shape_of(precision, atoms, device)


def layer_warps(dtype: torch.dtype, precision: str) -> int:
    """Of a program, whatever the number of atoms."""
    return layer_shape(dtype, precision, 1).warps


def by_product(functions: Constants, dtype: torch.dtype, lanes: int = LANES) -> bool:
    """Whether filters are products on tensor cores: of float32 on NVIDIA, of functions that are computed one by one."""
    regular = functions.basis in ("sinc", "gaussian") and functions.count < 32
    return regular and dtype == torch.float32 and lanes == 32 and _shared_memory() >= PRODUCT_BYTES


@lru_cache
def _shared_memory() -> int:
    """Bytes that a program may have, on any of the devices here."""
    if not torch.cuda.is_available():
        return PRODUCT_BYTES  # kernels are compiled or interpreted, not executed
    properties = triton.runtime.driver.active.utils.get_device_properties
    return min(int(properties(k)["max_shared_mem"]) for k in range(torch.cuda.device_count()))


def driver_version() -> int:
    """The CUDA that NVIDIA's driver has, 12030 for 12.3; 0 without a driver."""
    version = ctypes.c_int(0)
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return 0
    return version.value


@lru_cache
def can_be_linked() -> bool:
    """On NVIDIA from sm_90 on, with a driver that has such launches in CUDA graphs too (12.3), on all devices here."""
    if torch.version.hip or not torch.cuda.is_available() or driver_version() < 12030:
        return False
    return all(torch.cuda.get_device_capability(k) >= (9, 0) for k in range(torch.cuda.device_count()))


def span_of(shape: Shape, features: int, dtype: torch.dtype = torch.float32, product: bool = True) -> int:
    """Features of a message that a program has at a time.

    4 a thread where filters are a `product`, else 2, whose weights fit into registers, and 1 of float64.
    """
    whole, threads = features & -features, shape.warps * 32
    if dtype == torch.float64:
        return min(whole, threads // shape.rows)
    whole = min(whole, 128)
    return whole if whole < 64 else min(whole, max(32, (4 if product else 2) * threads // shape.rows))


def cases(lanes: int) -> list[tuple[Any, ...]]:
    """What the static report compiles: the first layer, one within the network, and the last, in all shapes."""
    made = []
    for kernel in (layer_fwd_kernel, layer_bwd_kernel):
        for precision in [name for name in PRECISIONS if name != "tf32x3" or lanes == 32]:  # AMD has no such products
            for shape in shapes(precision, lanes):
                made += [case(kernel, 128, precision, shape, which, lanes) for which in ("", "first", "last")]
        made += [case(kernel, 64, "ieee", shape, "", lanes) for shape in shapes("ieee", lanes)]
    return made


def case(
    kernel: Any,
    features: int,
    precision: str,
    shape: Shape,
    which: str,
    lanes: int = 32,
    *,
    forces: bool = True,
    linked: bool = False,
) -> tuple[Any, ...]:
    """What the static report compiles for so many features; `which` is "first", "last" or "", between them."""
    functions = Constants("sinc", 20, math.pi / 5.0, 0.0, 0.0, "cosine", 5.0, 0.0)
    fixed: dict[str, Any] = {"C": functions, "GATHER": which != "first", "HELD": True, "UNIT": 1.0, "SCALE": 1.0}
    product = by_product(functions, torch.float32, lanes)
    fixed |= {"DOT": product, "SPAN": span_of(shape, features, product=product), "EPSILON": 1e-8}
    fixed |= {"VECTORS": which != "last", "PRECISION": precision, "LINKED": linked}
    fixed |= {"ADD": which != "last", "COLUMNS": COLUMNS, "ATOMS": ATOMS}
    fixed |= sizes(kernel, shape, features, features // 2 if which == "last" else features)
    fixed |= dict.fromkeys(_absent(kernel, which, forces))
    weights = [name for name in kernel.arg_names if name.removesuffix("_back") in PRODUCTS] * (precision == "bf16")
    kinds = dict.fromkeys(("p_row_ptr", "p_sender", "p_numbers", "p_atom_ptr"), "*i64") | dict.fromkeys(
        weights, "*bf16"
    )
    kinds |= dict.fromkeys(("p_positions", "p_shift", "p_reference", "p_atomic", "p_forces", "p_energy"), "*fp64")
    kinds |= dict.fromkeys(("n", "molecules"), "i32")
    types = {name: "constexpr" if name in fixed else kinds.get(name, "*fp32") for name in kernel.arg_names}
    name = title(kernel, features, precision, shape) + ", " * bool(which) + which
    return (
        name,
        kernel,
        types,
        {name: fixed[name] for name in kernel.arg_names if name in fixed},
        shape.warps,
        registers_of(shape),
    )


PRODUCTS = {"p_mix", "p_first", "p_second", "p_next", "p_x_weight"}


def _absent(kernel: Any, which: str, forces: bool) -> list[str]:
    """Arguments that are None."""
    names = kernel.arg_names
    if kernel is layer_bwd_kernel:
        node = names[names.index("p_gx") : names.index("p_forces")]
        return list(node) if which == "first" else ["p_forces", "p_atomic", "p_atom_ptr", "p_energy"]
    readout, back = names.index("p_last"), names.index("p_g_hidden")
    absent = [] if which == "first" else ["p_positions", "p_shift"]
    absent += ["p_x_weight", "p_x_bias", "p_x"] if which == "last" else names[readout:back]
    return absent + (names[back : names.index("n")] if which != "last" or not forces else [])
