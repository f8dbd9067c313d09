"""Bonds that break, on a CPU: one compiled call."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from painn_fast.kernels.bonds.reference import CONTACT, STRETCH, Bonds, Contacts
from painn_fast.kernels.jit import compiled


@compiled()
def _square(beads, i, j, cell, inverse, periodic, r):  # type: ignore[no-untyped-def]
    """Square of the distance of the centroids of atoms i and j; beads [P, N, 3], r [3] is scratch."""
    P = beads.shape[0]
    for x in range(3):
        r[x] = 0.0
        for k in range(P):
            r[x] += beads[k, j, x] - beads[k, i, x]
        r[x] /= P
    if periodic:
        a = np.floor(r[0] * inverse[0, 0] + r[1] * inverse[1, 0] + r[2] * inverse[2, 0] + 0.5)
        b = np.floor(r[0] * inverse[0, 1] + r[1] * inverse[1, 1] + r[2] * inverse[2, 1] + 0.5)
        c = np.floor(r[0] * inverse[0, 2] + r[1] * inverse[1, 2] + r[2] * inverse[2, 2] + 0.5)
        for x in range(3):
            r[x] -= a * cell[0, x] + b * cell[1, x] + c * cell[2, x]
    return r[0] * r[0] + r[1] * r[1] + r[2] * r[2]


@compiled()
def _partner(beads, atoms, atom, radii, cell, inverse, periodic, r):  # type: ignore[no-untyped-def]
    """The nearest atom within reach of `atom` that no bond of atoms [B, 2] is to, or -1."""
    partner, least = -1, np.inf
    for k in range(radii.shape[0]):
        square = _square(beads, atom, k, cell, inverse, periodic, r)
        if k == atom or not (square < (CONTACT * (radii[k] + radii[atom])) ** 2 and square < least):
            continue
        free = True
        for b in range(atoms.shape[0]):
            if (atoms[b, 0] == atom and atoms[b, 1] == k) or (atoms[b, 1] == atom and atoms[b, 0] == k):
                free = False
        if free:
            partner, least = k, square
    return partner


@compiled(allocates=True)
def update_kernel(  # type: ignore[no-untyped-def]
    positions, stopped, atoms, length, broken_at, reached, radii, hydrogen, cell, inverse, periodic, step, stop
):
    """See `reference.update_bonds`."""
    r = np.empty(3)
    for s in range(positions.shape[0]):
        if stopped[s] != 0:
            continue
        beads = positions[s]
        for b in range(atoms.shape[1]):
            if broken_at[s, b] != 0:
                continue
            i, j = atoms[s, b, 0], atoms[s, b, 1]
            square = _square(beads, i, j, cell, inverse, periodic, r)
            if not square > (STRETCH * length[s, b]) ** 2:
                continue
            mixed = hydrogen[i] != hydrogen[j]
            atom, partner = i, -1
            if hydrogen[i] or not mixed:
                partner = _partner(beads, atoms[s], i, radii, cell, inverse, periodic, r)
            if partner < 0 and (hydrogen[j] or not mixed):
                atom, partner = j, _partner(beads, atoms[s], j, radii, cell, inverse, periodic, r)
            if partner >= 0:
                atoms[s, b, 0], atoms[s, b, 1] = atom, partner
                length[s, b] = radii[atom] + radii[partner]
            else:
                broken_at[s, b], reached[s, b] = step, np.sqrt(square)
        if stop:
            for b in range(atoms.shape[1]):
                if broken_at[s, b] == step:
                    stopped[s] = step


def update_bonds(positions: Tensor, stopped: Tensor, bonds: Bonds, contacts: Contacts, step: int, stop: bool) -> None:
    """See `reference.update_bonds`."""
    update_kernel(positions.numpy(), stopped.numpy(), *bonds.arrays, *contacts.arrays, step, stop)
