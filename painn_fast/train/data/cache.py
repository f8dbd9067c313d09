"""A copy in our own format beside a file that takes long to read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from painn_fast.errors import PaiNNFastError
from painn_fast.runtime.progress import StatusLine
from painn_fast.runtime.ranks import rank_and_world_size
from painn_fast.train.data import hdf5
from painn_fast.train.data.frames import Frames

READERS = 4
"""Counts up when a reader reads the same file differently, so that earlier copies are made again."""
SLOW = 5.0
"""Seconds of reading that are worth a copy."""


def cached(path: Path, read: Callable[[Path], Frames]) -> Frames:
    """The frames that `read` gives for a file, from the copy beside it if that is of the file as it is now."""
    copy = path.with_name(f"{path.name}.cache.h5")
    stamp = _stamp(path)
    if copy.is_file() and hdf5.attribute(copy, "stamp") == stamp:
        with suppress(PaiNNFastError):  # a damaged copy is made again
            return hdf5.read(copy)
    start = time.monotonic()
    frames = read(path)
    if time.monotonic() - start > SLOW:
        _keep(frames, copy, stamp)
    return frames


def _keep(frames: Frames, copy: Path, stamp: str) -> None:
    status = StatusLine(silent=rank_and_world_size()[0] != 0)
    try:
        hdf5.write_hdf5(frames, copy, stamp)
    except OSError as error:
        status.keep(f"no copy for faster reading: {error.strerror or error}; where: {copy}")
    except PaiNNFastError as error:  # no space
        status.keep(f"no copy for faster reading: {error}")
    else:
        status.keep(f"copy for faster reading: {copy}")


def _stamp(path: Path) -> str:
    """A text that changes when the file does; of a folder, how many files it holds and which came last."""
    if path.is_dir():
        times = [entry.stat().st_mtime_ns for entry in os.scandir(path)]
        return f"{hdf5.FORMAT} readers {READERS} folder {len(times)} {max(times, default=0)}"
    facts = path.stat()
    return f"{hdf5.FORMAT} readers {READERS} {facts.st_size} {facts.st_mtime_ns}"
