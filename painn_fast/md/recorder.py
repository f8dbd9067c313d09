"""Writing a trajectory so that it can be read at any moment and survives the end of the process at any moment.

Frames gather in memory and go out at every checkpoint as a whole HDF5 file, `segments/to-<step>.h5`, written under
another name, synced and renamed. At the end, and when there are many, segments are folded into `trajectory.h5` in the
same way. A reader takes `trajectory.h5` and the segments that go beyond it. (HDF5's own single-writer-multiple-reader
mode leaves a file marked as open, and possibly a torn block, when its writer is killed.)
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from painn_fast.errors import PaiNNFastError, reading
from painn_fast.runtime.checkpoint import GO_ON
from painn_fast.runtime.hdf5 import CHUNK, check_header, checked_dataset, damaged, new_hdf5, read_dataset
from painn_fast.runtime.hdf5_guard import open_hdf5

FORMAT, VERSION = "painn-fast trajectory", 2
READABLE = (1, VERSION)
"""Files of version 1 have neither checksums nor charge, spin multiplicity and tags."""
RUN = "run_sha256"
"""Attribute: the same in all files of a run, and in no others."""
SEGMENTS_AT_MOST = 200
BUFFER_AT_MOST = 64 * 2**20
"""Bytes in memory at which a checkpoint is due whatever the clock says."""
BLOCK = 4 * 2**20
"""Bytes that are copied at once when segments are folded."""

Columns = dict[str, np.ndarray]


class Recorder:
    """Collects frames and writes them.

    Args:
        folder: of the run.
        header: attributes of every file: units, elements, settings.
        units: unit of each dataset "<series>/<column>".
    """

    def __init__(self, folder: Path, header: dict[str, Any], units: dict[str, str]) -> None:
        self.folder, self.header, self.units = folder, header, units
        self.frozen: list[dict[str, Any]] = []
        self.notes: list[dict[str, Any]] = []
        self._rows: dict[str, dict[str, list[np.ndarray]]] = {}
        self.bytes = 0

    def add(self, series: str, step: int, time: float, columns: Columns) -> None:
        """Keep one frame of a series; time in fs."""
        frame = {"step": np.int64(step), "time": np.float64(time), **columns}
        kept = self._rows.setdefault(series, {name: [] for name in frame})
        for name, value in frame.items():
            kept[name].append(np.array(value))
            self.bytes += kept[name][-1].nbytes

    @property
    def full(self) -> bool:
        """Whether it is time to flush."""
        return self.bytes >= BUFFER_AT_MOST

    def flush(self, step: int) -> None:
        """Write all frames up to `step` as a segment."""
        if self._rows:
            columns = [(f"{s}/{c}", np.stack(v)) for s, kept in self._rows.items() for c, v in kept.items()]
            _write(self.folder / "segments" / f"to-{step:012d}.h5", self._header(step), columns, self.units)
        self._rows, self.bytes = {}, 0

    def fold(self, step: int) -> None:
        """Put everything up to `step` into trajectory.h5; drop what goes beyond it (on a resume)."""
        files = trajectory_files(self.folder)
        target = self.folder / "trajectory.h5"
        if files != [target] or end_of(target) > step:
            blocks = itertools.chain.from_iterable(_blocks(file, step) for file in files)
            _write(target, self._header(step), blocks, self.units)
        remove_segments(self.folder)

    def tidy(self, step: int) -> None:
        """Fold if there are many segments."""
        if len(list((self.folder / "segments").glob("to-*.h5"))) > SEGMENTS_AT_MOST:
            self.fold(step)

    def _header(self, step: int) -> dict[str, Any]:
        seen = {"frozen": json.dumps(self.frozen), "notes": json.dumps(self.notes)}
        return {"format": FORMAT, "version": VERSION, **self.header, "end": step, **seen}


def trajectory_files(folder: Path) -> list[Path]:
    """Files that make up the trajectory of a run, in order."""
    head = folder / "trajectory.h5"
    files = [head] if head.exists() else []
    end = end_of(head) if files else -1
    return files + [path for path in sorted((folder / "segments").glob("to-*.h5")) if int(path.stem[3:]) > end]


def written_files(folder: Path) -> list[Path]:
    """Files of a trajectory, whether or not they can be read."""
    return [path for path in (folder / "trajectory.h5", *(folder / "segments").glob("to-*.h5")) if path.exists()]


def remove_segments(folder: Path) -> None:
    """Delete the segments, the last first, so that those left at any moment have no gap, and their folder."""
    for path in sorted((folder / "segments").glob("*"), reverse=True):
        path.unlink()
    if (folder / "segments").exists():
        (folder / "segments").rmdir()


Known = set[tuple[Path, int, int, int]]
"""Files whose headers are checked: name, number on the disk, size, time of the last change."""


def open_file(path: Path, known: Known | None = None) -> h5py.File:
    """An HDF5 file of ours, open for reading.

    Args:
        path: the file.
        known: files that need no second check; the file is added.

    Raises:
        PaiNNFastError: if it cannot be opened, is not one of ours, or its header is not what was written.
    """
    try:
        file = open_hdf5(path)
    except PaiNNFastError as error:
        raise PaiNNFastError(
            "not a readable trajectory", where=path, got=str(error), expected="an HDF5 file written by painn-fast md"
        ) from None
    try:
        form, version = file.attrs.get("format"), file.attrs.get("version")
        if form != FORMAT or version not in READABLE:
            raise PaiNNFastError(
                "not a painn-fast trajectory", where=path, got=f"format {form!r}, version {version}",
                expected=f"{FORMAT}, version {' or '.join(map(str, READABLE))}",
            )  # fmt: skip
        facts = os.fstat(file.id.get_vfd_handle())
        key = (path, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        if version > 1 and (known is None or key not in known):
            check_header(file, path)
        if known is not None:
            known.add(key)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        file.close()
        raise damaged(path, "the header", error) from None
    except PaiNNFastError:
        file.close()
        raise
    return file


def end_of(path: Path) -> int:
    """Step up to which a file records."""
    with open_file(path) as file, reading("a damaged trajectory", path):
        return int(file.attrs["end"])


def _blocks(path: Path, until: int) -> Iterator[tuple[str, np.ndarray]]:
    """Names and rows of all datasets of a file, a block at a time, rows with step <= until."""
    with open_file(path) as file:
        for series, group in file.items():
            rows = int(np.searchsorted(read_dataset(file, f"{series}/step"), until, side="right"))
            for column, dataset in group.items():
                block = max(1, BLOCK // max(dataset.nbytes // max(len(dataset), 1), 1))
                for start in range(0, rows, block):
                    name = f"{series}/{column}"
                    yield name, read_dataset(file, name, slice(start, min(start + block, rows)))


def _write(
    path: Path, header: dict[str, Any], columns: Iterable[tuple[str, np.ndarray]], units: dict[str, str]
) -> None:
    """A whole file from named rows; those of the same name are appended one after another."""
    with new_hdf5(path, fix=GO_ON) as (file, check):
        file.attrs.update(header)
        for name, rows in columns:
            _append(file, name, rows, units)
            check()


def _append(file: h5py.File, name: str, rows: np.ndarray, units: dict[str, str]) -> None:
    if name not in file:
        frames = max(1, CHUNK // max(rows[:1].nbytes, 1))
        chunk = (min(frames, max(len(rows), 1024 if rows.ndim == 1 else 1)), *rows.shape[1:])
        dataset = checked_dataset(file, name, rows, chunk=chunk, grows=True)
        dataset.attrs["unit"] = units.get(name, "fs" if name.endswith("/time") else "")
        return
    dataset = file[name]
    old = len(dataset)
    dataset.resize(old + len(rows), axis=0)
    dataset[old:] = rows
