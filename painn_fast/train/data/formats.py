"""The reader of each format, found by the name and the first bytes of a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from painn_fast.errors import PaiNNFastError, reading
from painn_fast.graph.charge import CHARGE_KEYS, MULTIPLICITY_KEYS
from painn_fast.train.data import ase_database, ase_files, extxyz, hdf5, npy, npz, qm9
from painn_fast.train.data.cache import cached
from painn_fast.train.data.find import existing_data, find_data
from painn_fast.train.data.frames import Frames
from painn_fast.train.settings import DataFile


def read_frames(source: DataFile, folder: str | Path = ".") -> Frames:
    """The file as it stands, without the structures that the settings exclude.

    Raises:
        PaiNNFastError: for a file that is missing, not understood or contradicts itself; names what and where.
    """
    path = existing_data(source.file, folder)
    folder = path.parent if path == Path(folder) else folder  # of other files that the settings name
    with reading("not a readable data file", path):
        frames = _read(path, source, folder)
    if not len(frames):
        raise PaiNNFastError("a data file without structures", where=path)
    if source.periodic is not None:
        frames = _periodic(frames, source.periodic, path)
    if source.exclude is not None:
        frames = frames.select(_kept(frames, find_data(source.exclude, folder)))
    return frames


DIGITS = 18
"""Of a number of a structure at most."""
TEXTS = {"xyz": extxyz.read, "qm9": qm9.read, "database": ase_database.read, "other": ase_files.read}
"""Readers that may take long."""


def _read(path: Path, source: DataFile, folder: str | Path) -> Frames:
    kind = _format(path)
    if kind == "npz":
        geometry = None if source.geometry is None else find_data(source.geometry, folder)
        return npz.read(path, geometry, set(_charge_keys(source)))
    if source.geometry is not None:
        raise PaiNNFastError("geometry from another file is for .npz only", where=path)
    if kind == "npy":
        labels = dict.fromkeys(key for key in source.keys.values() if key)
        return npy.read(path, source.symbols, labels, lambda name: find_data(name, folder))
    return hdf5.read(path) if kind == "hdf5" else cached(path, TEXTS[kind])


def _charge_keys(source: DataFile) -> list[str]:
    """Arrays that the settings name for charge and multiplicity; with "" none of those that are called so is read."""
    names = {"charge": CHARGE_KEYS, "multiplicity": MULTIPLICITY_KEYS, "spin": MULTIPLICITY_KEYS}
    return [name for label, keys in names.items() if label in source.keys for name in (source.keys[label], *keys)]


SUFFIXES = {
    **{".npz": "npz", ".npy": "npy", ".h5": "hdf5", ".hdf5": "hdf5", ".xyz": "xyz", ".extxyz": "xyz"},
    **{".db": "database", ".json": "database"},
}
MAGIC = {b"PK": "npz", b"\x93NUMPY": "npy", b"\x89HDF": "hdf5", b"SQLite format 3": "database"}


def _format(path: Path) -> str:
    """By the name, else by the first bytes."""
    if qm9.is_archive(path):
        return "qm9"
    if path.is_dir():
        raise PaiNNFastError("a folder", where=path, expected="a file, or a folder of QM9's dsgdb9nsd_*.xyz")
    if path.suffix.lower() in SUFFIXES:
        return SUFFIXES[path.suffix.lower()]
    with open(path, "rb") as file:
        start = file.read(16)
    return next((name for magic, name in MAGIC.items() if start.startswith(magic)), "other")


def _periodic(frames: Frames, periodic: bool, path: Path) -> Frames:
    """With or without periodic images, regardless of the file."""
    if not periodic:
        return dataclasses.replace(frames, cell=None, pbc=None)
    cell = np.zeros((len(frames), 3, 3)) if frames.cell is None else frames.cell
    flat = np.abs(np.linalg.det(cell)) < 1e-6
    if flat.any():
        raise PaiNNFastError(
            "periodic, but without a cell", where=f"{path}, frame {frames.frames[flat][0]}", fix="leave periodic out"
        )
    return dataclasses.replace(frames, cell=cell, pbc=np.ones((len(frames), 3), dtype=bool))


def _kept(frames: Frames, path: Path) -> np.ndarray:
    """Rows that a list of numbers, the first word of a line each, does not exclude."""
    with reading("cannot read the list of excluded structures", path):
        text = path.read_text(encoding="utf-8", errors="replace")
    words = [line.split(maxsplit=1)[:1] for line in text.splitlines()]
    out = [int(word) for line in words for word in line if word.isdecimal() and len(word) <= DIGITS]
    if not out:
        raise PaiNNFastError("no numbers of structures", where=path, expected="one at the begin of a line")
    index = frames.frames if frames.index is None else frames.index
    return np.flatnonzero(~np.isin(index, out))
