"""What a reader makes of a file: structures and arrays as they stand there, in the units of the file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from painn_fast.errors import PaiNNFastError

Keys = Mapping[str, tuple[str, ...]]
"""Names that a label goes by in a format, the usual one first."""
OF_STRUCTURES = ("split", "cell", "pbc", "charge", "spin", "index")


@dataclass(frozen=True)
class Frames:
    """n structures of A atoms in all; nothing is converted yet."""

    numbers: np.ndarray  # [A] atomic numbers
    positions: np.ndarray  # [A, 3], in units["length"]
    n_atoms: np.ndarray  # [n]
    arrays: dict[str, np.ndarray]  # by the file's own names: [n, ...] of structures, [A, ...] of atoms
    keys: Keys = field(default_factory=dict)  # where the usual labels are looked for
    units: dict[str, str] = field(default_factory=dict)  # of kinds (length, energy, ...) and of arrays by name
    units_from: str = "the file"  # who says so: the file itself, or its format
    array_units: dict[str, tuple[str, str]] = field(default_factory=dict)  # of single arrays, and who says so
    split: np.ndarray | None = None  # [n] 0 train, 1 validation, 2 test
    cell: np.ndarray | None = None  # [n, 3, 3], rows are the vectors, in units["length"]
    pbc: np.ndarray | None = None  # [n, 3]
    charge: np.ndarray | None = None  # [n] e
    spin: np.ndarray | None = None  # [n] 2S + 1
    index: np.ndarray | None = None  # [n] number of each structure by its format; default: its place, from 0
    frame: np.ndarray | None = None  # [n] place in the file; default: all, from 0
    notes: tuple[str, ...] = ()  # what the user should know of the file, a line each

    def __len__(self) -> int:
        return len(self.n_atoms)

    def of_atoms(self, name: str) -> bool:
        """Whether an array has an entry for each atom, not each structure."""
        return len(self.arrays[name]) != len(self)

    def select(self, rows: np.ndarray) -> Frames:
        """The structures of these rows; `frame` still tells their place in the file."""
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
        """Place [n] of each structure in its file."""
        return np.arange(len(self)) if self.frame is None else self.frame


def repeated(numbers: np.ndarray, n: int) -> np.ndarray:
    """Atomic numbers [n a] of n copies of one molecule [a]."""
    return np.tile(np.asarray(numbers, dtype=np.int64), n)


Values = Mapping[str, np.ndarray]


class Gather:
    """Structures one after another into flat arrays; what some of them lack is NaN there."""

    def __init__(self, path: object) -> None:
        self.path = path
        self.numbers: list[np.ndarray] = []
        self.positions: list[np.ndarray] = []
        self.cell: list[np.ndarray] = []
        self.pbc: list[np.ndarray] = []
        self._arrays: dict[str, list[tuple[int, np.ndarray]]] = {}  # of structures, by number
        self._atom_arrays: dict[str, list[tuple[int, np.ndarray]]] = {}
        self._n_atoms = 0

    def __len__(self) -> int:
        return len(self.numbers)

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
            PaiNNFastError: if an array has another shape than in those before; names file and frame.
        """
        for table, entries, start in (
            (self._arrays, values, len(self)),
            (self._atom_arrays, atom_values, self._n_atoms),
        ):
            for name, value in entries.items():
                known = table.setdefault(name, [])
                shape = value.shape[1:] if table is self._atom_arrays else value.shape
                before = known[0][1].shape[1:] if known and table is self._atom_arrays else known and known[0][1].shape
                if known and shape != before:
                    where = f"{self.path}, '{name}', frame {len(self)}" + (f", line {line}" if line else "")
                    raise PaiNNFastError(
                        "another shape than in the frames before", where=where, got=shape, expected=before
                    )
                known.append((start, value))
        self.numbers.append(numbers)
        self.positions.append(positions)
        self.cell.append(np.zeros((3, 3)) if cell is None else cell)
        self.pbc.append(np.zeros(3, dtype=bool) if pbc is None else pbc)
        self._n_atoms += len(numbers)

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays, NaN where a structure lacks one; of atoms [A, ...], of structures [n, ...]."""
        result = {}
        for table, n in ((self._arrays, len(self)), (self._atom_arrays, self._n_atoms)):
            for name, known in table.items():
                shape = known[0][1].shape[1:] if table is self._atom_arrays else known[0][1].shape
                values = np.full((n, *shape), np.nan)
                if table is self._arrays:
                    values[[row for row, _ in known]] = np.stack([value for _, value in known])
                else:
                    for start, value in known:
                        values[start : start + len(value)] = value
                result[name] = values[:, 0] if values.shape[1:] == (1,) else values
        return result

    def frames(self) -> Frames:
        """All of them, with neither keys nor units."""
        if not len(self):
            raise PaiNNFastError("a data file without structures", where=self.path)
        cell = np.array(self.cell, dtype=np.float64)
        return Frames(
            numbers=np.concatenate(self.numbers).astype(np.int64),
            positions=np.concatenate(self.positions).astype(np.float64),
            n_atoms=np.array([len(numbers) for numbers in self.numbers]),
            arrays=self.arrays(),
            cell=cell,
            pbc=np.array(self.pbc, dtype=bool) & (np.abs(cell).max(axis=2) > 0),
        )
