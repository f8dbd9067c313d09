"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from painn_fast.errors import PaiNNFastError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FREE = "free space there"


@contextmanager
def atomic_write(path: str | Path, *, fix: str = FREE) -> Iterator[Path]:
    """Yield a temporary path beside `path`; synced to disk it takes that name, on error it is removed.

    Args:
        path: the file.
        fix: what to do when the disk is full.

    Raises:
        PaiNNFastError: if there is no space.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with space_for(path, fix):
        try:
            make_folder(path.parent)
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        except OSError as error:
            if error.filename == str(temporary):  # of which the user knows nothing
                error.filename, error.filename2 = str(path), None
            raise
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def space_for(path: str | Path, fix: str = FREE) -> Iterator[None]:
    """Turn a full disk into an error that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise PaiNNFastError("no space for a file", where=path, got=os.strerror(error.errno), fix=fix) from None


def make_folder(folder: Path) -> None:
    """A folder and those above it; new ones survive a power cut.

    Raises:
        PaiNNFastError: if there is no space.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        with space_for(folder):
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """A rename survives a power cut only when its folder is synced too; where folders cannot be opened, do without."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
