"""The directory of a zip file, checked before `zipfile` builds an object for each of its entries."""

from __future__ import annotations

import re
from pathlib import Path

from painn_fast.errors import PaiNNFastError, reading

MAX_DIRECTORY = 4 * 2**20
"""Bytes; some 50,000 entries. A model has thousands, a data file some dozen."""
END, END_64, LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
TAIL = 2**16 + 100
"""Bytes at the end of a file that hold the end records, a comment of any length included."""


def check_directory(path: str | Path) -> None:
    """Raise PaiNNFastError if the zip file declares a directory larger than `MAX_DIRECTORY`."""
    with reading("not a readable zip file", path), open(path, "rb") as file:
        file.seek(max(0, file.seek(0, 2) - TAIL))
        tail = file.read(TAIL)
    ends = re.finditer(re.escape(END), tail)  # which one counts depends on the reader: none may declare too much
    size = max((_size(tail, end.start()) for end in ends), default=0)
    if size > MAX_DIRECTORY:
        raise PaiNNFastError(
            "a zip file with too many entries", where=path, got=f"a directory of {size} bytes", expected=MAX_DIRECTORY
        )


def _size(tail: bytes, at: int) -> int:
    """Bytes of the directory, from the end record at `at` or from its 64-bit companion before it."""
    size = int.from_bytes(tail[at + 12 : at + 16], "little")
    start = at - 76
    if start >= 0 and tail[start : start + 4] == END_64 and tail[at - 20 : at - 16] == LOCATOR_64:
        size = int.from_bytes(tail[start + 40 : start + 48], "little")
    return size
