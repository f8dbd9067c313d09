"""Energies from the last hidden layer on a GPU, and with the same reading of it the adjoint; no atomics."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from painn_fast.kernels.launch import launches, require_contiguous

ATOMS = 256
"""Atoms that the sum over a molecule reads together, by one warp."""


@triton.jit
def sigmoid(h):
    """1 / (1 + exp(-h)), with a Newton step: a division by Triton is off by up to 2^-22."""
    b = 1.0 + tl.exp(tl.minimum(-h, 80.0))  # infinity times zero would be NaN
    p = 1.0 / b
    return tl.fma(tl.fma(-p, b, 1.0), p, p)


@triton.jit
def atomic_energies(
    p_h, p_w, p_b, p_reference, p_numbers, p_atomic, p_g, row, n,
    H: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """atomic [N], and g [N, H] = w silu'(h) where asked for, of rows. A row's sum does not depend on the other rows."""
    i = row[:, None]
    total = tl.zeros((ROWS, COLUMNS), tl.float64)
    for first in tl.static_range(0, H, COLUMNS):
        c = first + tl.arange(0, COLUMNS)[None, :]
        inside = (i < n) & (c < H)
        h = tl.load(p_h + i * H + c, mask=inside, other=0.0)
        w = tl.load(p_w + c, mask=c < H, other=0.0)
        sigma = sigmoid(h)
        total += (h * sigma * w).to(tl.float64)
        if p_g is not None:
            tl.store(p_g + i * H + c, w * sigma * (1.0 + h * (1.0 - sigma)), mask=inside)
    element = tl.load(p_numbers + row, mask=row < n, other=0)
    rest = tl.load(p_b).to(tl.float64) + tl.load(p_reference + element, mask=row < n, other=0.0)
    tl.store(p_atomic + row, tl.sum(total, axis=1) + rest, mask=row < n)


@triton.jit
def total_of(p_atomic, p_atom_ptr, p_total, m, SCALE: tl.constexpr, ATOMS: tl.constexpr):
    """total[m] times SCALE; the order of a sum depends on nothing but the molecule's size."""
    first, last = tl.load(p_atom_ptr + m), tl.load(p_atom_ptr + m + 1)
    total = tl.zeros((ATOMS,), tl.float64)
    while first < last:
        i = first + tl.arange(0, ATOMS)
        total += tl.load(p_atomic + i, mask=i < last, other=0.0)
        first += ATOMS
    tl.store(p_total + m, tl.sum(total, axis=0) * tl.full((), SCALE, tl.float64))


@triton.jit(do_not_specialize=["n"])
def readout_fwd_kernel(
    p_h, p_w, p_b, p_reference, p_numbers, p_atomic, p_g, n,
    H: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """`atomic_energies` of all atoms."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    atomic_energies(p_h, p_w, p_b, p_reference, p_numbers, p_atomic, p_g, row, n, H, ROWS, COLUMNS)


@triton.jit
def molecules_kernel(p_atomic, p_atom_ptr, p_total, SCALE: tl.constexpr, ATOMS: tl.constexpr):
    """total [M], one program a molecule."""
    total_of(p_atomic, p_atom_ptr, p_total, tl.program_id(0).to(tl.int64), SCALE, ATOMS)


def readout(
    h: Tensor, w: Tensor, b: Tensor, reference: Tensor, numbers: Tensor, atom_ptr: Tensor, atomic: Tensor,
    total: Tensor, g: Tensor | None = None, *, scale: float = 1.0,
) -> None:  # fmt: skip
    """`reference.readout` into `atomic` [N] and `total` [M], float64; `reference.adjoint` into `g` [N, H] if given.

    `total` is times `scale`.

    Nothing is allocated if the inputs are contiguous, and nothing waits for the device.
    """
    require_contiguous(atomic, total, g)
    n, hidden = h.shape
    with torch.cuda.device_of(h):
        if n > 0:
            rows, columns, warps = blocks(hidden, h.device)
            inputs = [t.detach().contiguous() for t in (h, w, b, reference, numbers)]
            readout_fwd_kernel[(triton.cdiv(n, rows),)](
                *inputs, atomic, g, n, H=hidden, ROWS=rows, COLUMNS=columns, num_warps=warps
            )
    molecule_totals(atomic, atom_ptr, total, scale)


def molecule_totals(atomic: Tensor, atom_ptr: Tensor, total: Tensor, scale: float, warps: int = 1) -> None:
    """total [M] of atomic [N], both float64, times `scale`."""
    if len(total) > 0:
        with torch.cuda.device_of(total):
            given = atomic, atom_ptr.contiguous(), total
            molecules_kernel[(len(total),)](*given, SCALE=scale, ATOMS=ATOMS, num_warps=warps)


def blocks(hidden: int, device: torch.device | None = None) -> tuple[int, int, int]:
    """Atoms and hidden features of a tile, and the warps that share it."""
    numbers = launches(device)["readout"]
    columns = min(numbers["columns"], triton.next_power_of_2(hidden))
    return max(1, numbers["elements"] // columns), columns, numbers["warps"]


def cases() -> list[tuple[str, Any, dict[str, str], dict[str, Any], int]]:
    """What the static report compiles: the head's hidden layer has half as many features as the network."""
    made: list[tuple[str, Any, dict[str, str], dict[str, Any], int]] = []
    kinds = {"p_reference": "*fp64", "p_numbers": "*i64", "p_atomic": "*fp64", "p_atom_ptr": "*i64", "p_total": "*fp64"}
    for features in (64, 128):
        rows, columns, warps = blocks(features // 2)
        fixed = {"H": features // 2, "ROWS": rows, "COLUMNS": columns}
        made.append(
            (f"readout F={features}", readout_fwd_kernel, _types(readout_fwd_kernel, kinds, fixed), fixed, warps)
        )
    of_sum: dict[str, Any] = {"SCALE": 1.0, "ATOMS": ATOMS}
    made.append(("readout molecules", molecules_kernel, _types(molecules_kernel, kinds, of_sum), of_sum, 1))
    return made


def _types(kernel: Any, kinds: dict[str, str], fixed: dict[str, Any]) -> dict[str, str]:
    usual = {name: "*fp32" if name.startswith("p_") else "i32" for name in kernel.arg_names}
    return {name: "constexpr" if name in fixed else kinds.get(name, usual[name]) for name in kernel.arg_names}
