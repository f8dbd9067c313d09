"""HDF5 files with checksums, on a disk that may be full.

Data sets have Fletcher's checksum in every chunk, the format of HDF5 1.10 has checksums in most of what lies between
them, and a hash of names, shapes and attributes covers the rest.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.runtime.atomic import atomic_write

LIBVER = ("v110", "v110")
"""HDF5 1.10: the first whose structures have checksums and whose files are read from there on."""
HEADER = "header_sha256"
CHUNK = 2**20
"""Bytes of a chunk, about."""


@contextmanager
def new_hdf5(path: str | Path, **options: str) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """A new file, written whole or not at all, and a function that raises if a write failed; the end raises too.

    Args:
        path: the file.
        options: of `atomic_write`.

    Raises:
        PaiNNFastError: if there is no space.
    """
    with atomic_write(path, **options) as temporary, _DeferredErrorFile(temporary, "w+") as raw:
        with h5py.File(raw, "w", libver=LIBVER) as file:
            yield file, raw.check
            file.attrs[HEADER] = header_digest(file)
        raw.check()


def checked_dataset(
    group: h5py.Group, name: str, values: np.ndarray, *, chunk: tuple[int, ...] | None = None, grows: bool = False
) -> h5py.Dataset:
    """A new data set with a checksum in every chunk; numbers and empty arrays, which have no chunks, have none.

    Args:
        group: file or group.
        name: in it.
        values: first or all rows.
        chunk: shape; default about `CHUNK` bytes of rows.
        grows: whether more rows will come.
    """
    if values.ndim == 0 or (values.size == 0 and chunk is None):
        return group.create_dataset(name, data=values)
    rows = max(1, min(len(values), CHUNK // max(values[:1].nbytes, 1)))
    shape = chunk or (rows, *values.shape[1:])
    most = (None, *values.shape[1:]) if grows else None
    return group.create_dataset(name, data=values, maxshape=most, chunks=shape, dtype=values.dtype, fletcher32=True)


def header_digest(file: h5py.File) -> str:
    """SHA-256 of all attributes and of the names, types and shapes of all data sets, but not of their contents."""
    digest = hashlib.sha256()

    def add(name: str, entry: h5py.Group | h5py.Dataset) -> None:
        kind = f"{entry.dtype.str} {entry.shape}" if isinstance(entry, h5py.Dataset) else "group"
        digest.update(f"{name}: {kind}\n".encode())
        for key, value in sorted(entry.attrs.items()):
            if key != HEADER:
                array = np.asarray(value)
                content = array.tobytes() if array.dtype.kind in "fiub" else repr(array.tolist()).encode()
                digest.update(f"{key} {array.dtype.str} {array.shape} ".encode() + content + b"\n")

    add("/", file)
    file.visititems(add)  # by name
    return digest.hexdigest()


def check_header(file: h5py.File, path: str | Path) -> None:
    """Raise PaiNNFastError unless attributes, names, types and shapes are those that were written."""
    try:
        intact = file.attrs.get(HEADER) == header_digest(file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise damaged(path, "the header", error) from None
    if not intact:
        raise damaged(path, "the header", "another SHA-256 than written")


def read_dataset(file: h5py.File, name: str, rows: slice = slice(None)) -> np.ndarray:
    """Rows of a data set.

    Raises:
        PaiNNFastError: if they cannot be read, or are not what was written; names file and data set.
    """
    try:
        entry = file[name]
        return entry[rows] if entry.ndim else entry[()]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise damaged(file.filename, f"data set '{name}'", error) from None


def damaged(path: str | Path, what: str, got: object) -> PaiNNFastError:
    """The error about a part of a file that is not what was written."""
    fix = "restore the file from a copy, or make it anew"
    return PaiNNFastError("a damaged file", where=f"{path}, {what}", got=str(got)[:200], fix=fix)


class _DeferredErrorFile(io.FileIO):
    """A file that defers errors to `check`: libhdf5 ends the process when it cannot write on closing a file."""

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        """All of it, unless something failed before."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while len(rest) and self.failed is None:
            try:
                rest = rest[super().write(rest) :]
            except OSError as error:
                self.failed = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """To a size, unless something failed before."""
        if self.failed is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.failed = error
        return size or 0

    def check(self) -> None:
        """Raise the first error."""
        if self.failed is not None:
            raise self.failed
