"""All pairs within a cut-off on a GPU: a program for each receiver, no atomics, the same list at every run.

Products and sums are not fused and distances are those of float64: a pair is in or out as on a CPU, and counting and
filling agree.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

SENDERS, WARPS = 32, 1
"""Atoms in one block of a program, and its warps."""


@triton.jit
def _near(p_positions, i, j, inside, SQUARE: tl.constexpr):
    """Which atoms j of a tile are neighbours of i."""
    p_i, p_j = p_positions + 3 * i, p_positions + 3 * j
    x = tl.load(p_j, mask=inside, other=0.0) - tl.load(p_i)
    y = tl.load(p_j + 1, mask=inside, other=0.0) - tl.load(p_i + 1)
    z = tl.load(p_j + 2, mask=inside, other=0.0) - tl.load(p_i + 2)
    square = x * x + y * y + z * z
    # a bare number would be compared in single precision; NaN and infinity are for the network to answer with NaN
    limit = tl.full(square.shape, SQUARE, tl.float64)
    beyond = (square >= limit) & (square < tl.full(square.shape, float("inf"), tl.float64))
    return (beyond == 0) & inside & (j != i)


@triton.jit
def count_kernel(p_positions, p_molecule, p_atom_ptr, p_degree, SQUARE: tl.constexpr, SENDERS: tl.constexpr):
    """degree [N]."""
    i = tl.program_id(0).to(tl.int64)
    m = tl.load(p_molecule + i)
    first, last = tl.load(p_atom_ptr + m), tl.load(p_atom_ptr + m + 1)
    near = tl.zeros((SENDERS,), tl.int32)
    while first < last:
        j = first + tl.arange(0, SENDERS)
        near += _near(p_positions, i, j, j < last, SQUARE).to(tl.int32)
        first += SENDERS
    tl.store(p_degree + i, tl.sum(near, axis=0).to(tl.int64))


@triton.jit
def fill_kernel(p_positions, p_molecule, p_atom_ptr, p_row_ptr, p_sender, SQUARE: tl.constexpr, SENDERS: tl.constexpr):
    """sender [E]."""
    i = tl.program_id(0).to(tl.int64)
    m = tl.load(p_molecule + i)
    first, last = tl.load(p_atom_ptr + m), tl.load(p_atom_ptr + m + 1)
    e = tl.load(p_row_ptr + i)
    while first < last:
        j = first + tl.arange(0, SENDERS)
        near = _near(p_positions, i, j, j < last, SQUARE)
        rank = tl.cumsum(near.to(tl.int32), axis=0)
        edge = e + rank - 1
        tl.store(p_sender + edge, j, mask=near)
        e += tl.max(rank, axis=0)
        first += SENDERS


@triton.jit
def mirror_kernel(p_row_ptr, p_sender, p_mirror, SENDERS: tl.constexpr):
    """mirror [E]: the position of receiver i in the row of each of its senders, by bisection."""
    i = tl.program_id(0).to(tl.int64)
    e, end = tl.load(p_row_ptr + i), tl.load(p_row_ptr + i + 1)
    while e < end:
        edge = e + tl.arange(0, SENDERS)
        inside = edge < end
        j = tl.load(p_sender + edge, mask=inside, other=0)
        low = tl.load(p_row_ptr + j, mask=inside, other=0)
        high = tl.load(p_row_ptr + j + 1, mask=inside, other=0)
        while tl.max(high - low, axis=0) > 0:
            middle = (low + high) // 2
            before = (low < high) & (tl.load(p_sender + middle, mask=low < high, other=0) < i)
            low, high = tl.where(before, middle + 1, low), tl.where(before, high, tl.minimum(middle, high))
        tl.store(p_mirror + edge, low, mask=inside)
        e += SENDERS


def neighbors(positions: Tensor, atom_ptr: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.neighbors`; waits for the device once, to learn how many edges there are."""
    n, square = len(positions), cutoff * cutoff
    molecule = torch.searchsorted(atom_ptr, torch.arange(n, device=positions.device), right=True) - 1
    given = positions.contiguous(), molecule, atom_ptr
    degree = torch.zeros(n + 1, dtype=torch.int64, device=positions.device)
    _launch(count_kernel, n, *given, degree[1:], SQUARE=square)
    row_ptr = torch.cumsum(degree, 0)
    edges = int(row_ptr[-1])
    sender, mirror = row_ptr.new_empty(edges), row_ptr.new_empty(edges)  # each aligned, whatever the number of edges
    _launch(fill_kernel, n, *given, row_ptr, sender, SQUARE=square)
    _launch(mirror_kernel, n, row_ptr, sender, mirror)
    return row_ptr, sender, mirror


def _launch(kernel: Any, atoms: int, *arguments: Tensor, **constants: float) -> None:
    if atoms == 0:
        return
    with torch.cuda.device_of(arguments[0]):
        kernel[(atoms,)](*arguments, **constants, SENDERS=SENDERS, num_warps=WARPS, enable_fp_fusion=False)


def cases() -> list[tuple[str, Any, dict[str, str], dict[str, Any], int]]:
    """Cases of the static report."""
    made = []
    for kernel in (count_kernel, fill_kernel, mirror_kernel):
        fixed = {"SQUARE": 25.0, "SENDERS": SENDERS}
        fixed = {name: value for name, value in fixed.items() if name in kernel.arg_names}
        signature = {
            a: "constexpr" if a in fixed else "*fp64" if a == "p_positions" else "*i64" for a in kernel.arg_names
        }
        made.append((f"neighbors {kernel.__name__.removesuffix('_kernel')}", kernel, signature, fixed, WARPS))
    return made
