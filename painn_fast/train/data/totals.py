"""Total charge and spin multiplicity of the structures of a file."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.charge import AMBIGUOUS_KEY, CHARGE_KEYS, MULTIPLICITY_KEYS, charge_and_multiplicity
from painn_fast.train.data.frames import Frames
from painn_fast.train.settings import DataFile

NAMES = {"charge": CHARGE_KEYS, "multiplicity": (*MULTIPLICITY_KEYS, AMBIGUOUS_KEY)}
LABELS = ("charge", "spin", "multiplicity")
"""Keys of the settings that name them; `spin` is the multiplicity too."""


class Totals(NamedTuple):
    """Of the structures [n], and the arrays of the file that hold them."""

    charge: np.ndarray  # e
    multiplicity: np.ndarray  # 2S + 1
    arrays: tuple[str, ...]


def totals(frames: Frames, source: DataFile, path: object) -> Totals:
    """Charges and multiplicities out of the arrays of structures; an array of atoms is no total.

    Raises:
        PaiNNFastError: as `charge_and_multiplicity`, and for an array of neither structures nor atoms; names the frame.
    """
    columns: dict[str, np.ndarray] = {}
    used: list[str] = []
    for kind, labels in (("charge", LABELS[:1]), ("multiplicity", LABELS[1:])):
        chosen = [source.keys[label] for label in labels if label in source.keys]
        for name in dict.fromkeys(chosen or (name for name in frames.arrays if name.lower() in NAMES[kind])):
            values = _column(frames, name, path, chosen=bool(chosen)) if name else None
            if values is not None:
                columns[kind if chosen else name] = values
                used.append(name)
    charge = np.zeros(len(frames)) if frames.charge is None else frames.charge.astype(np.float64)
    multiplicity = np.ones(len(frames)) if frames.spin is None else frames.spin.astype(np.float64)
    if columns:
        table = np.stack(list(columns.values()), axis=1)  # [n, names], NaN where a frame has no value
        known = np.where(np.isnan(table), -1e300, table)  # NaN is not equal to itself
        _, first, group = np.unique(known, axis=0, return_index=True, return_inverse=True)
        both = np.array([_of(columns, row, frames, path) for row in first])[group.reshape(-1)]
        own = {name.lower() for name in columns}
        charge = both[:, 0] if own & set(CHARGE_KEYS) else charge
        multiplicity = both[:, 1] if own - set(CHARGE_KEYS) else multiplicity
    return Totals(charge, multiplicity, tuple(used))


def _of(columns: dict[str, np.ndarray], row: int, frames: Frames, path: object) -> tuple[float, float]:
    info: dict[str, Any] = {name: float(values[row]) for name, values in columns.items() if not np.isnan(values[row])}
    try:
        return charge_and_multiplicity(info, where=f"{path}, frame {frames.frames[row]}")
    except PaiNNFastError as error:
        fix = 'name the right array in the settings: keys = { charge = "...", multiplicity = "..." }, "" for none'
        raise error.replaced(fix=f"{error.fix}, or {fix}" if error.fix else fix) from None


def _column(frames: Frames, name: str, path: object, *, chosen: bool) -> np.ndarray | None:
    """An array as one number [n] a structure, None for one of atoms."""
    if name not in frames.arrays:
        raise PaiNNFastError("missing array", where=f"{path}, '{name}'", got=", ".join(frames.arrays)[:200])
    values = frames.arrays[name]
    n = len(frames)
    if values.dtype.kind in "fiu" and values.size == n and values.shape[:1] == (n,):
        return values.astype(np.float64).reshape(n)
    of_atoms = values.shape[:1] == frames.numbers.shape or any(
        (frames.n_atoms == size).all() for size in values.shape[:2]
    )
    if of_atoms and not chosen:
        return None
    raise PaiNNFastError(
        "not one number a structure",
        where=f"{path}, '{name}'",
        got=f"{values.dtype} {values.shape}",
        expected=f"({n},)",
        fix=f'leave it out: keys = {{ {"charge" if name.lower() in CHARGE_KEYS else "multiplicity"} = "" }}',
    )
