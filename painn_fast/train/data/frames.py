"""What a reader makes of a file: structures and arrays as they stand there, in the units of the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Keys = Mapping[str, tuple[str, ...]]
"""Names that a label goes by in a format, the usual one first."""


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
    split: np.ndarray | None = None  # [n] 0 train, 1 validation, 2 test
    cell: np.ndarray | None = None  # [n, 3, 3], rows are the vectors, in units["length"]
    pbc: np.ndarray | None = None  # [n, 3]
    charge: np.ndarray | None = None  # [n] e
    spin: np.ndarray | None = None  # [n] 2S + 1


def repeated(numbers: np.ndarray, n: int) -> np.ndarray:
    """Atomic numbers [n a] of n copies of one molecule [a]."""
    return np.tile(np.asarray(numbers, dtype=np.int64), n)
