"""The update block on a GPU, between its matrix products: the inference forms, with the signatures of `cpu.py`.

A program takes a tile of atoms x features; everything here is bound by memory, nothing is summed over atoms or
features. Derivations are in README.md, the training forms in `triton_training.py`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from painn_fast.kernels.launch import launches, require_contiguous


@triton.jit
def tile(n, F: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Atoms [ROWS, 1], features [1, COLUMNS] and which of them exist."""
    i = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    c = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    return i, c, (i < n) & (c < F)


@triton.jit
def three(p, i, c, inside, WIDTH: tl.constexpr):
    """x, y and z of [N, 3, WIDTH]."""
    p += i * (3 * WIDTH) + c
    x = tl.load(p, mask=inside, other=0.0)
    y = tl.load(p + WIDTH, mask=inside, other=0.0)
    return x, y, tl.load(p + 2 * WIDTH, mask=inside, other=0.0)


@triton.jit
def put_three(p, i, c, inside, x, y, z, WIDTH: tl.constexpr):
    p += i * (3 * WIDTH) + c
    tl.store(p, x, mask=inside)
    tl.store(p + WIDTH, y, mask=inside)
    tl.store(p + 2 * WIDTH, z, mask=inside)


@triton.jit(do_not_specialize=["n"])
def norm_fwd_kernel(
    p_s, p_vw, p_context, p_dot, n,
    EPSILON: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """context [N, 2 F] = (s, sqrt(|V|^2 + epsilon)); dot [N, F] = <V, W>."""
    i, c, inside = tile(n, F, ROWS, COLUMNS)
    a0, a1, a2 = three(p_vw, i, c, inside, 2 * F)
    b0, b1, b2 = three(p_vw + F, i, c, inside, 2 * F)
    s = tl.load(p_s + i * F + c, mask=inside, other=0.0)
    p_context += i * (2 * F) + c
    tl.store(p_context, s, mask=inside)
    tl.store(p_context + F, tl.sqrt(a0 * a0 + a1 * a1 + a2 * a2 + EPSILON), mask=inside)
    tl.store(p_dot + i * F + c, a0 * b0 + a1 * b1 + a2 * b2, mask=inside)


@triton.jit(do_not_specialize=["n"])
def gate_fwd_kernel(
    p_s, p_v, p_y, p_vw, p_dot, p_s_out, p_v_out, n,
    VECTORS: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """s_out = s + A + G dot; v_out = v + B W."""
    i, c, inside = tile(n, F, ROWS, COLUMNS)
    p_y += i * (3 * F) + c
    s = tl.load(p_s + i * F + c, mask=inside, other=0.0)
    A = tl.load(p_y, mask=inside, other=0.0)
    G = tl.load(p_y + 2 * F, mask=inside, other=0.0)
    dot = tl.load(p_dot + i * F + c, mask=inside, other=0.0)
    tl.store(p_s_out + i * F + c, s + A + G * dot, mask=inside)
    if VECTORS:
        B = tl.load(p_y + F, mask=inside, other=0.0)
        b0, b1, b2 = three(p_vw + F, i, c, inside, 2 * F)
        v0, v1, v2 = three(p_v, i, c, inside, F)
        put_three(p_v_out, i, c, inside, v0 + B * b0, v1 + B * b1, v2 + B * b2, F)


@triton.jit(do_not_specialize=["n"])
def gate_bwd_kernel(
    p_gs, p_gv, p_vw, p_dot, p_gy, n,
    VECTORS: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """gy [N, 3 F] = (gs, <gv, W>, gs <V, W>)."""
    i, c, inside = tile(n, F, ROWS, COLUMNS)
    gs = tl.load(p_gs + i * F + c, mask=inside, other=0.0)
    dot = tl.load(p_dot + i * F + c, mask=inside, other=0.0)
    gB = tl.zeros_like(gs)
    if VECTORS:
        g0, g1, g2 = three(p_gv, i, c, inside, F)
        b0, b1, b2 = three(p_vw + F, i, c, inside, 2 * F)
        gB = g0 * b0 + g1 * b1 + g2 * b2
    p_gy += i * (3 * F) + c
    tl.store(p_gy, gs, mask=inside)
    tl.store(p_gy + F, gB, mask=inside)
    tl.store(p_gy + 2 * F, gs * dot, mask=inside)


@triton.jit(do_not_specialize=["n"])
def norm_bwd_kernel(
    p_gs, p_gv, p_y, p_vw, p_context, p_g_context, p_g_vw, n,
    VECTORS: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Adjoint of V and W, from this operation and from the gate; gs then takes in that of s in the context."""
    i, c, inside = tile(n, F, ROWS, COLUMNS)
    p_gs += i * F + c
    p_y += i * (3 * F) + c
    p_g_context += i * (2 * F) + c
    gs = tl.load(p_gs, mask=inside, other=0.0)
    g_dot = gs * tl.load(p_y + 2 * F, mask=inside, other=0.0)
    norm = tl.load(p_context + i * (2 * F) + F + c, mask=inside, other=1.0)
    stretch = tl.load(p_g_context + F, mask=inside, other=0.0) / norm
    a0, a1, a2 = three(p_vw, i, c, inside, 2 * F)
    b0, b1, b2 = three(p_vw + F, i, c, inside, 2 * F)
    x, y, z = g_dot * b0 + stretch * a0, g_dot * b1 + stretch * a1, g_dot * b2 + stretch * a2
    put_three(p_g_vw, i, c, inside, x, y, z, 2 * F)
    x, y, z = g_dot * a0, g_dot * a1, g_dot * a2
    if VECTORS:
        B = tl.load(p_y + F, mask=inside, other=0.0)
        g0, g1, g2 = three(p_gv, i, c, inside, F)
        x, y, z = x + B * g0, y + B * g1, z + B * g2
    put_three(p_g_vw + F, i, c, inside, x, y, z, 2 * F)
    tl.store(p_gs, gs + tl.load(p_g_context, mask=inside, other=0.0), mask=inside)


def norm_fwd(s: Tensor, vw: Tensor, epsilon: float, context: Tensor, dot: Tensor) -> None:
    """context [N, 2 F] = (s, sqrt(|V|^2 + epsilon)); dot [N, F] = <V, W>."""
    launch(norm_fwd_kernel, s.shape, s, vw, context, dot, EPSILON=epsilon)


def gate_fwd(y: Tensor, vw: Tensor, dot: Tensor, vectors: bool, s: Tensor, v: Tensor) -> None:
    """s += A + G <V, W>; v += B W (not needed after the last layer: `vectors` False). y [N, 3 F] = (A, B, G)."""
    launch(gate_fwd_kernel, s.shape, s, v, y, vw, dot, s, v, VECTORS=vectors)


def gate_bwd(gs: Tensor, gv: Tensor, vw: Tensor, dot: Tensor, vectors: bool, gy: Tensor) -> None:
    """gy [N, 3 F] = (gs, <gv, W>, gs <V, W>)."""
    launch(gate_bwd_kernel, gs.shape, gs, gv, vw, dot, gy, VECTORS=vectors)


def norm_bwd(
    gs: Tensor, gv: Tensor, y: Tensor, vw: Tensor, context: Tensor, g_context: Tensor, vectors: bool, g_vw: Tensor
) -> None:
    """Adjoint of V and W [N, 3, 2 F]; gs then takes in the adjoint of s in `context`."""
    launch(norm_bwd_kernel, gs.shape, gs, gv, y, vw, context, g_context, g_vw, VECTORS=vectors)


def launch(kernel: Any, shape: torch.Size, *tensors: Tensor, **constants: Any) -> None:
    """Run a kernel over contiguous tensors of N atoms and F features; nothing is allocated, nothing waits."""
    n, f = shape
    if n == 0:
        return
    require_contiguous(*tensors)
    rows, columns, warps = blocks(f, tensors[0].device)
    with torch.cuda.device_of(tensors[0]):
        kernel[triton.cdiv(n, rows), triton.cdiv(f, columns)](
            *tensors, n, **constants, F=f, ROWS=rows, COLUMNS=columns, num_warps=warps
        )


def blocks(features: int, device: torch.device | None = None) -> tuple[int, int, int]:
    """Atoms and features of a tile, and the warps that share it."""
    numbers = launches(device)["update"]
    columns = min(numbers["columns"], triton.next_power_of_2(features))
    return max(1, numbers["elements"] // columns), columns, numbers["warps"]


def case(kernel: Any, features: int, **constants: Any) -> tuple[str, Any, dict[str, str], dict[str, Any], int]:
    """Name, kernel, types of its arguments, values of its constants and warps, for the static report."""
    rows, columns, warps = blocks(features)
    fixed = {**constants, "F": features, "ROWS": rows, "COLUMNS": columns}
    types = {
        name: "constexpr" if name in fixed else "*fp32" if name.startswith("p_") else "i32" for name in kernel.arg_names
    }
    title = f"update {kernel.__name__.removesuffix('_kernel')} F={features}"
    return title, kernel, types, fixed, warps


def cases() -> list[tuple[str, Any, dict[str, str], dict[str, Any], int]]:
    """What the static report compiles."""
    made = []
    for features in (64, 128):
        made.append(case(norm_fwd_kernel, features, EPSILON=1e-8))
        made += [case(k, features, VECTORS=True) for k in (gate_fwd_kernel, gate_bwd_kernel, norm_bwd_kernel)]
    return made
