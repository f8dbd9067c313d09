"""Bonds that break, on a GPU: one launch, a program a trajectory, that the host does not wait for."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from painn_fast.kernels.bonds.reference import CONTACT, STRETCH, Bonds, Contacts
from painn_fast.kernels.launch import require_contiguous

TOGETHER = 32
"""Bonds, or atoms, that a program has in one block."""
WARPS = 1
SQUARE_OF_CONTACT, SQUARE_OF_STRETCH = tl.constexpr(CONTACT**2), tl.constexpr(STRETCH**2)


@triton.jit
def _image(p_cell, x, y, z, axis):
    """Number of cell vectors along an axis to subtract from (x, y, z); cell [6, 3] is the cell, then its inverse."""
    inverse = p_cell + 9 + axis
    return tl.floor(x * tl.load(inverse) + y * tl.load(inverse + 3) + z * tl.load(inverse + 6) + 0.5)


@triton.jit
def _squares(p_beads, p_cell, i, j, N, P, share):
    """Squares of the distances of the centroids of atoms i and j, numbers or blocks of them."""
    x = ((i + j) * 0).to(tl.float64)
    y = x
    z = x
    p_i = p_beads + 3 * i
    p_j = p_beads + 3 * j
    for _ in range(P):
        x += tl.load(p_j) - tl.load(p_i)
        y += tl.load(p_j + 1) - tl.load(p_i + 1)
        z += tl.load(p_j + 2) - tl.load(p_i + 2)
        p_i += 3 * N
        p_j += 3 * N
    x *= share
    y *= share
    z *= share
    if p_cell is not None:
        a, b, c = _image(p_cell, x, y, z, 0), _image(p_cell, x, y, z, 1), _image(p_cell, x, y, z, 2)
        x -= a * tl.load(p_cell) + b * tl.load(p_cell + 3) + c * tl.load(p_cell + 6)
        y -= a * tl.load(p_cell + 1) + b * tl.load(p_cell + 4) + c * tl.load(p_cell + 7)
        z -= a * tl.load(p_cell + 2) + b * tl.load(p_cell + 5) + c * tl.load(p_cell + 8)
    return x * x + y * y + z * z


@triton.jit
def _partner(p_beads, p_atoms, p_radii, p_cell, atom, N, B, P, share, TOGETHER: tl.constexpr):
    """The nearest atom within reach of `atom` that no bond is to, N if there is none."""
    partner, own = atom * 0 + N, tl.load(p_radii + atom)
    least = own * 0.0 + float("inf")
    for first in range(0, N, TOGETHER):
        k = (first + tl.arange(0, TOGETHER)).to(tl.int64)
        free = (k < N) & (k != atom)
        k = tl.where(free, k, atom)
        square = _squares(p_beads, p_cell, k * 0 + atom, k, N, P, share)
        reach = tl.load(p_radii + k) + own
        free = free & (square < reach * reach * SQUARE_OF_CONTACT)
        for b in range(B):
            i, j = tl.load(p_atoms + 2 * b), tl.load(p_atoms + 2 * b + 1)
            free = free & (((i != atom) | (j != k)) & ((j != atom) | (i != k)))
        square = tl.where(free, square, float("inf"))
        nearest = tl.min(square, axis=0)
        which = tl.min(tl.where(free & (square == nearest), k, N), axis=0)
        partner = tl.where(nearest < least, which, partner)
        least = tl.minimum(nearest, least)
    return partner


@triton.jit(do_not_specialize=["step", "share"])
def update_kernel(
    p_positions, p_stopped, p_atoms, p_length, p_broken_at, p_reached, p_radii, p_hydrogen, p_cell, step: tl.int64, N,
    B, P, share: tl.float64, TOGETHER: tl.constexpr, STOP: tl.constexpr,
):  # fmt: skip
    """See `reference.update_bonds`: all bonds at once, and only where one is stretched one after another."""
    s = tl.program_id(0).to(tl.int64)
    if tl.load(p_stopped + s) != 0:
        return
    p_beads = p_positions + s * P * N * 3
    p_atoms += s * B * 2
    p_length += s * B
    p_broken_at += s * B
    p_reached += s * B
    stretched = 0
    for first in range(0, B, TOGETHER):
        b = first + tl.arange(0, TOGETHER)
        i = tl.load(p_atoms + 2 * b, mask=b < B, other=0)
        j = tl.load(p_atoms + 2 * b + 1, mask=b < B, other=0)
        length = tl.load(p_length + b, mask=b < B, other=float("inf"))
        broken_at = tl.load(p_broken_at + b, mask=b < B, other=1)
        square = _squares(p_beads, p_cell, i, j, N, P, share)
        long = (square > length * length * SQUARE_OF_STRETCH) & (broken_at == 0)
        stretched += tl.sum(long.to(tl.int32), axis=0)
    if stretched > 0:
        for b in range(B):
            if tl.load(p_broken_at + b) == 0:
                i, j, length = tl.load(p_atoms + 2 * b), tl.load(p_atoms + 2 * b + 1), tl.load(p_length + b)
                square = _squares(p_beads, p_cell, i, j, N, P, share)
                if square > length * length * SQUARE_OF_STRETCH:
                    light, other = tl.load(p_hydrogen + i), tl.load(p_hydrogen + j)
                    atom, partner = i, i * 0 + N
                    for side in range(2):
                        may = (light == other) | (tl.where(side == 0, light, other) != 0)
                        if may & (partner == N):
                            atom = tl.where(side == 0, i, j)
                            partner = _partner(p_beads, p_atoms, p_radii, p_cell, atom, N, B, P, share, TOGETHER)
                    tl.debug_barrier()  # all threads have read the list before it changes
                    if partner < N:
                        tl.store(p_atoms + 2 * b, atom)
                        tl.store(p_atoms + 2 * b + 1, partner)
                        tl.store(p_length + b, tl.load(p_radii + atom) + tl.load(p_radii + partner))
                    else:
                        tl.store(p_broken_at + b, step)
                        tl.store(p_reached + b, tl.sqrt(square))
                        if STOP:
                            tl.store(p_stopped + s, step)
                    tl.debug_barrier()  # and it has changed before they read it again


def update_bonds(positions: Tensor, stopped: Tensor, bonds: Bonds, contacts: Contacts, step: int, stop: bool) -> None:
    """See `reference.update_bonds`. The tensors must be contiguous."""
    require_contiguous(positions, stopped, bonds.atoms, bonds.length, bonds.broken_at, bonds.reached)
    S, P, N = positions.shape[:3]
    B = bonds.atoms.shape[1]
    cell = torch.cat([contacts.cell, contacts.inverse]) if contacts.periodic else None
    given = positions, stopped, bonds.atoms, bonds.length, bonds.broken_at, bonds.reached
    last = contacts.radii, contacts.hydrogen.view(torch.uint8), cell, step, N, B, P, 1.0 / P
    with torch.cuda.device_of(positions):
        update_kernel[(S,)](*given, *last, TOGETHER=TOGETHER, STOP=stop, num_warps=WARPS)


def cases() -> list[tuple[str, Any, dict[str, str], dict[str, Any], int]]:
    """Cases of the static report: with a cell and without."""
    made = []
    for periodic in (False, True):
        fixed: dict[str, Any] = {"TOGETHER": TOGETHER, "STOP": True} | ({} if periodic else {"p_cell": None})
        whole = dict.fromkeys(("p_stopped", "p_atoms", "p_broken_at"), "*i64")
        types = {**whole, "p_hydrogen": "*u8", "step": "i64", "N": "i32", "B": "i32", "P": "i32", "share": "fp64"}
        signature = {a: "constexpr" if a in fixed else types.get(a, "*fp64") for a in update_kernel.arg_names}
        made.append((f"bonds update{' in a cell' if periodic else ''}", update_kernel, signature, fixed, WARPS))
    return made
