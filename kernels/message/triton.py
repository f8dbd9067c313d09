"""Message and its adjoints on a GPU: one program owns the CSR rows of some atoms for one block of features.

Filter weights stay in registers over all edges of a program, the K radial functions are scalars, nothing is scattered
and nothing of size E x F is stored. The derivations are in README.md; second derivatives in `triton_second.py`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from painn_fast.kernels.launch import launches, require_contiguous
from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.radial.triton import (
    Constants,
    constants,
    edge_geometry,
    filter_values,
    radial_values,
    read,
    weight_rows,
    write,
)

LANES = 64 if torch.version.hip else 32
MOST_HELD = 32
"""Radial functions up to which the weights of a filter stay in registers; above, every edge reads them anew."""


@triton.jit(do_not_specialize=["n", "rows"])
def message_fwd_kernel(
    p_x, p_v, p_s, p_r, p_weight, p_first, p_widths, p_row_ptr, p_sender, p_ds, p_dv, n, rows,
    C: tl.constexpr, F: tl.constexpr, BLOCK_F: tl.constexpr, VECTORS: tl.constexpr, HELD: tl.constexpr,
):  # fmt: skip
    """ds [N, F], dv [N, 3, F] of `rows` atoms, or s + ds and v + dv where s is given."""
    K: tl.constexpr = C.count
    f = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    begin = tl.program_id(0).to(tl.int64) * rows
    if HELD:
        wa, wb, wc = weight_rows(p_weight, f, K + 1, F, BLOCK_F)
    for i in range(begin, tl.minimum(begin + rows, n)):
        zero = tl.zeros((BLOCK_F,), p_ds.dtype.element_ty)
        ds, dv0, dv1, dv2 = zero, zero, zero, zero
        if p_s is not None:
            ds = read(p_s + i * F, f, F, BLOCK_F)
            if VECTORS:
                p_vi = p_v + i * (3 * F)
                dv0, dv1 = read(p_vi, f, F, BLOCK_F), read(p_vi + F, f, F, BLOCK_F)
                dv2 = read(p_vi + 2 * F, f, F, BLOCK_F)
        for e in range(tl.load(p_row_ptr + i).to(tl.int64), tl.load(p_row_ptr + i + 1).to(tl.int64)):
            j = tl.load(p_sender + e).to(tl.int64)
            d, inverse, u0, u1, u2 = edge_geometry(p_r, e)
            if not (d >= C.cutoff):  # NaN is kept
                if not HELD:
                    wa, wb, wc = weight_rows(p_weight, f, K + 1, F, BLOCK_F)
                p_xj = p_x + j * (3 * F)
                psi, g, fc = radial_values(d, inverse, p_first, p_widths, C, 0)
                b = read(p_xj + F, f, F, BLOCK_F) * filter_values(wb, psi, g, fc, K, 0)[0]
                ds += read(p_xj, f, F, BLOCK_F) * filter_values(wa, psi, g, fc, K, 0)[0]
                dv0 += b * u0
                dv1 += b * u1
                dv2 += b * u2
                if VECTORS:
                    p_vj = p_v + j * (3 * F)
                    c = read(p_xj + 2 * F, f, F, BLOCK_F) * filter_values(wc, psi, g, fc, K, 0)[0]
                    dv0 += c * read(p_vj, f, F, BLOCK_F)
                    dv1 += c * read(p_vj + F, f, F, BLOCK_F)
                    dv2 += c * read(p_vj + 2 * F, f, F, BLOCK_F)
        write(p_ds + i * F, f, ds, F, BLOCK_F)
        p_dvi = p_dv + i * (3 * F)
        write(p_dvi, f, dv0, F, BLOCK_F)
        write(p_dvi + F, f, dv1, F, BLOCK_F)
        write(p_dvi + 2 * F, f, dv2, F, BLOCK_F)


@triton.jit(do_not_specialize=["n", "rows"])
def message_force_bwd_kernel(
    p_gs, p_gv, p_x, p_v, p_r, p_weight, p_first, p_widths, p_row_ptr, p_sender, p_gx, p_gvin, p_force,
    n, rows, C: tl.constexpr, F: tl.constexpr, BLOCK_F: tl.constexpr, VECTORS: tl.constexpr, HELD: tl.constexpr,
    RESIDUAL: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """gx [N, 3 F], gv_in [N, 3, F] and force [blocks, N, 3] of `rows` atoms, where r[mirror] = -r.

    With RESIDUAL gv is part of gv_in, with ADD the force is added to the values before. Both edges of a pair pass
    through the row of i with one filter; forces are summed over edges feature by feature, over features once an atom.
    """
    K: tl.constexpr = C.count
    block = tl.program_id(1)
    f = block * BLOCK_F + tl.arange(0, BLOCK_F)
    begin = tl.program_id(0).to(tl.int64) * rows
    if HELD:
        wa, wb, wc = weight_rows(p_weight, f, K + 1, F, BLOCK_F)
    for i in range(begin, tl.minimum(begin + rows, n)):
        p_xi, p_vi, p_gvi = p_x + i * (3 * F), p_v + i * (3 * F), p_gv + i * (3 * F)
        xa, xb = read(p_xi, f, F, BLOCK_F), read(p_xi + F, f, F, BLOCK_F)
        own = read(p_gs + i * F, f, F, BLOCK_F)
        own0, own1 = read(p_gvi, f, F, BLOCK_F), read(p_gvi + F, f, F, BLOCK_F)
        own2 = read(p_gvi + 2 * F, f, F, BLOCK_F)
        zero = tl.zeros((BLOCK_F,), p_force.dtype.element_ty)
        f0, f1, f2, pull = zero, zero, zero, zero
        if VECTORS:
            xc = read(p_xi + 2 * F, f, F, BLOCK_F)
            v0, v1 = read(p_vi, f, F, BLOCK_F), read(p_vi + F, f, F, BLOCK_F)
            v2 = read(p_vi + 2 * F, f, F, BLOCK_F)
            gxa, gxb, gxc, gv0, gv1, gv2 = zero, zero, zero, zero, zero, zero
        for e in range(tl.load(p_row_ptr + i).to(tl.int64), tl.load(p_row_ptr + i + 1).to(tl.int64)):
            j = tl.load(p_sender + e).to(tl.int64)
            d, inverse, u0, u1, u2 = edge_geometry(p_r, e)
            if not (d >= C.cutoff):  # NaN is kept
                if not HELD:
                    wa, wb, wc = weight_rows(p_weight, f, K + 1, F, BLOCK_F)
                p_xj, p_gvj = p_x + j * (3 * F), p_gv + j * (3 * F)
                h = read(p_gs + j * F, f, F, BLOCK_F)
                h0, h1 = read(p_gvj, f, F, BLOCK_F), read(p_gvj + F, f, F, BLOCK_F)
                h2 = read(p_gvj + 2 * F, f, F, BLOCK_F)
                psi, g, fc = radial_values(d, inverse, p_first, p_widths, C, 1)
                w, dw = filter_values(wa, psi, g, fc, K, 1)
                radial = dw * (own * read(p_xj, f, F, BLOCK_F) + h * xa)
                if VECTORS:
                    gxa += h * w
                w, dw = filter_values(wb, psi, g, fc, K, 1)
                mirror = -(h0 * u0 + h1 * u1 + h2 * u2)
                yb = read(p_xj + F, f, F, BLOCK_F)
                both = (own0 * u0 + own1 * u1 + own2 * u2) * yb + mirror * xb
                across = w * inverse
                radial += (dw - across) * both
                pull += across * yb  # times own: what i receives across the bond, taken out of the sum over edges
                across *= xb
                if VECTORS:
                    gxb += mirror * w
                    w, dw = filter_values(wc, psi, g, fc, K, 1)
                    p_vj = p_v + j * (3 * F)
                    gate = own0 * read(p_vj, f, F, BLOCK_F) + own1 * read(p_vj + F, f, F, BLOCK_F)
                    gate += own2 * read(p_vj + 2 * F, f, F, BLOCK_F)
                    mirror = h0 * v0 + h1 * v1 + h2 * v2
                    radial += dw * (gate * read(p_xj + 2 * F, f, F, BLOCK_F) + mirror * xc)
                    gxc += mirror * w
                    gv0 += w * h0
                    gv1 += w * h1
                    gv2 += w * h2
                f0 += radial * u0 - across * h0
                f1 += radial * u1 - across * h1
                f2 += radial * u2 - across * h2
        p_fi = p_force + (block.to(tl.int64) * n + i) * 3
        if ADD:  # before the barriers of the sums: every warp reads what one of them replaces
            old0, old1, old2 = tl.load(p_fi), tl.load(p_fi + 1), tl.load(p_fi + 2)
        f0, f1, f2 = tl.sum(f0 + pull * own0), tl.sum(f1 + pull * own1), tl.sum(f2 + pull * own2)
        if ADD:
            f0, f1, f2 = f0 + old0, f1 + old1, f2 + old2
        tl.store(p_fi, f0)
        tl.store(p_fi + 1, f1)
        tl.store(p_fi + 2, f2)
        if VECTORS:
            p_gxi, p_gvi = p_gx + i * (3 * F), p_gvin + i * (3 * F)
            write(p_gxi, f, gxa, F, BLOCK_F)
            write(p_gxi + F, f, gxb, F, BLOCK_F)
            write(p_gxi + 2 * F, f, gxc, F, BLOCK_F)
            gv0, gv1, gv2 = xc * gv0, xc * gv1, xc * gv2
            if RESIDUAL:
                gv0, gv1, gv2 = own0 + gv0, own1 + gv1, own2 + gv2
            write(p_gvi, f, gv0, F, BLOCK_F)
            write(p_gvi + F, f, gv1, F, BLOCK_F)
            write(p_gvi + 2 * F, f, gv2, F, BLOCK_F)


def message_fwd(
    x: Tensor, v: Tensor, r: Tensor, weight: Tensor, radial: Radial, row_ptr: Tensor, sender: Tensor,
    vectors: bool = True, *, s: Tensor | None = None, out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The message of `reference.py` over CSR rows.

    Args:
        x: [N, 3 F].
        v: [N, 3, F]; with `vectors` False it is zero and never read.
        r: [E, 3] from receiver to sender.
        weight: [K + 1, 3 F], the bias in its last row.
        row_ptr, sender: [N + 1] and [E].
        s: [N, F]; if given, s + ds and v + dv are made instead.
        out: memory for the results.

    Returns:
        ds [N, F], dv [N, 3, F].
    """
    x, v, r, weight, first, widths = plain(x, v, r, weight, radial.first, radial.widths)
    n, f = x.shape[0], x.shape[1] // 3
    ds, dv = out or (x.new_empty(n, f), x.new_empty(n, 3, f))
    require_contiguous(ds, dv)
    given = (x, v, s, r, weight, first, widths, row_ptr, sender, ds, dv)
    launch("message_fwd", message_fwd_kernel, given, n, f, radial, VECTORS=vectors)
    return ds, dv


def message_force_bwd(
    gs: Tensor, gv: Tensor, x: Tensor, v: Tensor, r: Tensor, weight: Tensor, radial: Radial, row_ptr: Tensor,
    sender: Tensor, vectors: bool = True, *, residual: bool = False, add: bool = False,
    out: tuple[Tensor | None, Tensor | None, Tensor] | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor]:  # fmt: skip
    """Adjoint of `message_fwd` down to forces, for r = R_j - R_i + shift, where each edge has its exact mirror.

    Args:
        gs, gv: [N, F] and [N, 3, F], adjoints of an energy.
        vectors: False in the first layer, where v is zero and x depends on no position: only forces are made.
        residual: gv is part of gv_in, as of a v that the message was added to.
        add: the force is added to the one in `out`.
        out: memory for the results, the force as [blocks, N, 3], `force_blocks` of them, whose sum it is.

    Returns:
        gx [N, 3 F], gv_in [N, 3, F] (both None with `vectors` False), force [N, 3] = -dE/dR; or `out`.
    """
    gs, gv, x, v, r, weight, first, widths = plain(gs, gv, x, v, r, weight, radial.first, radial.widths)
    n, f = gs.shape
    if out is None:
        gx, gv_in = (torch.empty_like(x), torch.empty_like(gv)) if vectors else (None, None)
        force = r.new_empty(force_blocks(f, gs.device), n, 3)
    else:
        gx, gv_in, force = out
    require_contiguous(gx, gv_in, force)
    given = (gs, gv, x, v, r, weight, first, widths, row_ptr, sender, gx, gv_in, force)
    flags = {"VECTORS": vectors, "RESIDUAL": residual, "ADD": add}
    launch("message_force_bwd", message_force_bwd_kernel, given, n, f, radial, **flags)
    if out is not None:
        return out
    return gx, gv_in, force[0] if len(force) == 1 else force.sum(dim=0)


def force_blocks(features: int, device: torch.device) -> int:
    """Parts of a force that `message_force_bwd` makes; by default one up to 128 features."""
    return triton.cdiv(features, shape("message_force_bwd", features, device=device)[0])


def plain(*tensors: Tensor) -> list[Tensor]:
    """Plain memory and the dtype of the first; a gradient may be a stride-0 view."""
    return [tensor.detach().to(tensors[0].dtype).contiguous() for tensor in tensors]


def shape(name: str, features: int, lanes: int = LANES, device: torch.device | None = None) -> tuple[int, int]:
    """Features and warps of a program."""
    numbers = launches(device)[name]
    of_a_warp = numbers["features"] * lanes
    block = min(numbers["warps"] * of_a_warp, max(16, triton.next_power_of_2(features)))
    return block, max(1, block // of_a_warp)


def launch(
    name: str, kernel: Any, given: tuple[Any, ...], n: int, f: int, radial: Radial, *more: int,
    programs: int = 0, **flags: bool,
) -> None:  # fmt: skip
    """Run a kernel over n atoms and f features; `programs` 0: as many as there are atoms, fewer in a large batch."""
    if n == 0:
        return
    functions, device = constants(radial, given[0].dtype), given[0].device
    block, warps = shape(name, f, device=device)
    rows = triton.cdiv(n, programs) if programs else rows_of(launches(device)[name], n)
    held = functions.count <= MOST_HELD
    if "HELD" in kernel.arg_names:
        flags["HELD"] = held
    elif not held:
        warps *= 2  # a sum for the weights stays in registers whatever their number
    if given[0].dtype == torch.float64:
        warps *= 2  # each number takes two registers
    warps = min(warps, max(1, block // LANES))  # no warp repeats what another does
    with torch.cuda.device_of(given[0]):
        kernel[programs or triton.cdiv(n, rows), triton.cdiv(f, block)](
            *(t if t is None else t.contiguous() for t in given),
            *(n, rows, *more, functions, f, block),
            num_warps=warps,
            **flags,
        )


def rows_of(numbers: dict[str, int], atoms: int) -> int:
    """Atoms of a program: several, so that weights are read less often, once there are programs for the machine."""
    return min(numbers["rows"], max(1, atoms // numbers["programs"]))


def case(
    name: str, kernel: Any, f: int, lanes: int, *, label: str = "", basis: str = "sinc", absent: tuple[str, ...] = (),
    **flags: bool,
) -> tuple[Any, ...]:  # fmt: skip
    """What the static report compiles for f features and so many lanes a warp; `absent` arguments are None."""
    numbers = (math.pi / 5.0, 0.0, 0.0) if basis == "sinc" else (0.0, 5.0 / 19.0, 5.0 / 19.0)
    functions = Constants(basis, 20, *numbers, "cosine", 5.0, 0.0)
    block, warps = shape(name, f, lanes)
    fixed = {"C": functions, "F": f, "BLOCK_F": block, "HELD": True, **flags, **dict.fromkeys(absent)}
    kinds = {"p_row_ptr": "*i64", "p_sender": "*i64", "p_mirror": "*i64"}
    signature = {
        a: "constexpr" if a in fixed else kinds.get(a, "*fp32" if a.startswith("p_") else "i32")
        for a in kernel.arg_names
    }
    title = f"{name}{label}{', Gaussians' if basis == 'gaussian' else ''} F={f}"
    return title, kernel, signature, {a: fixed[a] for a in kernel.arg_names if a in fixed}, warps


def cases(lanes: int = LANES) -> list[tuple[Any, ...]]:
    """Everything here, the first layer's shorter versions, and Gaussians in place of sinc functions."""
    listed = []
    hot: list[tuple[str, Any, dict[str, Any]]] = [
        ("message_fwd", message_fwd_kernel, {}),
        ("message_force_bwd", message_force_bwd_kernel, {"RESIDUAL": True, "ADD": True}),
    ]
    for name, kernel, flags in hot:
        listed += [case(name, kernel, f, lanes, VECTORS=True, **flags) for f in (64, 128)]
        listed += [case(name, kernel, 128, lanes, basis="gaussian", VECTORS=True, **flags)]
        absent = ("p_gx", "p_gvin") if flags else ()
        listed += [case(name, kernel, 128, lanes, label=", first layer", absent=absent, VECTORS=False, **flags)]
    return listed
