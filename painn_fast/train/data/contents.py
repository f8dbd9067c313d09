"""Which labels a file holds that a model can learn, under which names and in which units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.nn.config import TAKEN
from painn_fast.train.data import totals
from painn_fast.train.data.dataset import PER_ATOM, SHAPES, by_row
from painn_fast.train.data.frames import Frames, listed
from painn_fast.train.data.labels import key_of, size_of_unit, unit_of
from painn_fast.train.data.names import unused_line
from painn_fast.train.settings import DataFile

USUAL = ("energy", "forces", "stress", "dipole", "dipole_magnitude", "polarizability", "spatial_extent")
PREFIX = re.compile(r"(ref|dft|qm|scf|total|target|label|true)_?(energy|forces?|stress|dipole|polarizability)", re.I)
"""Names of the usual labels in files of other packages, whose unit no convention has."""
BOOKKEEPING = re.compile(r"(.*_)?(time|step|frame|index|idx|id|number|seed|weight|temperature|pressure|volume|density)")
"""Numbers of a structure that are no property that a model should learn."""
UNKNOWN, UNSTATED_UNIT = "?", "unstated"
"""Units of a usual label, which has to be filled in, and of any other scalar, which is learned as it stands."""
HEADS: dict[str, tuple[dict[str, Any], str]] = {
    "energy": ({"type": "energy"}, "sum over atoms; its gradient gives forces and stress"),
    "dipole": ({"type": "dipole"}, "atomic charges and dipoles"),
    "dipole_magnitude": ({"type": "dipole", "magnitude": True}, "the length of the dipole"),
    "polarizability": ({"type": "polarizability"}, "a symmetric tensor"),
    "spatial_extent": ({"type": "spatial_extent"}, "atomic charges times squared distances"),
}


@dataclass(frozen=True)
class LabelEntry:
    """One label of a file."""

    name: str  # of the label in the settings
    about: str  # how many structures have it, and its unit, for a comment
    head: dict[str, Any] | None = None  # that gives it; None if another label's head does
    why: str = ""  # of the head, for a comment
    weight: float | None = None  # in the loss; None for the default


@dataclass(frozen=True)
class Contents:
    """The labels of a file, and what its entry in the settings needs for them."""

    labels: tuple[LabelEntry, ...]
    keys: dict[str, str]  # arrays that are not called as usual
    units: dict[str, str]  # that the file does not declare
    missing: tuple[str, ...]  # labels, or "length", whose unit has to be filled in
    left: tuple[str, ...]  # scalars that are not learned

    def has(self, name: str) -> bool:
        """Whether the file holds a label."""
        return any(label.name == name for label in self.labels)


def contents(frames: Frames, source: DataFile, path: Path) -> Contents:
    """What a model can learn from a file.

    Raises:
        PaiNNFastError: if that is nothing.
    """
    keys = dict(source.keys) | _prefixed(frames, source)
    source = source.model_copy(update={"keys": keys})
    found = {name: key for name in USUAL if (key := key_of(frames, source, name)) in frames.arrays}
    if "dipole" in found:
        found.pop("dipole_magnitude", None)
    own, left = _scalars(frames, source, set(found.values()))
    keys |= {name: key for name, key in own.items() if name != key}
    source = source.model_copy(update={"keys": keys})
    found |= own
    if not found:
        missing = [name for name in USUAL if source.keys.get(name) != ""]
        raise PaiNNFastError(
            "no labels in this file",
            where=path,
            got=unused_line(frames, source.file, (), missing) or f"arrays {listed(frames.arrays) or 'none'}",
            expected="energy, forces, dipole, polarizability or any number a structure",
            fix="name the array with --key, such as --key energy=E_dft",
        )
    stated = {name: unit[0] if (unit := unit_of(frames, source, name)) else None for name in ("length", *found)}
    units_of = dict(source.units)
    missing = [name for name in ("length", *found) if stated[name] is None and (name in USUAL or name == "length")]
    if "energy" in missing:  # which that of forces and stress follows from
        missing = [name for name in missing if name not in ("forces", "stress")]
    units_of |= dict.fromkeys(missing, UNKNOWN)
    units_of |= {name: UNSTATED_UNIT for name in own if stated[name] is None}
    labels = [_label(frames, name, key, stated[name], own) for name, key in found.items()]
    if "energy" not in found and {"forces", "stress"} & found.keys():
        labels[0] = LabelEntry(labels[0].name, labels[0].about, *HEADS["energy"])
    return Contents(tuple(labels), keys, units_of, tuple(missing), tuple(left))


def _prefixed(frames: Frames, source: DataFile) -> dict[str, str]:
    """Arrays such as REF_energy for the usual labels that the file does not have."""
    found: dict[str, str] = {}
    for key, values in frames.arrays.items():
        match = PREFIX.fullmatch(key)
        label = match[2].lower() if match else ""
        label = "forces" if label == "force" else label
        sized = values.size == (len(frames.numbers) if label in PER_ATOM else len(frames)) * (
            int(np.prod(SHAPES.get(label, ())))
        )
        if label and sized and label not in {**source.keys, **found} and key_of(frames, source, label) is None:
            found[label] = key
    return found


def _scalars(frames: Frames, source: DataFile, used: set[str | None]) -> tuple[dict[str, str], list[str]]:
    """Numbers of structures under own names: arrays by the name of a head, and those that are not learned."""
    own: dict[str, str] = {
        name: key for name, key in source.keys.items() if key and name not in (*USUAL, *totals.LABELS)
    }
    left: list[str] = []
    names = {name for kind in totals.NAMES.values() for name in kind} | {name for name in source.keys.values() if name}
    for key, values in frames.arrays.items():
        shape = values.shape in ((len(frames),), (len(frames), 1))
        if key in used or key.lower() in names or key in names or values.dtype.kind not in "fiu" or not shape:
            continue
        known = values[np.isfinite(values)]
        counts = unit_of(frames, source, key) is None and (known == np.floor(known)).all()
        if not len(known) or np.ptp(known) == 0 or counts or BOOKKEEPING.fullmatch(key.lower()):
            left.append(key)
        else:
            own[_head_name(key, own)] = key
    return own, left


def _head_name(key: str, taken: Mapping[str, str]) -> str:
    """A name that a head may have: that of the array, if possible."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", key).strip("_")
    name = name if name[:1].isalpha() else f"label_{name}".rstrip("_")
    reserved = {*TAKEN, *USUAL, *units.KINDS, *totals.LABELS, *taken}
    return next(candidate for k in range(len(reserved) + 2) if (candidate := name + "_" * k) not in reserved)


def _label(frames: Frames, name: str, key: str | None, unit: str | None, own: Mapping[str, str]) -> LabelEntry:
    values = frames.arrays[str(key)]
    n = len(frames)
    known = np.isfinite(by_row(np.asarray(values, dtype=np.float64))).all(axis=1)
    if name in PER_ATOM and len(known) != n:
        known = np.logical_and.reduceat(known, np.append(0, np.cumsum(frames.n_atoms)[:-1]))
    called = "" if key == name else f" = {key}"
    about = f"{int(known.sum())} structures{called}, {unit or 'unit not stated'}"
    if name not in own:
        weight = _weight(values[known], name, unit) if name in ("dipole_magnitude", "spatial_extent") else None
        if name not in HEADS:  # of the head of energies
            return LabelEntry(name, about)
        head, why = HEADS[name]
        return LabelEntry(name, about, head, why, weight)
    aggregation, left = _aggregation(frames, values.reshape(n)[known], known)
    way = "a sum" if aggregation == "sum" else "a mean"
    why = f"{way} over atoms: elements alone explain {100 * (1 - left):.0f} % of the variance"
    scalar = {"type": "scalar", "name": name, "unit": unit or UNSTATED_UNIT, "aggregation": aggregation}
    if _is_number(scalar["unit"]):  # a size in eV, Å and e
        scalar["unit"] = "1"
    return LabelEntry(name, about, scalar, why, _weight(values[known], name, unit, left))


def _is_number(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def _weight(values: np.ndarray, name: str, unit: str | None, share: float = 1.0) -> float:
    """1 over the variance in our units of what the elements do not explain."""
    size = size_of_unit(name, unit) if unit else 1.0
    variance = float(np.var(values * size)) * share if len(values) else 0.0
    return min(max(1 / variance, 1e-9), 1e9) if variance > 0 else 1.0


def _aggregation(frames: Frames, values: np.ndarray, known: np.ndarray) -> tuple[str, float]:
    """Whether a sum or a mean over the atoms of each element explains a scalar better, and the variance left."""
    elements, column = np.unique(frames.numbers, return_inverse=True)
    molecule = np.repeat(np.arange(len(frames)), frames.n_atoms)
    table = np.bincount(molecule * len(elements) + column, minlength=len(frames) * len(elements))
    counts = table.reshape(len(frames), len(elements))[known].astype(np.float64)
    variance = float(np.var(values)) or 1.0
    left = {}
    for name, columns in (("mean", counts / counts.sum(axis=1, keepdims=True)), ("sum", counts)):
        solution = np.linalg.lstsq(columns, values, rcond=None)[0]
        left[name] = float(np.mean((values - columns @ solution) ** 2)) / variance
    best = "sum" if left["sum"] < 0.99 * left["mean"] else "mean"
    return best, min(left[best], 1.0)
