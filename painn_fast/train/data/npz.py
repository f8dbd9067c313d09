"""`.npz` files: our own, MD17, rMD17 and sGDML, and flat arrays of different molecules as QM9 is often stored."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.numpy_files import load_npz
from painn_fast.train.data.frames import Frames, Keys, repeated

KEYS: Keys = {
    "energy": ("E", "energy", "energies"),
    "forces": ("F", "forces"),
    "dipole": ("dipole", "D", "mu"),
    "polarizability": ("polarizability", "alpha"),
    "dipole_magnitude": ("mu",),
    "spatial_extent": ("r2",),
    "charge": ("charge", "Q"),
}
POSITIONS = ("R", "coords", "positions")
NUMBERS = ("z", "nuclear_charges", "Z", "numbers")
LONGEST_UNIT = 1_000
"""Characters of names and their unit."""
UNITS = {"energy": "e_unit", "length": "r_unit"}
"""What sGDML calls the units; ours are energy_unit, length_unit, ..."""


def read(path: Path, geometry: Path | None = None) -> Frames:
    """Structures and arrays of a file; R and z out of `geometry`, if it is given.

    Raises:
        PaiNNFastError: naming the file and the array.
    """
    arrays = load(path)
    if geometry is not None:
        arrays |= {key: value for key, value in load(geometry).items() if key in (*POSITIONS, *NUMBERS, "n_atoms")}
    positions, numbers = (_take(arrays, names, path) for names in (POSITIONS, NUMBERS))
    positions = positions.astype(np.float64)
    split = arrays.pop("split", None)
    said = {kind: str(arrays.pop(key)) for kind, key in _unit_keys(arrays).items()} | _units_of_properties(arrays)
    implied = _implied_units(arrays, said)
    arrays |= _properties(arrays, path)
    if "n_atoms" in arrays:
        n_atoms = arrays.pop("n_atoms").astype(np.int64)
        _check_flat(positions, numbers, n_atoms, path)
        numbers = numbers.astype(np.int64)
    else:
        _check_shape(positions, numbers, path)
        n, atoms = positions.shape[:2]
        n_atoms = np.full(n, atoms)
        numbers = numbers.astype(np.int64).ravel() if numbers.ndim == 2 else repeated(numbers, n)
    lattice = arrays.pop("lattice", None)  # sGDML's, columns are the vectors
    cell = None if lattice is None or lattice.shape != (3, 3) else np.tile(lattice.T, (len(n_atoms), 1, 1))
    return Frames(
        numbers=numbers,
        positions=positions.reshape(-1, 3),
        n_atoms=n_atoms,
        arrays=arrays,
        keys=KEYS,
        units=implied | said,
        units_from="the file" if not implied else f"the file and its kind ({', '.join(implied.values())})",
        split=split,
        cell=cell,
        pbc=None if cell is None else np.ones((len(n_atoms), 3), dtype=bool),
        charge=arrays["charge"].astype(np.float64).ravel() if "charge" in arrays else None,
        spin=arrays["spin"].astype(np.float64).ravel() if "spin" in arrays else None,
    )


def load(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file; never unpickles anything."""
    return load_npz(path)


def _take(arrays: dict[str, np.ndarray], names: tuple[str, ...], path: Path) -> np.ndarray:
    for name in names:
        if name in arrays:
            return arrays.pop(name)
    raise PaiNNFastError(
        "missing array", where=f"{path}, '{names[0]}'", got=", ".join(arrays), expected=" | ".join(names)
    )


def _unit_keys(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    own = {key.removesuffix("_unit"): key for key in arrays if key.endswith("_unit") and key not in UNITS.values()}
    return {kind: key for kind, key in UNITS.items() if key in arrays} | own


def _implied_units(arrays: dict[str, np.ndarray], said: dict[str, str]) -> dict[str, str]:
    """The published MD17 and rMD17 files say no unit; both are in kcal/mol and Å."""
    published = any(key in arrays for key in ("old_indices", "md5")) and not said
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
    for part in str(arrays.pop("units")).split(";"):
        match = re.fullmatch(r"(\S+)\s+([^\s(]+).*", part.strip()[:LONGEST_UNIT], flags=re.DOTALL)
        for pattern in match[1].split(",") if match else ():
            ending = pattern.removeprefix("*")
            hits = [n for n in names if n == pattern or (pattern.startswith("*") and n.endswith(ending))]
            found |= dict.fromkeys(hits, match[2]) if match else {}
    return found | {"length": "Ang"} if found else {}


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
