"""Finished labels as lines of JSON, each on disk before the next: a killed run loses only what was being computed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from painn_fast.errors import PaiNNFastError


class Journal:
    """Lines of one run: a header that says what is labelled how, then one line a structure.

    Args:
        path: file.
        header: what a run that goes on must share.

    Raises:
        PaiNNFastError: if the file belongs to another run; names what differs.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path, self.entries = path, {}
        if path.exists():
            self._read(header)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        if not self._whole:
            self._write(header)

    entries: dict[int, dict[str, Any]]
    _whole = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, index: int, entry: dict[str, Any]) -> None:
        """Labels of a structure, or why there are none."""
        self.entries[index] = entry
        self._write({"structure": index, **entry})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self, header: dict[str, Any]) -> None:
        """Take in what is there; a line that was cut off by the end of the process is removed."""
        text = self.path.read_bytes()
        end = text.rfind(b"\n") + 1
        lines = text[:end].splitlines()
        try:
            found, *entries = [json.loads(line) for line in lines] or [None]
        except ValueError as error:
            raise PaiNNFastError("a damaged journal", where=self.path, got=str(error), fix="remove it") from None
        if found is not None and found != json.loads(json.dumps(header)):
            differ = [key for key in header if found.get(key) != json.loads(json.dumps(header[key]))]
            raise PaiNNFastError(
                "the journal belongs to another run",
                where=self.path,
                got="; ".join(f"{key} = {header[key]}" for key in differ),
                expected="; ".join(f"{key} = {found.get(key)}" for key in differ),
                fix="choose another output, or remove the journal",
            )
        if end < len(text):
            os.truncate(self.path, end)
        self._whole = end
        self.entries = {entry.pop("structure"): entry for entry in entries}
