"""Selection of structures to label next: those on which an ensemble disagrees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ase
import numpy as np

from painn_fast.ensemble import Ensemble
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.graph.charge import charge_and_multiplicity
from painn_fast.runtime.progress import StatusLine

AT_ONCE = 2000
"""Structures between two lines of progress."""
APART = 0.25
"""Å, of all interatomic distances together (the norm of their differences)."""


@dataclass(frozen=True)
class Selection:
    """Chosen structures, the most uncertain first, and the uncertainty of all."""

    chosen: np.ndarray  # [k] int64, indices in the list of structures
    spread: np.ndarray  # [n] eV/Å, largest standard deviation of the force on an atom


def select(
    ensemble: Ensemble,
    structures: Sequence[ase.Atoms],
    number: int,
    *,
    apart: float = APART,
    spread_below: float = float("inf"),
) -> Selection:
    """Choose structures by the largest spread of the force on an atom.

    Missing training data show at one atom first, and disappear in a mean over all.

    Args:
        ensemble: models that were trained alike.
        structures: candidates; many, such as the beads of dynamics.
        number: how many at most.
        apart: Å; none is chosen whose interatomic distances differ by less, as a vector, from those of one chosen
            before (of the same atoms in the same order, in the same cell, of the same charge and spin).
        spread_below: eV/Å; structures above are taken for unphysical, and left out.

    Raises:
        PaiNNFastError: if there are no structures, or none is below `spread_below`.
    """
    spread = np.concatenate(list(_spreads(ensemble, structures))) if structures else np.zeros(0)
    order = [k for k in np.argsort(-spread) if spread[k] < spread_below]
    if not order:
        raise PaiNNFastError(
            "no structure to choose",
            got=f"{len(structures)} structures",
            expected=f"a spread below {spread_below} eV/Å",
        )
    chosen: list[int] = []
    known: dict[tuple[Any, ...], list[np.ndarray]] = {}
    for k in order:
        if len(chosen) == number:
            break
        atoms = structures[k]
        here = atoms.get_all_distances()[np.triu_indices(len(atoms), 1)]
        others = known.setdefault(_kind(atoms), [])
        if others and np.linalg.norm(np.array(others) - here, axis=1).min() < apart:
            continue
        others.append(here)
        chosen.append(int(k))
    return Selection(np.array(chosen, dtype=np.int64), spread)


def _kind(atoms: ase.Atoms) -> tuple[Any, ...]:
    """Properties that structures share if their distances can be compared."""
    cell = np.round(atoms.cell.array, 3) + 0.0 if atoms.pbc.any() else np.zeros(0)
    totals = charge_and_multiplicity(atoms.info, where=atoms.get_chemical_formula())
    return atoms.numbers.tobytes(), cell.tobytes(), atoms.pbc.tobytes(), *totals


def _spreads(ensemble: Ensemble, structures: Sequence[ase.Atoms]) -> Iterator[np.ndarray]:
    """Largest spread of the force on an atom of each structure, eV/Å, chunk by chunk."""
    with StatusLine() as status:
        for start in range(0, len(structures), AT_ONCE):
            part = structures[start : start + AT_ONCE]
            spreads = evaluate(ensemble, part, ("forces_spread",))["forces_spread"]
            yield np.array([values.max() for values in spreads])
            status.update(f"{start + len(part)} of {len(structures)} structures evaluated")


def summary(selection: Selection) -> str:
    """The distribution of the spread over all structures, and over those that were chosen."""
    lines = []
    for name, values in (("all", selection.spread), ("chosen", selection.spread[selection.chosen])):
        quantiles = ", ".join(f"{np.quantile(values, q):.3g}" for q in (0.0, 0.5, 0.9, 0.99, 1.0))
        lines.append(f"{name}: {len(values)} structures, spread {quantiles} eV/Å")
    return "\n".join([*lines, "(least, median, 90 %, 99 %, largest; of the atom with the largest spread of its force)"])
