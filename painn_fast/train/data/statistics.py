"""A set of labelled structures in a few numbers."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from painn_fast.graph.neighbors import Edges, molecule_lists, neighbor_list
from painn_fast.train.data.dataset import Dataset, join

SAMPLE = 5000
"""Structures that distances to neighbours are taken from."""
REACH = (2.2, 6.0)
"""Å, within which neighbours are searched, and if there are too few."""
SMALL = 300
"""Atoms of a cell in which each is compared with each."""


class Nearest(NamedTuple):
    """Nearest neighbours of some atoms."""

    distance: np.ndarray  # Å
    relative: np.ndarray  # over the sum of the covalent radii
    numbers: np.ndarray


class Residuals(NamedTuple):
    """Energies less contributions of the elements that fit them best."""

    rows: np.ndarray  # [m] structures with an energy
    per_atom: np.ndarray  # [m] eV
    references: dict[str, float]  # eV; empty if the compositions do not determine them


def statistics(data: Mapping[str, Dataset]) -> dict[str, Any]:
    """Sizes, elements, nearest neighbours, energies, forces and labels of all splits together."""
    whole = join(list(data.values()))
    count = np.bincount(whole.numbers[whole.numbers >= 0], minlength=1)
    found = {
        "structures": {split: len(part) for split, part in data.items() if len(part)},
        "atoms": _quantiles(whole.n_atoms, {"smallest": 0, "median": 0.5, "largest": 1}),
        "elements": {_symbol(z): int(count[z]) for z in np.flatnonzero(count).tolist()},
        "periodic": int(whole.pbc.any(axis=1).sum()),
        "nearest_neighbour_Ang": _quantiles(
            nearest(whole).distance, {"smallest": 0, "1 %": 0.01, "median": 0.5, "99 %": 0.99}
        ),
        "labels": {name: whole.labelled(name) for name in whole.labels},
        "units": whole.units,
    }
    left = residuals(whole)
    if len(left.rows):
        spread = left.per_atom - left.per_atom.mean()
        found["energy_eV"] = {
            "references": left.references,
            "rms_per_atom": float(np.sqrt(np.square(spread).mean())),
            "lowest_per_atom": float(spread.min()),
            "highest_per_atom": float(spread.max()),
        }
    if whole.labelled("forces"):
        size = np.linalg.norm(whole.labels["forces"], axis=1)
        size = size[np.isfinite(size)]
        found["forces_eV_per_Ang"] = {"rms": float(np.sqrt(np.square(size).mean() / 3))} | _quantiles(
            size, {"median": 0.5, "99 %": 0.99, "largest": 1}
        )
    return found


def format_statistics(values: Mapping[str, Any]) -> list[str]:
    """The statistics in a few lines."""
    atoms, near = values["atoms"], values["nearest_neighbour_Ang"]
    sizes = {f"{atoms[name]:.0f}": None for name in ("smallest", "largest")} if atoms else {"no": None}
    elements = ", ".join(f"{symbol} {n}" for symbol, n in values["elements"].items())
    periodic = f", {values['periodic']} of them periodic" if values["periodic"] else ""
    lines = [f"structures of {' to '.join(sizes)} atoms{periodic}: {elements}"]
    if near:
        lines.append(
            f"nearest neighbours: {near['smallest']:.2f} Å at least, {near['median']:.2f} in the median, 99 % within "
            f"{near['99 %']:.2f}"
        )
    if "energy_eV" in values:
        energy = values["energy_eV"]
        references = ", ".join(f"{symbol} {value:.3f} eV" for symbol, value in energy["references"].items())
        without = f"without that of the elements ({references})" if references else "about the mean"
        lines.append(
            f"energy per atom {without}: rms {1000 * energy['rms_per_atom']:.1f} meV, from "
            f"{1000 * energy['lowest_per_atom']:+.1f} to {1000 * energy['highest_per_atom']:+.1f}"
        )
    if "forces_eV_per_Ang" in values:
        forces = values["forces_eV_per_Ang"]
        lines.append(
            f"forces: rms {forces['rms']:.3f} eV/Å per component; size {forces['median']:.2f} in the median, 99 % "
            f"within {forces['99 %']:.2f}, largest {forces['largest']:.2f}"
        )
    return lines


def describe(data: Mapping[str, Dataset]) -> list[str]:
    """How many structures and labels each split has, and which labels and units each file."""
    sizes = []
    for split, part in data.items():
        labels = ", ".join(f"{part.labelled(name)} {name}" for name in part.labels if part.labelled(name))
        sizes.append(f"{split}: {len(part)} structures ({labels or 'no labels'})")
    notes = dict.fromkeys(line for part in data.values() for line in part.notes)
    return ["; ".join(sizes), *notes]


def residuals(data: Dataset) -> Residuals:
    """Energies per atom after a least-squares fit of one contribution an element."""
    rows = np.flatnonzero(data.structure_labelled("energy"))
    if not len(rows):
        return Residuals(rows, np.zeros(0), {})
    elements, column = np.unique(data.numbers, return_inverse=True)
    molecule = np.repeat(np.arange(len(data)), data.n_atoms)
    table = np.bincount(molecule * len(elements) + column, minlength=len(data) * len(elements))
    table = table.reshape(len(data), len(elements))[rows].astype(np.float64)
    energy = data.labels["energy"][rows]
    share, _, rank, _ = np.linalg.lstsq(table, energy, rcond=1e-9)
    left = (energy - table @ share) / data.n_atoms[rows]
    known = zip(elements, share, strict=True) if rank == len(elements) else ()
    return Residuals(rows, left, {_symbol(z): float(e) for z, e in known})


def nearest(data: Dataset) -> Nearest:
    """Nearest neighbours of the atoms of at most `SAMPLE` structures, spread over the set; of those that have one."""
    data = data.select(np.unique(np.linspace(0, len(data) - 1, min(SAMPLE, len(data))).astype(int)))
    for cutoff in REACH:
        receiver, sender, distance = (np.concatenate(part) for part in zip(*pairs_within(data, cutoff), strict=True))
        if len(np.unique(receiver)) > 0.5 * len(data.numbers):
            break
    order = np.lexsort((distance, receiver))
    _, first = np.unique(receiver[order], return_index=True)
    best = order[first]
    here, there = data.numbers[receiver[best]], data.numbers[sender[best]]
    radii = np.append(covalent_radii, np.full(128, 1.5))
    return Nearest(distance[best], distance[best] / (radii[here] + radii[there]), here)


Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Receivers, senders and distances; atoms are those of the whole set."""


def pairs_within(data: Dataset, cutoff: float) -> Iterator[Pairs]:
    """All pairs within `cutoff`, part by part."""
    yield np.zeros(0, dtype=int), np.zeros(0, dtype=int), np.zeros(0)
    periodic = data.pbc.any(axis=1)
    for part in np.array_split(np.flatnonzero(~periodic), max(len(data) // 5000, 1)):
        atoms = data.atoms_of(part)
        yield _distances(data, atoms, molecule_lists(data.positions[atoms], data.n_atoms[part], cutoff))
    roomy = _height(data.cell, data.pbc) > 2 * cutoff
    boxed = periodic & roomy & (data.n_atoms <= SMALL)
    for a in np.unique(data.n_atoms[boxed]):
        rows = np.flatnonzero(boxed & (data.n_atoms == a))
        for part in np.array_split(rows, len(rows) * int(a) ** 2 // 2_000_000 + 1):
            yield _nearest_images(data, part, int(a), cutoff)
    for row in np.flatnonzero(periodic & ~boxed):
        atoms = data.atoms_of(np.array([row]))
        where = functools.partial(data.name, int(row))
        edges = neighbor_list(data.positions[atoms], data.cell[row], data.pbc[row], cutoff, where)
        yield _distances(data, atoms, edges)


def _distances(data: Dataset, atoms: np.ndarray, edges: Edges) -> Pairs:
    receiver, sender = atoms[edges.receiver.numpy()], atoms[edges.sender.numpy()]
    apart = data.positions[sender] - data.positions[receiver] + edges.shift.numpy()
    return receiver, sender, np.linalg.norm(apart, axis=1)


def _height(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Smallest distance [n] of opposite faces of cells, in their periodic directions."""
    inverse = np.linalg.pinv(cell)
    size = np.linalg.norm(inverse, axis=1)
    return (1 / np.where(pbc & (size > 0), size, 1e-9)).min(axis=1)


def _nearest_images(data: Dataset, rows: np.ndarray, a: int, cutoff: float) -> Pairs:
    """By comparing each atom with each: a cell list of small cells is slow where a box is nearly empty."""
    atoms = data.atoms_of(rows).reshape(-1, a)
    i, j = np.nonzero(~np.eye(a, dtype=bool))
    apart = data.positions[atoms[:, j]] - data.positions[atoms[:, i]]
    cell = data.cell[rows]
    images = np.round(apart @ np.linalg.pinv(cell)) * data.pbc[rows][:, None]
    distance = np.linalg.norm(apart - images @ cell, axis=2)
    row, k = np.nonzero(distance < cutoff)
    return atoms[row, i[k]], atoms[row, j[k]], distance[row, k]


def _quantiles(values: np.ndarray, at: Mapping[str, float]) -> dict[str, float]:
    return {name: float(np.quantile(values, q)) for name, q in at.items()} if len(values) else {}


def _symbol(z: int) -> str:
    return chemical_symbols[z] if 0 < z < len(chemical_symbols) else f"Z={z}"
