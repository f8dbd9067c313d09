"""The reader of each format, found by the name and the first bytes of a file."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.train.data import extxyz, npy, npz
from painn_fast.train.data.frames import Frames
from painn_fast.train.settings import CONFIGS, DataFile


def find_data(file: str, folder: str | Path) -> Path:
    """The file in `folder`, or the one of that name that comes with the shipped configurations.

    `folder` may be the file itself, where a configuration has only one.
    """
    own, shipped = Path(folder) / file, CONFIGS / file
    if Path(folder).is_file():
        return Path(folder)
    return shipped if shipped.is_file() and not own.is_file() else own


def read_frames(source: DataFile, folder: str | Path = ".") -> Frames:
    """The file as it stands, without the structures that the settings exclude.

    Raises:
        PaiNNFastError: for a file that is not there, is not understood or contradicts itself; names what and where.
    """
    path = find_data(source.file, folder)
    if not path.exists():
        raise PaiNNFastError("no such data file", where=path, fix="say where the data are with --data")
    frames = _read(path, source, folder)
    if source.periodic is not None:
        frames = _periodic(frames, source.periodic, path)
    if source.exclude is not None:
        frames = frames.select(_kept(frames, find_data(source.exclude, folder)))
    return frames


def _read(path: Path, source: DataFile, folder: str | Path) -> Frames:
    match _format(path):
        case "npz":
            return npz.read(path, None if source.geometry is None else find_data(source.geometry, folder))
        case "npy":
            labels = dict.fromkeys(key for key in source.keys.values() if key)
            beside = path.parent if Path(folder).is_file() else folder
            return npy.read(path, source.symbols, labels, lambda name: find_data(name, beside))
        case _:
            return extxyz.read(path)


MAGIC = {b"PK": "npz", b"\x93NUMPY": "npy"}
SUFFIXES = {".npz": "npz", ".npy": "npy", ".xyz": "xyz", ".extxyz": "xyz"}


def _format(path: Path) -> str:
    """By the first bytes, else by the name."""
    if path.suffix.lower() not in SUFFIXES and path.is_file():
        with open(path, "rb") as file:
            start = file.read(16)
        return next((name for magic, name in MAGIC.items() if start.startswith(magic)), "other")
    return SUFFIXES.get(path.suffix.lower(), "other")


def _periodic(frames: Frames, periodic: bool, path: Path) -> Frames:
    """With or without periodic images, whatever the file says."""
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
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise PaiNNFastError("cannot read the list of excluded structures", where=path, got=error.strerror) from None
    out = [int(number) for number in re.findall(r"^[ \t]*(\d+)(?=[ \t\r]|$)", text, flags=re.MULTILINE)]
    if not out:
        raise PaiNNFastError("no numbers of structures", where=path, expected="one at the begin of a line")
    index = frames.frames if frames.index is None else frames.index
    return np.flatnonzero(~np.isin(index, out))
