"""painn-fast's own HDF5 files: flat arrays with their units, the fastest format to read.

`n_atoms` [n], `numbers` [A], `positions` [A, 3], `arrays/<name>` [n, ...] or [A, ...] with an attribute `unit`, and
optionally `split`, `cell`, `pbc`, `charge`, `spin`, `index`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from painn_fast.errors import PaiNNFastError, reading
from painn_fast.runtime.hdf5 import new_hdf5
from painn_fast.runtime.hdf5_guard import open_hdf5
from painn_fast.train.data.dataset import SPLITS, Dataset, join
from painn_fast.train.data.frames import OF_STRUCTURES, Frames, truth_values, whole_numbers

FORMAT = "painn-fast structures 1"
LEFT = 100
"""Names of entries that are no numbers, as many and as much of each as is kept: an attribute has 64 kB."""
DIGEST = "sha256"
"""Attribute: the hash of everything that decides numbers."""


def write_hdf5(data: Dataset | Mapping[str, Dataset] | Frames, path: str | Path, stamp: str = "") -> None:
    """Write structures with labels in our units, with their splits if `data` names them, or frames as they stand.

    Args:
        data: what to write.
        path: the new file.
        stamp: a text that `attribute` gives back, such as the size and date of the file that this is a copy of.
    """
    frames = data if isinstance(data, Frames) else _frames(data)
    with new_hdf5(path) as (file, _):
        file.attrs.update(format=FORMAT, stamp=stamp, units_from=frames.units_from)
        texts = {
            name: getattr(frames, name) for name in ("keys", "units", "array_units", "notes", "theory", "loose_units")
        }
        texts["left"] = [name[:LEFT] for name in frames.left[:LEFT]]
        file.attrs.update({name: json.dumps(value) for name, value in texts.items()})
        for name in ("n_atoms", "numbers", "positions", *OF_STRUCTURES):
            values = getattr(frames, name)
            if values is not None:
                file[name] = values
        group = file.create_group("arrays", track_order=True)
        for name, values in frames.arrays.items():
            if values.dtype.kind in "fiub":
                group[name] = values
                group[name].attrs["unit"] = frames.array_units.get(name, ("",))[0]
        file.attrs[DIGEST] = _digest(frames)


def read(path: Path) -> Frames:
    """What `write_hdf5` wrote.

    Raises:
        PaiNNFastError: for a file of another format, or a damaged one; names it.
    """
    fix = "HDF5 of other programs has no common layout: convert it to .npz or extended XYZ"
    with reading("not a readable HDF5 file", path), open_hdf5(path) as file:
        if file.attrs.get("format") != FORMAT:
            raise PaiNNFastError(
                "not a data file of painn-fast", where=path, got=", ".join(map(str, file)), expected=FORMAT, fix=fix
            )
        frames = _read(file)
        _check(frames, path)
        digest = file.attrs.get(DIGEST)  # older files have none
        if digest is not None and digest != _digest(frames):
            fix = "restore the file from a copy, or make it anew"
            raise PaiNNFastError("a damaged data file", where=path, got="another SHA-256 than written", fix=fix)
    return frames


def attribute(path: Path, name: str) -> str:
    """An attribute of a file; nothing if it has none or cannot be read."""
    with suppress(PaiNNFastError), reading("not a readable HDF5 file", path), open_hdf5(path) as file:
        return str(file.attrs.get(name, ""))
    return ""


def _read(file: h5py.File) -> Frames:
    keys, array_units = json.loads(file.attrs["keys"]), json.loads(file.attrs["array_units"])
    known = ("n_atoms", "numbers", "positions", "arrays", *OF_STRUCTURES)
    where = file.filename
    structures = {name: file[name][()] for name in OF_STRUCTURES if name in file}
    if "pbc" in structures:
        structures["pbc"] = truth_values(structures["pbc"], f"{where}, 'pbc'")
    return Frames(
        numbers=whole_numbers(file["numbers"][()], f"{where}, 'numbers'"),
        positions=file["positions"][()].astype(np.float64),
        n_atoms=whole_numbers(file["n_atoms"][()], f"{where}, 'n_atoms'"),
        arrays={name: entry[()] for name, entry in file.get("arrays", {}).items()},
        keys={label: tuple(names) for label, names in keys.items()},
        units=json.loads(file.attrs["units"]),
        units_from=str(file.attrs["units_from"]),
        array_units={name: (unit, origin) for name, (unit, origin) in array_units.items()},
        notes=tuple(json.loads(file.attrs["notes"])),
        theory=tuple(json.loads(file.attrs.get("theory", "[]"))),
        loose_units=json.loads(file.attrs.get("loose_units", "{}")),
        left=(*json.loads(file.attrs.get("left", "[]")), *(str(name) for name in file if name not in known)),
        **structures,
    )


def _digest(frames: Frames) -> str:
    """SHA-256 of all that decides numbers, in the types in which they are read."""
    texts = (frames.keys, frames.units, frames.units_from, frames.array_units)
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    geometry = {"numbers": np.int64, "positions": np.float64, "n_atoms": np.int64}
    arrays = {name: getattr(frames, name).astype(kind, copy=False) for name, kind in geometry.items()}
    arrays |= {name: getattr(frames, name) for name in OF_STRUCTURES}
    arrays |= {
        f"arrays/{name}": values for name, values in sorted(frames.arrays.items()) if values.dtype.kind in "fiub"
    }
    for name, values in arrays.items():
        if values is not None:
            digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
            digest.update(np.ascontiguousarray(values).view(np.uint8).data if values.size else b"")
    return digest.hexdigest()


def _check(frames: Frames, path: Path) -> None:
    counts, numbers = frames.n_atoms, frames.numbers
    if counts.ndim != 1 or numbers.ndim != 1 or (counts < 1).any() or (counts > len(numbers)).any():
        where = f"{path}, 'n_atoms' and 'numbers'"
        raise PaiNNFastError("wrong shape", where=where, got=counts.shape, expected="[n], 1 or more, and [A]")
    n, atoms = len(frames), int(frames.n_atoms.sum())
    for name, values, size in (
        ("numbers", frames.numbers, atoms),
        ("positions", frames.positions, atoms),
        *((name, getattr(frames, name), n) for name in OF_STRUCTURES),
    ):
        if values is not None and (values.ndim == 0 or len(values) != size):
            raise PaiNNFastError("wrong shape", where=f"{path}, '{name}'", got=values.shape, expected=f"{size} rows")
    if frames.positions.shape != (atoms, 3):
        raise PaiNNFastError("wrong shape", where=f"{path}, 'positions'", got=frames.positions.shape)


def _frames(data: Dataset | Mapping[str, Dataset]) -> Frames:
    split = None
    if not isinstance(data, Dataset):
        parts = {name: part for name, part in data.items() if len(part)}
        if set(parts) <= set(SPLITS):
            split = np.repeat([SPLITS.index(name) for name in parts], [len(part) for part in parts.values()])
        data = join(list(parts.values()))
    return Frames(
        numbers=data.numbers,
        positions=data.positions,
        n_atoms=data.n_atoms,
        arrays=data.labels,
        keys={name: (name,) for name in data.labels},
        theory=data.theory,
        units={"length": "Ang"},
        array_units={name: (unit, "the file") for name, unit in data.units.items()},
        split=split,
        cell=data.cell if data.pbc.any() else None,
        pbc=data.pbc if data.pbc.any() else None,
        charge=data.charge,
        spin=data.spin,
    )
