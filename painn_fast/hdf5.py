"""New HDF5 files, on a disk that may be full."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from painn_fast.atomic import atomic_write


@contextmanager
def new_hdf5(path: str | Path, **options: str) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """A new file, whole or not there, and what raises if the disk has refused a part of it; the end does so too.

    Args:
        path: the file.
        options: of `atomic_write`.

    Raises:
        PaiNNFastError: if there is no space.
    """
    with atomic_write(path, **options) as temporary, _Patient(temporary, "w+") as raw:
        with h5py.File(raw, "w") as file:
            yield file, raw.check
        raw.check()


class _Patient(io.FileIO):
    """A file that keeps to itself what fails: libhdf5 ends the process when it cannot write on closing a file."""

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
        """Raise what failed first."""
        if self.failed is not None:
            raise self.failed
