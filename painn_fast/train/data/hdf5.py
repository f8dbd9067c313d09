"""Our own HDF5 files: flat arrays with their units, read in no time.

`n_atoms` [n], `numbers` [A], `positions` [A, 3], `arrays/<name>` [n, ...] or [A, ...] with an attribute `unit`, and
where there are any `split`, `cell`, `pbc`, `charge`, `spin`, `index`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.hdf5 import HEADER, check_header, checked_dataset, new_hdf5
from painn_fast.train.data.dataset import SPLITS, Dataset, join
from painn_fast.train.data.frames import OF_STRUCTURES, Frames

FORMAT = "painn-fast structures 1"


def write_hdf5(data: Dataset | Mapping[str, Dataset] | Frames, path: str | Path, said: str = "") -> None:
    """Write structures with labels in our units, with their splits if `data` names them, or frames as they stand.

    Args:
        data: what to write.
        path: the new file.
        said: a text to find again, such as what the file was made of.
    """
    frames = data if isinstance(data, Frames) else _frames(data)
    with new_hdf5(path) as (file, _):
        file.attrs["format"] = FORMAT
        file.attrs["said"] = said
        file.attrs["keys"] = json.dumps(frames.keys)
        file.attrs["units"] = json.dumps(frames.units)
        file.attrs["units_from"] = frames.units_from
        file.attrs["array_units"] = json.dumps(frames.array_units)
        file.attrs["notes"] = json.dumps(frames.notes)
        for name in ("n_atoms", "numbers", "positions", *OF_STRUCTURES):
            values = getattr(frames, name)
            if values is not None:
                checked_dataset(file, name, np.asarray(values))
        group = file.create_group("arrays", track_order=True)
        for name, values in frames.arrays.items():
            if values.dtype.kind in "fiub":
                checked_dataset(group, name, values).attrs["unit"] = frames.array_units.get(name, ("",))[0]


def read(path: Path) -> Frames:
    """What `write_hdf5` wrote.

    Raises:
        PaiNNFastError: for a file that is none of ours, or broken; names it.
    """
    try:
        with h5py.File(path) as file:
            if file.attrs.get("format") != FORMAT:
                raise PaiNNFastError(
                    "not a data file of painn-fast", where=path, got=", ".join(map(str, file)), expected=FORMAT
                )
            if HEADER in file.attrs:  # files of earlier versions have no checksums
                check_header(file, path)
            frames = _read(file)
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise PaiNNFastError("not a readable HDF5 file", where=path, got=str(error)) from None
    _check(frames, path)
    return frames


def said(path: Path) -> str:
    """The text that a file was written with; nothing if it cannot be read."""
    try:
        with h5py.File(path) as file:
            return str(file.attrs.get("said", ""))
    except OSError:
        return ""


def _read(file: h5py.File) -> Frames:
    arrays = {name: entry[()] for name, entry in file.get("arrays", {}).items()}
    keys, said = json.loads(file.attrs["keys"]), json.loads(file.attrs["array_units"])
    return Frames(
        numbers=file["numbers"][()].astype(np.int64),
        positions=file["positions"][()].astype(np.float64),
        n_atoms=file["n_atoms"][()].astype(np.int64),
        arrays=arrays,
        keys={label: tuple(names) for label, names in keys.items()},
        units=json.loads(file.attrs["units"]),
        units_from=str(file.attrs["units_from"]),
        array_units={name: (unit, by) for name, (unit, by) in said.items()},
        notes=tuple(json.loads(file.attrs["notes"])),
        **{name: file[name][()] for name in OF_STRUCTURES if name in file},
    )


def _check(frames: Frames, path: Path) -> None:
    n, atoms = len(frames), int(frames.n_atoms.sum())
    for name, values, size in (
        ("numbers", frames.numbers, atoms),
        ("positions", frames.positions, atoms),
        *((name, getattr(frames, name), n) for name in OF_STRUCTURES),
    ):
        if values is not None and len(values) != size:
            raise PaiNNFastError("wrong shape", where=f"{path}, '{name}'", got=values.shape, expected=f"{size} rows")
    if frames.positions.shape != (atoms, 3) or (frames.n_atoms < 1).any():
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
        units={"length": "Ang"},
        array_units={name: (unit, "the file") for name, unit in data.units.items()},
        split=split,
        cell=data.cell if data.pbc.any() else None,
        pbc=data.pbc if data.pbc.any() else None,
        charge=data.charge,
        spin=data.spin,
    )
