"""Errors and doubtful values in a set of structures; each finding names file and frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.train.data.dataset import PER_ATOM, Dataset, by_row, join
from painn_fast.train.data.duplicates import duplicates, roots
from painn_fast.train.data.force_energy_check import CERTAIN, force_energy_slope, likely_cause
from painn_fast.train.data.statistics import nearest, pairs_within, residuals

CLOSEST = 0.3
"""Å; no two atoms are nearer."""
SLOPE = 1.3
"""Factor between energies and the work of forces that is still right."""
LEAKED = 0.03
"""Share of validation or test structures that may have been seen in training: MD17's own sets have such."""
OUTLIER = 10.0
"""Robust standard deviations."""
LARGE_FORCE, LARGE_ENERGY = 10.0, 10.0
"""eV/Å, eV per atom."""
EMPTY = 1000.0
"""Å³ of a cell per atom."""
SHOWN = 3
"""Frames that are named."""


class Finding(NamedTuple):
    """An error, a doubt that the settings may turn into a warning, or a note."""

    level: Literal["error", "doubt", "note"]
    problem: PaiNNFastError


def check(data: Mapping[str, Dataset], max_z: int = 100, cutoff: float | None = None) -> list[Finding]:
    """All findings, errors first.

    Args:
        data: structures of each split.
        max_z: atomic numbers that a model knows are below it.
        cutoff: of the model, Å, if that is known.
    """
    parts = {name: part for name, part in data.items() if len(part)}
    if not parts:
        return []
    whole = join(list(parts.values()))
    split = np.repeat(list(parts), [len(part) for part in parts.values()])
    findings = [*_elements(whole, max_z), *_overlaps(whole), *_gaps(whole)]
    if not any(finding.level == "error" for finding in findings):
        for examine in (_forces_and_energies, _sizes, _bonds, _boxes, _outliers):
            findings += examine(whole)
        findings += _duplicates(whole, split)
        if cutoff is not None:
            findings += _lonely(whole, cutoff)
    return sorted(findings, key=lambda finding: ("error", "doubt", "note").index(finding.level))


def judge(findings: Sequence[Finding], checks: Literal["error", "warn"] = "error") -> list[str]:
    """Doubts and notes, a line each.

    Raises:
        PaiNNFastError: the first error, or the first doubt unless `checks` is "warn".
    """
    for level in ("error", "doubt")[: 2 if checks == "error" else 1]:
        bad = [finding.problem for finding in findings if finding.level == level]
        if bad:
            more = f"{bad[0].what} (and {len(bad) - 1} more)" if len(bad) > 1 else bad[0].what
            fix = bad[0].fix or ('checks = "warn" in the settings trains nevertheless' if level == "doubt" else None)
            raise bad[0].replaced(what=more, fix=fix)
    return [f"{'warning' if level == 'doubt' else 'note'}: {problem}" for level, problem in findings]


def _named(data: Dataset, rows: np.ndarray) -> str:
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return "; ".join(data.name(int(row)) for row in rows[:SHOWN]) + more


def _row_of(data: Dataset, atom: int) -> tuple[int, int]:
    """Structure of an atom, and its number within it."""
    row = int(np.searchsorted(data.first, atom, side="right")) - 1
    return row, int(atom - data.first[row])


def _elements(data: Dataset, max_z: int) -> Iterator[Finding]:
    for atom in np.flatnonzero((data.numbers < 1) | (data.numbers >= max_z))[:1]:
        row, k = _row_of(data, atom)
        where = f"{data.name(row)}, atom {k}"
        got, expected = f"Z = {data.numbers[atom]}", f"1 to {max_z - 1}"
        yield Finding("error", PaiNNFastError("no element", where=where, got=got, expected=expected))


def _overlaps(data: Dataset) -> Iterator[Finding]:
    for receiver, sender, distance in pairs_within(data, CLOSEST):
        if len(receiver):
            (row, i), (_, j) = _row_of(data, int(receiver[0])), _row_of(data, int(sender[0]))
            where, got = f"{data.name(row)}, atoms {i} and {j}", f"{distance[0]:.3f} Å"
            yield Finding("error", PaiNNFastError("atoms on top of each other", where=where, got=got))
            return


def _gaps(data: Dataset) -> Iterator[Finding]:
    """Labels that are partly NaN, and structures that lack a label that others have."""
    for name, values in data.labels.items():
        known = np.isfinite(by_row(values))
        some, whole = known.any(axis=1), known.all(axis=1)
        if name in PER_ATOM:
            some, whole = (f.reduceat(x, data.first[:-1]) for f, x in ((np.logical_or, some), (np.logical_and, whole)))
        torn, missing = np.flatnonzero(some & ~whole), np.flatnonzero(~some)
        if len(torn):
            what, expected = f"{name} is NaN in part", "all of it, or NaN for a missing label"
            yield Finding("error", PaiNNFastError(what, where=_named(data, torn), expected=expected))
        if 0 < len(missing) < len(data):
            what = f"{name} is missing in {len(missing)} of {len(data)} structures"
            yield Finding("note", PaiNNFastError(what, where=_named(data, missing)))


def _by_file(data: Dataset) -> Iterator[tuple[str, Dataset]]:
    for k, file in enumerate(data.files):
        yield file, data.select(np.flatnonzero(data.file == k))


def _forces_and_energies(data: Dataset) -> Iterator[Finding]:
    """Forces against energies, file by file."""
    for file, part in _by_file(data):
        fit = force_energy_slope(part) if part.labelled("forces") and part.labelled("energy") else None
        if fit is None or abs(fit.correlation) < CERTAIN or 1 / SLOPE < fit.value < SLOPE:
            continue
        got = f"energy differences are {fit.value:.3g} times the work of the forces, in {fit.pairs} pairs of structures"
        what, fix = likely_cause(fit.value), "correct the units of this file in the settings"
        yield Finding("doubt", PaiNNFastError(what, where=file, got=got, expected="1", fix=fix))


def _sizes(data: Dataset) -> Iterator[Finding]:
    """Large forces and energies: the sign that is left where both are wrong together."""
    for file, part in _by_file(data):
        forces = part.labels.get("forces", np.full((1, 3), np.nan))
        rms = np.sqrt(np.nanmean(np.square(forces))) if np.isfinite(forces).any() else 0.0
        if rms > LARGE_FORCE:
            what = "forces are unusually large: is their unit right?"
            yield Finding("note", PaiNNFastError(what, where=file, got=f"rms {rms:.1f} eV/Å"))
        left = residuals(part)
        spread = left.per_atom.std() if len(left.rows) else 0.0
        if spread > LARGE_ENERGY:
            what = "energies spread unusually far: is their unit right?"
            yield Finding("note", PaiNNFastError(what, where=file, got=f"{spread:.1f} eV per atom"))


def _bonds(data: Dataset) -> Iterator[Finding]:
    """Lengths in a wrong unit: all bonds would be too long or too short."""
    noble = (2, 10, 18, 36, 54, 86)
    for file, part in _by_file(data):
        near = nearest(part)
        relative = near.relative[~np.isin(near.numbers, noble)]
        middle = np.median(relative) if len(relative) else 1.0
        got = f"nearest neighbours are at {middle:.2f} times the length of a bond, in the median"
        if middle < 0.7:
            what = "atoms are too near, as if Å were taken for bohr"
            yield Finding("doubt", PaiNNFastError(what, where=file, got=got, fix="correct units.length of this file"))
        elif middle > 1.6:
            what = "atoms are far apart, as if bohr were taken for Å"
            yield Finding("note", PaiNNFastError(what, where=file, got=got))


def _lonely(data: Dataset, cutoff: float) -> Iterator[Finding]:
    """A cut-off in nm, or otherwise too short: most atoms see none of the others."""
    near = nearest(data).distance
    if len(near) and np.median(near) >= cutoff:
        what = "most atoms have no neighbour within the cut-off"
        got, expected = f"cut-off {cutoff:g} Å, nearest neighbours {np.median(near):.2f} Å", "5 Å is usual"
        problem = PaiNNFastError(what, got=got, expected=expected, fix="raise representation.cutoff in the settings")
        yield Finding("doubt", problem)


def _boxes(data: Dataset) -> Iterator[Finding]:
    """Molecules in large boxes."""
    volume = np.abs(np.linalg.det(data.cell)) / data.n_atoms
    empty = np.flatnonzero(data.pbc.all(axis=1) & (volume > EMPTY))
    if len(empty):
        problem = PaiNNFastError(
            f"{len(empty)} structures in nearly empty periodic boxes",
            where=_named(data, empty),
            got=f"{volume[empty[0]]:.0f} Å³ per atom",
            fix="molecules are trained faster without: periodic = false for this file in the settings",
        )
        yield Finding("note", problem)


def _outliers(data: Dataset) -> Iterator[Finding]:
    left = residuals(data)
    if not len(left.rows):
        return
    off = np.abs(left.per_atom - np.median(left.per_atom))
    sigma = 1.4826 * np.median(off)
    far = np.flatnonzero(off > OUTLIER * sigma) if sigma > 1e-6 else np.zeros(0, dtype=int)
    if len(far):
        far = far[np.argsort(-off[far])]
        what = f"{len(far)} energies far from the others"
        got = f"{off[far[0]]:.3g} eV per atom away, {off[far[0]] / sigma:.0f} robust standard deviations"
        yield Finding("note", PaiNNFastError(what, where=_named(data, left.rows[far]), got=got))


def _duplicates(data: Dataset, split: np.ndarray) -> Iterator[Finding]:
    """Equal structures within a split, and of training in others."""
    pairs = duplicates(data)
    if not len(pairs):
        return
    root = roots(pairs, len(data))
    seen = np.zeros(len(data), dtype=bool)
    seen[root[split == "train"]] = True
    for name in dict.fromkeys(split.tolist()):
        rows = np.flatnonzero(split == name)
        leaked = rows[seen[root[rows]]] if name != "train" else rows[:0]
        if len(leaked):
            partner = np.flatnonzero((root == root[leaked[0]]) & (split == "train"))[0]
            what = f"{len(leaked)} of {len(rows)} {name} structures are in the training set too"
            where = f"{data.name(int(leaked[0]))} = {data.name(int(partner))}"
            level: Literal["doubt", "note"] = "doubt" if len(leaked) > LEAKED * len(rows) else "note"
            expected = f"{100 * LEAKED:.0f} % at most"
            yield Finding(level, PaiNNFastError(what, where=where, expected=expected))
        copies = len(rows) - len(np.unique(root[rows]))
        if copies:
            both = pairs[(split[pairs] == name).all(axis=1)]
            pair = f"{data.name(int(both[0, 0]))} = {data.name(int(both[0, 1]))}" if len(both) else None
            yield Finding("note", PaiNNFastError(f"{copies} {name} structures are repeated", where=pair))
