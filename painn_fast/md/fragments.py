"""A guard against molecules that fall apart, which few models have been trained for.

Bonds are those of the start: pairs closer than `CONTACT` times the sum of their covalent radii; a hydrogen has one, to
the atom that is nearest by that measure. A bond whose centroids are more than `STRETCH` times as far apart as at the
start counts as a broken bond, unless one of its atoms is bonded anew; then the new bond replaces it. Molecules that
have no bond between them at the start may part.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from painn_fast.graph.batch import CLOSEST
from painn_fast.kernels.bonds import CONTACT, STRETCH, Bonds, Contacts, nearest_image, update_bonds
from painn_fast.md.geometry import ROWS, atom_name, contacts
from painn_fast.md.guards import LimitExceeded
from painn_fast.md.state import State, System

Mode = Literal["stop", "note", "off"]
EVERY = 4.0
"""fs between checks: an atom that leaves moves some tenths of an Å in that time."""
CAUSE = "the molecule falls apart, at too high a temperature or in a geometry far from the training data"
GO_ON = '; with fragments = "note" a run goes on'


class Fragments:
    """Checks the bonds of the trajectories of one molecule.

    Args:
        system: elements and cell.
        positions: [S, N, 3] Å, the structures that the trajectories start from.
        mode: "stop" stops a trajectory whose bond breaks, "note" only reports, once a bond.
        time_step: fs, the longest.
    """

    def __init__(self, system: System, positions: Tensor, mode: Mode, time_step: float) -> None:
        self.system, self.stop = system, mode == "stop"
        self.every = max(1, math.floor(EVERY / time_step * (1.0 + 1e-9)))
        self.contacts = contacts(system)
        self.bonds = find_bonds(positions, self.contacts)
        self._first = self.bonds.atoms.clone()
        self._reported = torch.zeros_like(self.bonds.broken_at, dtype=torch.bool)
        self._news = False

    def due(self, step: int) -> bool:
        """Whether bonds are checked after a step; decided by its number alone, so that a restart changes nothing."""
        return step % self.every == 0

    def check(self, state: State, stopped: Tensor) -> None:
        """Check the bonds; stopped [S] int64 takes the step of the trajectories whose bond breaks."""
        update_bonds(state.positions, stopped, self.bonds, self.contacts, state.step, self.stop)
        self._news = not self.stop

    def stopped(self, s: int, step: int) -> bool:
        """Whether trajectory s was stopped in a step for a bond."""
        return self.stop and bool((self.bonds.broken_at[s] == step).any())

    def describe(self, s: int, step: int, number: int) -> LimitExceeded:
        """Which bond of trajectory s, with this number, broke in a step, the one stretched most if it was several."""
        bonds = self.bonds
        ratio = torch.where(bonds.broken_at[s] == step, bonds.reached[s] / bonds.length[s], 0.0)
        return self._event(s, int(ratio.argmax()), number)

    def notes(self, state: State) -> list[LimitExceeded]:
        """Bonds that broke and are not reported yet, where trajectories are not stopped for it."""
        if not self._news:
            return []
        self._news = False
        fresh = (self.bonds.broken_at > 0) & ~self._reported
        self._reported |= fresh
        return [self._event(s, b, int(state.trajectory[s])) for s, b in torch.nonzero(fresh).tolist()]

    def tensors(self) -> dict[str, Tensor]:
        """What a restart needs."""
        bonds = self.bonds
        return {"atoms": bonds.atoms, "length": bonds.length, "broken": bonds.broken_at, "reached": bonds.reached}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `tensors` gave; without them, from a run without this guard, bonds are those of the start."""
        for name, value in self.tensors().items() if tensors else ():
            value.copy_(tensors[name])
        self._reported = self.bonds.broken_at > 0

    def _event(self, s: int, b: int, number: int) -> LimitExceeded:
        bonds = self.bonds
        i, j = sorted(bonds.atoms[s, b].tolist())
        length = float(bonds.length[s, b])
        new = sorted(self._first[s, b].tolist()) != [i, j]
        names = f"{atom_name(self.system, i)}-{atom_name(self.system, j)}"
        of = f"{length:.4g} Å by covalent radii, made since the start" if new else f"{length:.4g} Å at the start"
        return LimitExceeded(
            number, int(bonds.broken_at[s, b]), None, None, f"bond {names} broke ({of}): length in Å",
            float(bonds.reached[s, b]), STRETCH * length, CAUSE + GO_ON * self.stop,
            bond=(i, j), start=length, stopped=self.stop,
        )  # fmt: skip


def find_bonds(positions: Tensor, contacts: Contacts) -> Bonds:
    """Bonds of structures [S, N, 3] Å; atoms on top of each other have none."""
    each = [_bonds(x, contacts) for x in positions]
    most = max(len(length) for _, length in each)
    S, device = len(each), positions.device
    atoms = torch.zeros(S, most, 2, dtype=torch.int64, device=device)
    start = torch.full((S, most), math.inf, dtype=torch.float64, device=device)
    for s, (pairs, length) in enumerate(each):
        atoms[s, : len(length)], start[s, : len(length)] = pairs, length
    return Bonds(atoms, start, torch.zeros(S, most, dtype=torch.int64, device=device), torch.zeros_like(start))


def _bonds(positions: Tensor, contacts: Contacts) -> tuple[Tensor, Tensor]:
    """Atoms [B, 2], the smaller number first, and lengths [B] Å of the bonds of a structure [N, 3]."""
    radii, near, atom = contacts.radii, [], torch.arange(len(positions), device=positions.device)
    for rows in atom.split(ROWS):
        apart = torch.linalg.vector_norm(nearest_image(positions - positions[rows][:, None], contacts), dim=-1)
        relative = apart / (radii + radii[rows][:, None])  # [R, N]
        bonded = (relative < CONTACT) & (apart > CLOSEST)
        relative = torch.where(bonded, relative, math.inf)
        light = contacts.hydrogen[rows]
        bonded[light] &= torch.nn.functional.one_hot(relative[light].argmin(1), len(atom)).bool()
        i, j = torch.nonzero(bonded, as_tuple=True)
        near.append(torch.stack([rows[i], j, 1 - light[i].long()]))
    i, j, heavy = torch.cat(near, 1)
    keep = ~(heavy.bool() & contacts.hydrogen[j])  # the one bond of a hydrogen is in its own row
    pairs = torch.stack([torch.minimum(i, j), torch.maximum(i, j)], 1)[keep].unique(dim=0)
    r = nearest_image(positions[pairs[:, 1]] - positions[pairs[:, 0]], contacts)
    return pairs, torch.linalg.vector_norm(r, dim=-1)
