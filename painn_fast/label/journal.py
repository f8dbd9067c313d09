"""Finished labels as lines of JSON, each on disk before the next: a killed run loses only what was being computed.

Every line ends with its own SHA-256: one that is damaged is noticed, and its structure labelled again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

from painn_fast.errors import PaiNNFastError
from painn_fast.runtime.atomic import make_folder, space_for, sync_folder
from painn_fast.runtime.signature import LINE_FIELD, read_line, signed_line


class Journal:
    """Lines of one run: a header with structures and method, then one line a structure.

    Args:
        path: file.
        header: facts that must be equal in a run that goes on.

    Raises:
        PaiNNFastError: if the file belongs to another run; names what differs.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path, self.entries, self.damaged = path, {}, []
        if path.exists():
            self._read(header)
        make_folder(path.parent)
        self._file = path.open("a", encoding="utf-8")
        if not self._whole:
            self._write(header)
            sync_folder(path.parent)

    entries: dict[int, dict[str, Any]]
    damaged: list[int]
    """Numbers of lines that changed since they were written; their structures are labelled again."""
    _whole = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, index: int, entry: dict[str, Any]) -> None:
        """Labels of a structure, or the reason for which it has none."""
        self.entries[index] = entry
        self._write({"structure": index, **entry})

    def _write(self, line: dict[str, Any]) -> None:
        with space_for(self.path):
            self._file.write(signed_line(line) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _read(self, header: dict[str, Any]) -> None:
        """Read the entries of the file; a line that was cut off by the end of the process is removed."""
        text = self.path.read_bytes()
        end = text.rfind(b"\n") + 1
        first, *lines = text[:end].split(b"\n")[:-1] or [b""]
        if not end:
            return
        found, signed = self._header(first)
        if found != json.loads(json.dumps(header)):
            differ = [key for key in header if found.get(key) != json.loads(json.dumps(header[key]))]
            raise PaiNNFastError(
                "the journal belongs to another run",
                where=self.path,
                got="; ".join(f"{key} = {header[key]}" for key in differ),
                expected="; ".join(f"{key} = {found.get(key)}" for key in differ),
                fix="choose another output, or remove the journal",
            )
        for number, line in enumerate(lines, 2):
            entry = self._entry(line, signed)
            if entry is None:
                self.damaged.append(number)
            else:
                self.entries[entry.pop("structure")] = entry
        if end < len(text):
            os.truncate(self.path, end)
        self._whole = end

    def _header(self, line: bytes) -> tuple[dict[str, Any], bool]:
        """The header, and whether lines have hashes; those of earlier versions have none."""
        found = read_line(line)
        if found is not None:
            return found, True
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or LINE_FIELD in found:
            got = "a first line with another SHA-256 than written" if found else "a first line that is not JSON"
            raise PaiNNFastError("a damaged journal", where=self.path, got=got, fix="remove it")
        return found, False

    def _entry(self, line: bytes, signed: bool) -> dict[str, Any] | None:
        """The entry of a structure; None if the line is damaged."""
        try:
            entry = read_line(line) if signed else json.loads(line)
        except ValueError as error:
            raise PaiNNFastError("a damaged journal", where=self.path, got=str(error), fix="remove it") from None
        return entry if isinstance(entry, dict) and isinstance(entry.get("structure"), int) else None
