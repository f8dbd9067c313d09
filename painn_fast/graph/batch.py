"""A batch of molecules: atoms one after another, edges sorted by receiver (CSR)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import ase
import numpy as np
import torch
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.neighbors import all_pairs, neighbor_list

ALL_PAIRS_UP_TO = 32
"""Largest molecule whose list is every pair by default: it need not be rebuilt when atoms move."""
CLOSEST = 0.1
"""Å; atoms nearer than this are taken for a mistake in the input."""


@dataclass(frozen=True)
class AtomicBatch:
    """M molecules of N atoms in all with E directed edges; an edge points from `sender` j to `receiver` i.

    Edges are complete, symmetric and sorted by receiver: those of atom i are `row_ptr[i]:row_ptr[i + 1]`.
    The vector of an edge is `positions[sender] - positions[receiver] + shift`.
    """

    numbers: Tensor  # [N] int64
    positions: Tensor  # [N, 3] float64, Å
    molecule: Tensor  # [N] int64, ascending
    n_atoms: Tensor  # [M] int64
    receiver: Tensor  # [E] int64, ascending
    sender: Tensor  # [E] int64
    shift: Tensor  # [E, 3] float64, Å
    row_ptr: Tensor  # [N + 1] int64
    cell: Tensor  # [M, 3, 3] float64, Å, rows are the vectors
    pbc: Tensor  # [M, 3] bool
    total_charge: Tensor  # [M] float64, e
    spin_multiplicity: Tensor  # [M] float64

    @property
    def n_total(self) -> int:
        """N, atoms in the whole batch."""
        return self.numbers.shape[0]

    @property
    def n_molecules(self) -> int:
        """M."""
        return self.n_atoms.shape[0]

    def to(self, device: torch.device | str) -> AtomicBatch:
        """The same batch on another device."""
        return AtomicBatch(**{f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)})

    def with_positions(self, positions: Tensor) -> AtomicBatch:
        """The same graph with other positions [N, 3] Å; the caller vouches for the neighbour list."""
        moved = dataclasses.replace(self, positions=positions)
        if "mirror" in self.__dict__:
            moved.__dict__["mirror"] = self.mirror
        return moved

    @cached_property
    def mirror(self) -> Tensor:
        """Index [E] of the edge that points the other way; it exists because the list is symmetric."""
        i, j, shift = self.receiver.cpu().numpy(), self.sender.cpu().numpy(), self.shift.cpu().numpy()
        order = np.lexsort((shift[:, 2], shift[:, 1], shift[:, 0], j, i))
        opposite = np.lexsort((-shift[:, 2], -shift[:, 1], -shift[:, 0], i, j))
        mirror = np.empty_like(order)
        mirror[order] = opposite
        return torch.from_numpy(mirror).to(self.receiver.device)

    def edge_vectors(self) -> Tensor:
        """r_ij = R_j - R_i + shift [E, 3] Å."""
        return self.positions[self.sender] - self.positions[self.receiver] + self.shift

    def sum_over_atoms(self, values: Tensor) -> Tensor:
        """Sum of atomic values [N, ...] over each molecule [M, ...], in float64."""
        total = torch.zeros(self.n_molecules, *values.shape[1:], dtype=torch.float64, device=values.device)
        return total.index_add(0, self.molecule, values.double())


def batch_arrays(
    numbers: np.ndarray | Tensor, positions: np.ndarray | Tensor, *, total_charge: float = 0.0, spin: float = 1.0
) -> AtomicBatch:
    """Many copies of one molecule in vacuum, every pair an edge.

    Args:
        numbers: atomic numbers [n].
        positions: [M, n, 3] Å.
        total_charge: e, of each copy.
        spin: spin multiplicity 2S + 1 of each copy.
    """
    number = torch.as_tensor(numbers).long()
    place = torch.as_tensor(positions, dtype=torch.float64)
    copies, n = place.shape[:2]
    receiver, sender = all_pairs(n)
    offset = torch.arange(copies)[:, None] * n
    edges = len(receiver)
    return AtomicBatch(
        numbers=number.repeat(copies),
        positions=place.reshape(-1, 3),
        molecule=torch.arange(copies).repeat_interleave(n),
        n_atoms=torch.full((copies,), n),
        receiver=(receiver + offset).reshape(-1),
        sender=(sender + offset).reshape(-1),
        shift=torch.zeros(copies * edges, 3, dtype=torch.float64),
        row_ptr=torch.arange(copies * n + 1) * (n - 1),
        cell=torch.zeros(copies, 3, 3, dtype=torch.float64),
        pbc=torch.zeros(copies, 3, dtype=torch.bool),
        total_charge=torch.full((copies,), float(total_charge), dtype=torch.float64),
        spin_multiplicity=torch.full((copies,), float(spin), dtype=torch.float64),
    )


def batch_atoms(molecules: Sequence[ase.Atoms], cutoff: float, *, neighbors: str = "auto") -> AtomicBatch:
    """Batch `ase.Atoms` (or subclasses) with their neighbour lists.

    Args:
        molecules: structures; `info["charge"]` (e) and `info["spin"]` (2S + 1) are read where present.
        cutoff: Å.
        neighbors: "all_pairs" for molecules in vacuum, "list" for pairs within the cut-off, "auto" to choose:
            every pair up to 32 atoms, a list for larger or periodic structures.

    Raises:
        PaiNNFastError: for an empty molecule, positions that are not finite, atoms on top of each other, a periodic
            direction without a cell vector.
    """
    if not molecules:
        raise PaiNNFastError("nothing to evaluate", got="an empty list", expected="at least one ase.Atoms")
    return concatenate([_one(atoms, index, cutoff, neighbors) for index, atoms in enumerate(molecules)])


def concatenate(batches: Sequence[AtomicBatch]) -> AtomicBatch:
    """One batch of all molecules of `batches`, in order."""
    atoms = [batch.n_total for batch in batches]
    first_atom = np.cumsum([0, *atoms[:-1]]).tolist()
    first_molecule = np.cumsum([0, *(batch.n_molecules for batch in batches[:-1])]).tolist()
    first_edge = np.cumsum([0, *(batch.receiver.shape[0] for batch in batches)]).tolist()

    def joined(name: str, offsets: Sequence[int] | None = None) -> Tensor:
        tensors = [getattr(batch, name) for batch in batches]
        return torch.cat(tensors if offsets is None else [t + o for t, o in zip(tensors, offsets, strict=True)])

    end = batches[0].row_ptr.new_tensor(first_edge[-1:])
    rows = [batch.row_ptr[:-1] + offset for batch, offset in zip(batches, first_edge[:-1], strict=True)]
    whole = AtomicBatch(
        numbers=joined("numbers"),
        positions=joined("positions"),
        molecule=joined("molecule", first_molecule),
        n_atoms=joined("n_atoms"),
        receiver=joined("receiver", first_atom),
        sender=joined("sender", first_atom),
        shift=joined("shift"),
        row_ptr=torch.cat([*rows, end]),
        cell=joined("cell"),
        pbc=joined("pbc"),
        total_charge=joined("total_charge"),
        spin_multiplicity=joined("spin_multiplicity"),
    )
    if all("mirror" in batch.__dict__ for batch in batches):
        whole.__dict__["mirror"] = joined("mirror", first_edge[:-1])
    return whole


def _one(atoms: ase.Atoms, index: int, cutoff: float, neighbors: str) -> AtomicBatch:
    """A batch of one structure, checked."""
    where = f"structure {index} ({atoms.get_chemical_formula() if len(atoms) else 'empty'})"
    _check(atoms, where)
    periodic = bool(atoms.pbc.any())
    if neighbors == "auto":
        neighbors = "list" if periodic or len(atoms) > ALL_PAIRS_UP_TO else "all_pairs"
    if neighbors == "all_pairs" and not periodic:
        receiver, sender = all_pairs(len(atoms))
        shift = torch.zeros(len(receiver), 3, dtype=torch.float64)
    elif neighbors in ("list", "all_pairs"):
        receiver, sender, shift = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    else:
        raise PaiNNFastError("unknown kind of neighbour list", got=repr(neighbors), expected="auto | all_pairs | list")
    positions = torch.from_numpy(np.array(atoms.positions, dtype=np.float64))
    _check_overlap(positions, receiver, sender, shift, where)
    n = len(atoms)
    degree = torch.bincount(receiver, minlength=n)
    return AtomicBatch(
        numbers=torch.from_numpy(np.array(atoms.numbers, dtype=np.int64)),
        positions=positions,
        molecule=torch.zeros(n, dtype=torch.int64),
        n_atoms=torch.tensor([n]),
        receiver=receiver,
        sender=sender,
        shift=shift,
        row_ptr=torch.cat([degree.new_zeros(1), torch.cumsum(degree, 0)]),
        cell=torch.from_numpy(np.array(atoms.cell.array, dtype=np.float64))[None],
        pbc=torch.from_numpy(np.array(atoms.pbc, dtype=bool))[None],
        total_charge=torch.tensor([float(atoms.info.get("charge", 0.0))], dtype=torch.float64),
        spin_multiplicity=torch.tensor([float(atoms.info.get("spin", 1.0))], dtype=torch.float64),
    )


def _check(atoms: ase.Atoms, where: str) -> None:
    if len(atoms) == 0:
        raise PaiNNFastError("a molecule without atoms", where=where, expected="at least one atom")
    bad = ~np.isfinite(atoms.positions).all(axis=1)
    if bad.any():
        atom = int(np.flatnonzero(bad)[0])
        raise PaiNNFastError(
            "positions are not finite",
            where=f"{where}, atom {atom}",
            got=atoms.positions[atom],
            expected="numbers in Å",
        )
    missing = atoms.pbc & ~(np.linalg.norm(atoms.cell.array, axis=1) > 0)
    if missing.any():
        raise PaiNNFastError(
            "periodic without a cell vector",
            where=where,
            got=f"pbc={atoms.pbc.tolist()}, cell={atoms.cell.lengths().tolist()}",
            fix="set atoms.cell, or atoms.pbc = False for a molecule in vacuum",
        )


def _check_overlap(positions: Tensor, receiver: Tensor, sender: Tensor, shift: Tensor, where: str) -> None:
    distance = (positions[sender] - positions[receiver] + shift).norm(dim=1)
    if len(distance) and float(distance.min()) < CLOSEST:
        edge = int(distance.argmin())
        raise PaiNNFastError(
            "atoms on top of each other",
            where=f"{where}, atoms {int(receiver[edge])} and {int(sender[edge])}",
            got=f"a distance of {float(distance[edge]):.3g} Å",
            expected=f"at least {CLOSEST} Å",
            fix="check the structure and its length unit (Å)",
        )
