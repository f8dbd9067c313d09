"""`.npy` files: positions [n, atoms, 3] in one, each label in another beside it; the settings name the elements."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from painn_fast.errors import PaiNNFastError
from painn_fast.runtime.numpy_files import load_npy
from painn_fast.train.data.frames import Frames, repeated


def read(path: Path, symbols: str | None, labels: Iterable[str], find: Callable[[str], Path]) -> Frames:
    """Structures of `path`, with the arrays of the files `labels`, which `find` finds.

    Raises:
        PaiNNFastError: naming the file.
    """
    if symbols is None:
        fix = 'name them in the settings: symbols = "O H H"'
        raise PaiNNFastError("the elements of the atoms are not specified", where=path, fix=fix)
    numbers = elements(symbols)
    positions = load(path)
    if positions.ndim != 3 or positions.shape[1:] != (len(numbers), 3):
        raise PaiNNFastError(
            "wrong shape", where=path, got=positions.shape, expected=f"(n, {len(numbers)}, 3), as symbols"
        )
    n = len(positions)
    arrays = {name: load(find(name)) for name in labels}
    for name, values in arrays.items():
        if len(values) != n:
            raise PaiNNFastError(
                "wrong shape", where=find(name), got=values.shape, expected=f"{n} rows, as {path.name}"
            )
    return Frames(
        numbers=repeated(numbers, n),
        positions=positions.reshape(-1, 3).astype(np.float64),
        n_atoms=np.full(n, len(numbers)),
        arrays=arrays,
    )


def elements(symbols: str) -> np.ndarray:
    """Atomic numbers of "C C O H".

    Raises:
        PaiNNFastError: for an unknown element.
    """
    words = symbols.replace(",", " ").split()
    for word in words:
        if word not in atomic_numbers:
            raise PaiNNFastError("unknown element", where="symbols", got=repr(word), expected='such as "O H H"')
    return np.array([atomic_numbers[word] for word in words])


def load(path: Path) -> np.ndarray:
    """One array; never unpickles anything."""
    array = load_npy(path)
    if array.dtype.kind not in "fiu" or array.ndim == 0:
        raise PaiNNFastError("not a readable .npy file", where=path, expected="an array of numbers")
    return array
