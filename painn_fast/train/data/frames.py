"""The result of a reader: structures and arrays as a file has them, in the units of the file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.graph.charge import CHARGE_KEYS, MULTIPLICITY_KEYS

Keys = Mapping[str, tuple[str, ...]]
"""Names that a label goes by in a format, the usual one first."""
CONVENTION = "ASE's convention"
"""Origin of the units of what ASE defines."""
UNSTATED = ("", "")
"""Unit of an array that neither the file nor the convention of its format declares."""
UNIT = re.compile(r"(?:(.+)_)?unit(s?)", re.IGNORECASE)
"""Name of an entry that declares a unit: that of the array or kind before the underscore."""
LISTED = 12
"""Names in a list of them, and characters of a name are at most five times as many."""
OF_STRUCTURES = ("split", "cell", "pbc", "charge", "spin", "index")


@dataclass(frozen=True)
class Frames:
    """n structures of A atoms in all; nothing is converted yet."""

    numbers: np.ndarray  # [A] atomic numbers
    positions: np.ndarray  # [A, 3], in units["length"]
    n_atoms: np.ndarray  # [n]
    arrays: dict[str, np.ndarray]  # by the file's own names: [n, ...] of structures, [A, ...] of atoms
    keys: Keys = field(default_factory=dict)  # names that the usual labels may have
    units: dict[str, str] = field(default_factory=dict)  # of kinds (length, energy, ...) and of arrays by name
    units_from: str = "the file"  # where the units were declared: in the file, or by its format
    array_units: dict[str, tuple[str, str]] = field(default_factory=dict)  # of an array, and where it was declared
    split: np.ndarray | None = None  # [n] 0 train, 1 validation, 2 test
    cell: np.ndarray | None = None  # [n, 3, 3], rows are the vectors, in units["length"]
    pbc: np.ndarray | None = None  # [n, 3]
    charge: np.ndarray | None = None  # [n] e
    spin: np.ndarray | None = None  # [n] 2S + 1
    index: np.ndarray | None = None  # [n] number of each structure by its format; default: its index, from 0
    frame: np.ndarray | None = None  # [n] index in the file; default: all, from 0
    notes: tuple[str, ...] = ()  # what the user should know of the file, a line each
    theory: tuple[str, ...] = ()  # levels of theory of the labels, as far as the file states them
    left: tuple[str, ...] = ()  # names of entries that are no arrays of numbers: texts, truth values, objects
    loose_units: dict[str, str] = field(default_factory=dict)  # other than by convention, in free text: kind and word

    def __len__(self) -> int:
        return len(self.n_atoms)

    def of_atoms(self, name: str) -> bool:
        """Whether an array has an entry for each atom, not each structure."""
        values = self.arrays[name]
        return values.ndim > 0 and len(values) != len(self)

    def select(self, rows: np.ndarray) -> Frames:
        """The structures of these rows; `frame` keeps their indices in the file."""
        chosen = np.zeros(len(self), dtype=bool)
        chosen[rows] = True
        atoms = np.repeat(chosen, self.n_atoms)
        arrays = {
            name: values[atoms if self.of_atoms(name) else chosen]
            for name, values in self.arrays.items()
            if len(values) in (len(self), len(atoms))
        }
        whole = {name: getattr(self, name) for name in OF_STRUCTURES}
        return dataclasses.replace(
            self,
            numbers=self.numbers[atoms],
            positions=self.positions[atoms],
            n_atoms=self.n_atoms[chosen],
            arrays=arrays,
            frame=self.frames[chosen],
            **{name: values[chosen] for name, values in whole.items() if values is not None},
        )

    @property
    def frames(self) -> np.ndarray:
        """Index [n] of each structure in its file."""
        return np.arange(len(self)) if self.frame is None else self.frame


def listed(names: Iterable[str]) -> str:
    """Names with commas between them, of bounded length."""
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(name if len(name) <= 5 * LISTED else f"{name[: 5 * LISTED]}..." for name in names[:LISTED]) + more


def whole_numbers(values: np.ndarray, where: str) -> np.ndarray:
    """An array of whole numbers, of any type, as int64.

    Raises:
        PaiNNFastError: for other numbers, and for what is no number.
    """
    if values.dtype.kind in "iu" or (
        values.dtype.kind == "f" and bool((np.isfinite(values) & (np.floor(values) == values)).all())
    ):
        return values.astype(np.int64)
    got = f"{values.dtype} {values.ravel()[:3].tolist()}"
    raise PaiNNFastError("not whole numbers", where=where, got=got, expected="whole numbers")


def truth_values(values: np.ndarray, where: str) -> np.ndarray:
    """An array of truth values, also as 0 and 1, as bool.

    Raises:
        PaiNNFastError: for other values.
    """
    if values.dtype.kind in "fiub" and bool(np.isin(values, (0, 1)).all()):
        return values.astype(bool)
    got = f"{values.dtype} {values.ravel()[:3].tolist()}"
    raise PaiNNFastError("not truth values", where=where, got=got, expected="true and false, or 1 and 0")


def units_of_nothing(declared: Iterable[str], arrays: Iterable[str], keys: Keys) -> list[str]:
    """Entries that declare the unit of something that a file does not have, by their names."""
    known = {*arrays, *keys, *units.KINDS}
    return [f"{name}_unit" for name in declared if name not in known]


def repeated(numbers: np.ndarray, n: int) -> np.ndarray:
    """Atomic numbers [n a] of n copies of one molecule [a]."""
    return np.tile(np.asarray(numbers, dtype=np.int64), n)


Values = Mapping[str, np.ndarray]


class Columns:
    """Arrays of structures [k], or of atoms [a, ...], by their names, as they come in."""

    def __init__(self, *, of_atoms: bool) -> None:
        self.of_atoms = of_atoms
        self.known: dict[str, list[tuple[int, np.ndarray]]] = {}

    def add(self, start: int, values: Values) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        """Take values for the rows from `start`; name and shapes of those that are shaped unlike those before."""
        for name, value in values.items():
            column = self.known.setdefault(name, [])
            shape, before = self._shape(value), self._shape(column[0][1] if column else value)
            if shape != before:
                yield name, shape, before
            column.append((start, value))

    def arrays(self, n: int) -> dict[str, np.ndarray]:
        """All of them, NaN in the rows that have none."""
        result = {}
        for name, column in self.known.items():
            values = np.full((n, *self._shape(column[0][1])), np.nan)
            if self.of_atoms:
                for start, value in column:
                    values[start : start + len(value)] = value
            else:
                values[[row for row, _ in column]] = np.stack([value for _, value in column])
            result[name] = values[:, 0] if values.shape[1:] == (1,) else values
        return result

    def _shape(self, value: np.ndarray) -> tuple[int, ...]:
        return value.shape[1:] if self.of_atoms else value.shape


class Gather:
    """Structures one after another into flat arrays; what some of them lack is NaN there.

    Args:
        path: where they come from, for messages.
        strict: names of arrays whose change of shape is an error; others are left out then.
    """

    def __init__(self, path: object, *, strict: Callable[[str], bool] = lambda name: True) -> None:
        self.path, self.strict = path, strict
        self.geometry: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self._values, self._atom_values = Columns(of_atoms=False), Columns(of_atoms=True)
        self._torn: set[str] = set()
        self._n_atoms = 0

    def __len__(self) -> int:
        return len(self.geometry)

    def add(
        self,
        numbers: np.ndarray,  # [a]
        positions: np.ndarray,  # [a, 3]
        values: Values,  # [k] each
        atom_values: Values,  # [a, ...] each
        cell: np.ndarray | None = None,
        pbc: np.ndarray | None = None,
        line: int | None = None,
    ) -> None:
        """One more.

        Raises:
            PaiNNFastError: for an array of another shape than in those before; names file and frame.
        """
        torn = [*self._values.add(len(self), values), *self._atom_values.add(self._n_atoms, atom_values)]
        for name, shape, before in torn:
            if self.strict(name):
                where = f"{self.path}, '{name}', frame {len(self)}" + (f", line {line}" if line else "")
                raise PaiNNFastError("another shape than in the frames before", where=where, got=shape, expected=before)
            self._torn.add(name)
        no_cell, no_pbc = np.zeros((3, 3)), np.zeros(3, dtype=bool)
        self.geometry.append((numbers, positions, no_cell if cell is None else cell, no_pbc if pbc is None else pbc))
        self._n_atoms += len(numbers)

    def frames(self) -> Frames:
        """All of them, with neither keys nor units."""
        if not len(self):
            raise PaiNNFastError("a data file without structures", where=self.path)
        torn = self._torn
        totals = {name for name in self._atom_values.known if name.lower() in (*CHARGE_KEYS, *MULTIPLICITY_KEYS)}
        for name in (self._values.known.keys() & self._atom_values.known.keys() | totals) - torn:
            self._atom_values.known[f"{name} of atoms"] = self._atom_values.known.pop(name)
        for name in torn:
            self._values.known.pop(name, None)
            self._atom_values.known.pop(name, None)
        numbers, positions, cell, pbc = zip(*self.geometry, strict=True)
        cells = np.array(cell, dtype=np.float64)
        return Frames(
            numbers=np.concatenate(numbers).astype(np.int64),
            positions=np.concatenate(positions).astype(np.float64),
            n_atoms=np.array([len(molecule) for molecule in numbers]),
            arrays=self._values.arrays(len(self)) | self._atom_values.arrays(self._n_atoms),
            cell=cells,
            pbc=np.array(pbc, dtype=bool) & (np.abs(cells).max(axis=2) > 0),
            notes=(f"left out, as their shape changes: {listed(sorted(torn))}",) if torn else (),
        )
