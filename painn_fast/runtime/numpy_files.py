"""`.npy` and `.npz` files from elsewhere: sizes in their headers are compared with those of the data before memory is
allocated, and nothing is unpickled.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from painn_fast.errors import PaiNNFastError, reading
from painn_fast.runtime.zip_directory import check_directory

NPZ, NPY = "not a readable .npz file", "not a readable .npy file"
MAX_ARRAYS = 10_000
SMALL = 2**30
"""Bytes that the arrays of a file may have together however small it is; larger ones have to lie in it."""
LARGEST_RATIO = 20
"""Largest ratio of arrays to a compressed file, beyond `SMALL`: measured numbers do not compress further."""
KINDS = "fiubUS"


def load_npz(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file by their names, numbers and texts.

    Raises:
        PaiNNFastError: if there is no such file, it is damaged, or an array is larger than what is stored of it.
    """
    path = Path(path)
    if not path.is_file():
        raise PaiNNFastError("no such data file", where=path)
    with reading(NPZ, path):
        check_directory(path)
        with zipfile.ZipFile(path) as archive:
            return {name: _member(archive, info, path) for name, info in _members(archive, path).items()}


def check_npz(path: str | Path) -> None:
    """Raise PaiNNFastError unless `load_npz` would take the file: only headers and sizes are read."""
    path = Path(path)
    with reading(NPZ, path):
        check_directory(path)
        with zipfile.ZipFile(path) as archive:
            for info in _members(archive, path).values():
                with archive.open(info) as stream:
                    _check_header(stream, info.file_size, NPZ, f"{path}, {info.filename[:100]!r}")


def load_npy(path: str | Path) -> np.ndarray:
    """The array of an `.npy` file.

    Raises:
        PaiNNFastError: as `load_npz`.
    """
    path = Path(path)
    if not path.is_file():
        raise PaiNNFastError("no such data file", where=path)
    with reading(NPY, path), open(path, "rb") as stream:
        _check_header(stream, path.stat().st_size, NPY, str(path))
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The arrays by their names; not more of them than the file can hold."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename or name in found:  # an array whose name is damaged must not be passed over
            got = "two arrays of one name" if name in found else "not an array"
            raise PaiNNFastError(NPZ, where=f"{path}, {name[:100]!r}", got=got)
        found[name] = info
    size, most = sum(info.file_size for info in found.values()), SMALL + LARGEST_RATIO * path.stat().st_size
    if len(found) > MAX_ARRAYS or size > most:
        got = f"{len(found)} arrays, {size} bytes"
        raise PaiNNFastError(NPZ, where=path, got=got, expected=f"at most {MAX_ARRAYS} and {most} bytes")
    return found


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> np.ndarray:
    where = f"{path}, {info.filename[:100]!r}"
    with reading(NPZ, where):
        with archive.open(info) as stream:
            _check_header(stream, info.file_size, NPZ, where)
        with archive.open(info) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)


def _check_header(stream: IO[bytes], size: int, what: str, where: str) -> None:
    """Raise PaiNNFastError unless the header declares as many bytes of plain values as follow it."""
    version = np.lib.format.read_magic(stream)
    read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject or dtype.kind not in KINDS or dtype.subdtype is not None:
        got = "Python objects, which would have to be unpickled" if dtype.hasobject else dtype
        raise PaiNNFastError(what, where=where, got=got, expected="numbers or texts")
    declared, stored = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if any(length < 0 for length in shape) or declared != stored:
        got = f"shape {shape}, {dtype}: {declared} bytes"
        raise PaiNNFastError(what, where=where, got=got, expected=f"{stored} bytes, those in the file")
