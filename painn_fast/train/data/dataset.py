"""A set of labelled structures as flat arrays, and batches of it with their neighbour lists."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import ase
import numpy as np
import torch
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.graph import AtomicBatch
from painn_fast.graph.charge import set_charge_and_multiplicity
from painn_fast.graph.neighbors import Edges, joined, molecule_lists, neighbor_list
from painn_fast.nn.defined import NEEDS_CELL, defined
from painn_fast.train.data.frames import listed

SPLITS = ("train", "validation", "test")
PER_ATOM = {"forces"}
"""Labels that each atom has."""
SHAPES: dict[str, tuple[int, ...]] = {"forces": (3,), "stress": (3, 3), "dipole": (3,), "polarizability": (3, 3)}
"""Of the label of one structure, or of one atom; all others are scalars."""


@dataclass(frozen=True)
class Dataset:
    """n structures of A atoms in all with labels in eV, eV/Å, e Å, Å³ and Å²; NaN where a label is missing."""

    numbers: np.ndarray  # [A] int64
    positions: np.ndarray  # [A, 3] float64, Å
    n_atoms: np.ndarray  # [n] int64
    labels: dict[str, np.ndarray]  # float64: [n, ...], forces [A, 3]
    cell: np.ndarray  # [n, 3, 3] float64, Å, rows are the vectors
    pbc: np.ndarray  # [n, 3] bool
    charge: np.ndarray  # [n] float64, e
    spin: np.ndarray  # [n] float64, 2S + 1
    file: np.ndarray  # [n] int64, index into `files`
    frame: np.ndarray  # [n] int64, index in its file, from 0
    files: tuple[str, ...]
    units: dict[str, str] = field(default_factory=dict)  # of the labels, where that is known
    theory: tuple[str, ...] = ()  # levels of theory of the labels, as far as files state them
    notes: tuple[str, ...] = ()  # where labels and units come from, a line for each file

    def __len__(self) -> int:
        return len(self.n_atoms)

    @cached_property
    def first(self) -> np.ndarray:
        """Index of the first atom of each structure, and A [n + 1]."""
        return np.append(0, np.cumsum(self.n_atoms))

    def name(self, row: int) -> str:
        """File and frame of a structure, for messages."""
        return f"{self.files[self.file[row]]}, frame {self.frame[row]}"

    def atoms_of(self, rows: np.ndarray) -> np.ndarray:
        """Indices of the atoms of these structures, in their order."""
        sizes = self.n_atoms[rows]
        return np.repeat(self.first[rows] - np.append(0, np.cumsum(sizes[:-1])), sizes) + np.arange(sizes.sum())

    def entries_of(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Indices of the entries of a label that belong to these structures, in their order."""
        return self.atoms_of(rows) if name in PER_ATOM else rows

    def select(self, rows: Sequence[int] | np.ndarray) -> Dataset:
        """The structures of these rows."""
        index = np.asarray(rows, dtype=np.int64)
        atoms = self.atoms_of(index)
        labels = {name: values[self.entries_of(name, index)] for name, values in self.labels.items()}
        whole = {name: getattr(self, name)[index] for name in ("n_atoms", *OF_STRUCTURES)}
        return dataclasses.replace(
            self, numbers=self.numbers[atoms], positions=self.positions[atoms], labels=labels, **whole
        )

    def atoms(self, row: int) -> ase.Atoms:
        """A structure, with total charge (e) and spin multiplicity in `info` unless it is a neutral singlet."""
        own = slice(self.first[row], self.first[row + 1])
        atoms = ase.Atoms(self.numbers[own], self.positions[own])
        if self.cell[row].any():
            atoms.cell, atoms.pbc = self.cell[row], self.pbc[row]
        set_charge_and_multiplicity(atoms.info, float(self.charge[row]), float(self.spin[row]))
        return atoms

    def structure_labelled(self, name: str) -> np.ndarray:
        """Which structures [n] have the whole of a label."""
        if name not in self.labels:
            return np.zeros(len(self), dtype=bool)
        known = np.isfinite(by_row(self.labels[name])).all(axis=1)
        return np.logical_and.reduceat(known, self.first[:-1]) if name in PER_ATOM and len(self) else known

    def labelled(self, name: str) -> int:
        """How many structures have a label."""
        return int(self.structure_labelled(name).sum())

    def with_labels(self) -> Dataset:
        """The structures that have a label, at least in part."""
        has_label = np.zeros(len(self), dtype=bool)
        for name, values in self.labels.items():
            known = ~np.isnan(by_row(values)).all(axis=1)
            has_label |= np.logical_or.reduceat(known, self.first[:-1]) if name in PER_ATOM and len(self) else known
        return self if has_label.all() else self.select(np.flatnonzero(has_label))

    def without_undefined(self, names: Collection[str]) -> Dataset:
        """The same set with NaN for labels of properties that a structure does not have; notes count them.

        Args:
            names: labels that are checked, such as the dipole, which a crystal does not have.
        """
        labels, notes = dict(self.labels), list(self.notes)
        for name in self.labels:
            lost = ~defined(name, self.pbc) & self.structure_labelled(name) if name in names else np.zeros(0, bool)
            if lost.any():
                labels[name] = np.where(lost.reshape(-1, *[1] * len(SHAPES.get(name, ()))), np.nan, labels[name])
                why = "not periodic in three directions" if name in NEEDS_CELL else "periodic"
                fix = "" if name in NEEDS_CELL else "; molecules in boxes are read with periodic = false"
                notes.append(f"{name} of {lost.sum()} structures is not used, as they are {why}{fix}")
        return dataclasses.replace(self, labels=labels, notes=tuple(notes))

    def fingerprint(self) -> str:
        """SHA-256 of geometries and labels."""
        digest = hashlib.sha256()
        for array in (self.numbers, self.positions, self.n_atoms, self.cell, self.charge, self.spin):
            digest.update(np.ascontiguousarray(array).tobytes())
        if self.pbc.any():  # molecules keep the fingerprint that they had without it
            digest.update(np.ascontiguousarray(self.pbc).tobytes())
        for name in sorted(self.labels):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.labels[name]).tobytes())
        return digest.hexdigest()


def by_row(values: np.ndarray) -> np.ndarray:
    """An array [n, ...] as [n, k]."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


OF_STRUCTURES = ("cell", "pbc", "charge", "spin", "file", "frame")


def join(parts: Sequence[Dataset]) -> Dataset:
    """One data set of several; a label that only some of them have is missing in the others."""
    names = dict.fromkeys(name for part in parts for name in part.labels)
    files = tuple(dict.fromkeys(name for part in parts for name in part.files))
    units: dict[str, str] = {}
    for part in parts:
        for name, unit in part.units.items():
            if units.setdefault(name, unit) != unit:
                raise PaiNNFastError(
                    f"two units of {name}", where=", ".join(files), got=unit, expected=units[name], fix="declare one"
                )
    theory = tuple(dict.fromkeys(level for part in parts for level in part.theory))
    notes = dict.fromkeys(line for part in parts for line in part.notes)
    if len(theory) > 1:
        notes[f"labels of {len(theory)} levels of theory: {listed(theory)}"] = None
    numbers_of = [np.array([files.index(name) for name in part.files], dtype=np.int64) for part in parts]
    arrays = ("numbers", "positions", "n_atoms", "cell", "pbc", "charge", "spin", "frame")

    def label(part: Dataset, name: str) -> np.ndarray:
        n = len(part.numbers) if name in PER_ATOM else len(part)
        return part.labels.get(name, np.full((n, *SHAPES.get(name, ())), np.nan))

    return Dataset(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays},
        labels={name: np.concatenate([label(part, name) for part in parts]) for name in names},
        file=np.concatenate([number[part.file] for part, number in zip(parts, numbers_of, strict=True)]),
        files=files,
        units=units,
        theory=theory,
        notes=tuple(notes),
    )


class Batches:
    """Batches of a data set with pairs within a cut-off.

    Lists of molecules in vacuum are made when they are needed, which costs less than to look them up; those of
    periodic structures once.

    Args:
        data: the set.
        cutoff: Å; 0 for no pairs.
        names: labels that a batch brings along.
        device: of the tensors; the set itself stays in main memory.
    """

    def __init__(self, data: Dataset, cutoff: float, names: Sequence[str], device: torch.device | str = "cpu") -> None:
        self.data, self.cutoff, self.device = data, cutoff, device
        self.names = [name for name in names if name in data.labels]
        self._periodic: dict[int, Edges] = {}

    def __call__(self, rows: Sequence[int] | np.ndarray) -> tuple[AtomicBatch, dict[str, Tensor]]:
        """The structures of these rows, and their labels."""
        index, data = np.asarray(rows, dtype=np.int64), self.data
        atoms = data.atoms_of(index)
        positions, n_atoms = data.positions[atoms], data.n_atoms[index]
        edges = self._edges(index, positions, n_atoms)
        arrays = {"numbers": data.numbers[atoms], "positions": positions, "cell": data.cell[index]}
        arrays |= {"pbc": data.pbc[index], "total_charge": data.charge[index], "spin_multiplicity": data.spin[index]}
        given = {name: torch.from_numpy(array) for name, array in arrays.items()}
        batch = AtomicBatch.of(torch.from_numpy(n_atoms), edges, **given)
        labels = {
            name: torch.from_numpy(data.labels[name][atoms if name in PER_ATOM else index]) for name in self.names
        }
        return batch.to(self.device), {name: value.to(self.device) for name, value in labels.items()}

    def _edges(self, rows: np.ndarray, positions: np.ndarray, n_atoms: np.ndarray) -> Edges:
        if not self.data.pbc[rows].any() or self.cutoff == 0.0:  # 0: labels alone are wanted
            return molecule_lists(positions, n_atoms, self.cutoff)
        return joined([self._edges_of(int(row)) for row in rows], n_atoms.tolist())

    def _edges_of(self, row: int) -> Edges:
        if row not in self._periodic:
            data = self.data
            atoms = slice(data.first[row], data.first[row + 1])
            self._periodic[row] = neighbor_list(
                data.positions[atoms], data.cell[row], data.pbc[row], self.cutoff, lambda: data.name(row)
            )
        return self._periodic[row]
