"""`.npz` files: our own, MD17, rMD17 and sGDML, and flat arrays of different molecules as QM9 is often stored."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.charge import AMBIGUOUS_KEY, CHARGE_KEYS, MULTIPLICITY_KEYS
from painn_fast.runtime.numpy_files import load_npz
from painn_fast.train.data.frames import (
    UNIT,
    Frames,
    Keys,
    repeated,
    truth_values,
    units_of_nothing,
    whole_numbers,
)

KEYS: Keys = {
    "energy": ("E", "energy", "energies"),
    "forces": ("F", "forces"),
    "dipole": ("dipole", "D", "mu"),
    "polarizability": ("polarizability", "alpha"),
    "dipole_magnitude": ("mu",),
    "spatial_extent": ("r2",),
    "stress": ("stress",),
}
POSITIONS = ("R", "coords", "positions", "coordinates")
NUMBERS = ("z", "nuclear_charges", "Z", "numbers", "atomic_numbers")
TOTALS = (*CHARGE_KEYS, *MULTIPLICITY_KEYS, AMBIGUOUS_KEY)
ABOUT = ("name", "theory", "type", "md5", "code_version", "note", "split_names")
"""Texts that describe a file; no label is lost if they are not read."""
LONGEST_UNIT = 1_000
"""Characters of names and their unit."""
SGDML_UNITS = {"e_unit": "energy", "r_unit": "length"}
"""Kinds of the units that sGDML writes; ours are energy_unit, length_unit, ..."""


def read(path: Path, geometry: Path | None = None, chosen: Collection[str] = ()) -> Frames:
    """Structures and arrays of a file; R and z out of `geometry`, if it is given.

    Args:
        path: the file.
        geometry: another one.
        chosen: arrays that the settings name, whose meaning is thereby known.

    Raises:
        PaiNNFastError: naming the file and the array.
    """
    arrays = load_npz(path)
    if geometry is not None:
        arrays |= {key: value for key, value in load_npz(geometry).items() if key in (*POSITIONS, *NUMBERS, "n_atoms")}
    positions, numbers = (_take(arrays, names, path) for names in (POSITIONS, NUMBERS))
    positions, numbers = positions.astype(np.float64), whole_numbers(numbers, f"{path}, 'z'")
    split = arrays.pop("split", None)
    declared = _declared_units(arrays, path) | _units_of_properties(arrays)
    implied = _implied_units(arrays, declared)
    arrays |= _properties(arrays, path)
    if "n_atoms" in arrays:
        n_atoms = whole_numbers(arrays.pop("n_atoms"), f"{path}, 'n_atoms'")
        _check_flat(positions, numbers, n_atoms, path)
    else:
        _check_shape(positions, numbers, path)
        n, atoms = positions.shape[:2]
        n_atoms = np.full(n, atoms)
        numbers = numbers.ravel() if numbers.ndim == 2 else repeated(numbers, n)
        _check_totals(arrays, n, atoms, chosen, path)
    cell, pbc = _cells(arrays, len(n_atoms), path)
    for name in [name for name in arrays if name.lower() in TOTALS and arrays[name].ndim == 0]:
        arrays[name] = np.full(len(n_atoms), arrays[name])
    left = (*(name for name, values in arrays.items() if not values.ndim), *units_of_nothing(declared, arrays, KEYS))
    return Frames(
        numbers=numbers,
        positions=positions.reshape(-1, 3),
        n_atoms=n_atoms,
        arrays={name: values for name, values in arrays.items() if values.ndim and name not in ABOUT},
        keys=KEYS,
        units=implied | declared,
        units_from="the file" if not implied else f"the file and its kind ({', '.join(implied.values())})",
        split=split,
        cell=cell,
        pbc=pbc,
        theory=_theory(arrays),
        left=tuple(name for name in left if name not in ABOUT),
    )


def _theory(arrays: dict[str, np.ndarray]) -> tuple[str, ...]:
    """Levels of theory, one text or several, as sGDML's files and ours have them."""
    texts = np.atleast_1d(arrays.get("theory", np.zeros(0, dtype="U1"))).ravel()
    words = [text.decode(errors="replace") if isinstance(text, bytes) else str(text) for text in texts.tolist()]
    return tuple(dict.fromkeys(word for word in words if word and texts.dtype.kind in "SU"))


def _check_totals(arrays: dict[str, np.ndarray], n: int, atoms: int, chosen: Collection[str], path: Path) -> None:
    """Charges [n] of n structures of n atoms: of the structures, or of the atoms?"""
    for name, values in arrays.items():
        if name.lower() in TOTALS and values.shape == (n,) == (atoms,) and n > 1 and name not in chosen:
            kind = "charge" if name.lower() in CHARGE_KEYS else "multiplicity"
            fix = f'if it is of the structures, set keys = {{ {kind} = "{name}" }}, else keys = {{ {kind} = "" }}'
            raise PaiNNFastError(
                f"is this of the structures, or of the atoms? There are {n} of both",
                where=f"{path}, '{name}'",
                got=values.shape,
                expected=f"({n}, 1) for the {kind} of each structure",
                fix=fix,
            )


def _cells(arrays: dict[str, np.ndarray], n: int, path: Path) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Cells [n, 3, 3] in rows, and the directions [n, 3] in which they count; default: those with a vector."""
    lattice, cell, pbc = (arrays.pop(name, None) for name in ("lattice", "cell", "pbc"))
    if lattice is not None and cell is not None:
        raise PaiNNFastError("two cells", where=path, got="lattice and cell", expected="one of them")
    name = "cell" if lattice is None else "lattice"
    values = cell if lattice is None else lattice
    if values is None:
        if pbc is not None and np.any(pbc):
            raise PaiNNFastError(
                "periodic, but without a cell",
                where=f"{path}, 'pbc'",
                fix="store cell, or periodic = false for this file",
            )
        return None, None
    directions = np.ones(3, dtype=bool) if pbc is None else pbc
    for key, array, shape in ((name, values, (3, 3)), ("pbc", directions, (3,))):
        if array.shape not in ((n, *shape), shape) or array.dtype.kind not in "fiub":
            raise PaiNNFastError(
                "wrong shape", where=f"{path}, '{key}'", got=array.shape, expected=f"{shape} or {(n, *shape)}"
            )
    cells = np.broadcast_to(values.astype(np.float64), (n, 3, 3)).copy()
    cells = cells if lattice is None else cells.swapaxes(1, 2).copy()  # sGDML: columns are the vectors
    if pbc is None:
        return cells, np.asarray(cells.any(axis=2))
    return cells, np.broadcast_to(truth_values(directions, f"{path}, 'pbc'"), (n, 3)).copy()


def _take(arrays: dict[str, np.ndarray], names: tuple[str, ...], path: Path) -> np.ndarray:
    for name in names:
        if name in arrays:
            return arrays.pop(name)
    raise PaiNNFastError(
        "missing array", where=f"{path}, '{names[0]}'", got=", ".join(arrays), expected=" | ".join(names)
    )


def _declared_units(arrays: dict[str, np.ndarray], path: Path) -> dict[str, str]:
    """Units that arrays of texts declare: <name>_unit, and sGDML's; taken out of `arrays`."""
    declared: dict[str, str] = {}
    for key in list(arrays):
        match = UNIT.fullmatch(key)
        if match is None or match[1] is None or (match[2] and arrays[key].dtype.kind not in "SU"):
            continue
        value, name = arrays.pop(key), SGDML_UNITS.get(key, match[1])
        text = value.reshape(-1)[0] if value.size == 1 else value
        unit = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        if declared.setdefault(name, unit) != unit:
            got = f"{declared[name]} and {unit}"[:200]
            raise PaiNNFastError(f"two units of {name}", where=f"{path}, '{key}'", got=got, expected="one")
    return declared


def _implied_units(arrays: dict[str, np.ndarray], declared: dict[str, str]) -> dict[str, str]:
    """The published MD17 and rMD17 files declare no unit; both are in kcal/mol and Å."""
    published = any(key in arrays for key in ("old_indices", "md5")) and not declared
    return {"energy": "kcal/mol", "length": "Ang"} if published else {}


def _properties(arrays: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Columns of `props` by their names in `prop_names`."""
    if "props" not in arrays or "prop_names" not in arrays:
        return {}
    names, table = [str(name) for name in arrays.pop("prop_names")], arrays.pop("props")
    if table.ndim != 2 or table.shape[1] != len(names):
        raise PaiNNFastError(
            "wrong shape", where=f"{path}, 'props'", got=table.shape, expected=f"(n, {len(names)}), as prop_names"
        )
    return dict(zip(names, table.T, strict=True))


def _units_of_properties(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    """A text such as "mu D; homo,lumo Ha; *_atom kcal/mol" as a unit for each array that it names."""
    if "units" not in arrays or arrays["units"].ndim:
        return {}
    names = [str(name) for name in arrays.get("prop_names", [])]
    found: dict[str, str] = {}
    for part in str(arrays["units"]).split(";"):
        match = re.fullmatch(r"(\S+)\s+([^\s(]+).*", part.strip()[:LONGEST_UNIT], flags=re.DOTALL)
        for pattern in match[1].split(",") if match else ():
            ending = pattern.removeprefix("*")
            hits = [n for n in names if n == pattern or (pattern.startswith("*") and n.endswith(ending))]
            found |= dict.fromkeys(hits, match[2]) if match else {}
    if not found:  # a unit of what?
        return {}
    del arrays["units"]
    return found | {"length": "Ang"}


def _check_shape(positions: np.ndarray, numbers: np.ndarray, path: Path) -> None:
    atoms = numbers.shape[-1] if numbers.ndim else 0
    if positions.ndim != 3 or positions.shape[1:] != (atoms, 3) or numbers.shape not in ((atoms,), positions.shape[:2]):
        raise PaiNNFastError(
            "wrong shape", where=f"{path}, 'R'", got=positions.shape, expected=f"(n, {atoms}, 3) for {atoms} atoms"
        )


def _check_flat(positions: np.ndarray, numbers: np.ndarray, n_atoms: np.ndarray, path: Path) -> None:
    total = int(n_atoms.sum()) if n_atoms.ndim == 1 and (n_atoms <= len(positions)).all() else -1
    if positions.shape != (total, 3) or numbers.shape != (total,) or (n_atoms < 1).any():
        raise PaiNNFastError(
            "wrong shape",
            where=f"{path}, 'R' and 'z'",
            got=f"{positions.shape} and {numbers.shape}",
            expected=f"({total}, 3) and ({total},): the sum of n_atoms, each at least 1",
        )
