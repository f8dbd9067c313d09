"""Files with a checksum: the SHA-256 of a whole file, kept inside it and counted as zeros.

A safetensors file keeps it in the JSON text of its header, an archive of NumPy's (.npz) in the comment at its end.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any

import numpy as np
from safetensors.torch import save as as_safetensors
from torch import Tensor

FIELD = "file_sha256"
BLANK = "0" * 64
_MARK = json.dumps(f'"{FIELD}": "')[1:-1].encode()
"""Text before the hash in a header, where JSON is a string within JSON."""


def signed_safetensors(tensors: dict[str, Tensor], key: str, values: dict[str, Any]) -> bytes:
    """A safetensors file with `values` as JSON under `key` of its header, and its SHA-256 among them."""
    data = as_safetensors(tensors, {key: json.dumps({FIELD: BLANK, **values})})  # first: `values` may have such a key
    start = _hash_position(data)
    assert start is not None
    return data[:start] + hashlib.sha256(data).hexdigest().encode() + data[start + len(BLANK) :]


def safetensors_intact(data: bytes) -> bool | None:
    """Whether a file is what was written; None if it has no hash."""
    start = _hash_position(data)
    if start is None:
        return None
    end = start + len(BLANK)
    digest = hashlib.sha256(data[:start])
    digest.update(BLANK.encode())
    digest.update(memoryview(data)[end:])
    return data[start:end] == digest.hexdigest().encode()


def safetensors_text(data: bytes, key: str) -> str | None:
    """A text in the header of a safetensors file; None if there is none.

    Raises:
        ValueError: if the header is not what the format asks for.
    """
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    texts = header.get("__metadata__") if isinstance(header, dict) else None
    text = texts.get(key) if isinstance(texts, dict) else None
    return text if isinstance(text, str) else None


def _hash_position(data: bytes) -> int | None:
    mark = data.find(_MARK, 8, 8 + int.from_bytes(data[:8], "little"))
    return mark + len(_MARK) if mark >= 0 else None


def signed_npz(arrays: dict[str, np.ndarray]) -> bytes:
    """An uncompressed archive of NumPy's with its SHA-256 as the comment."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # before NumPy 2.1, allow_pickle=False would be an array of that name
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = BLANK.encode()
    data = buffer.getvalue()[: -len(BLANK)]
    return data + hashlib.sha256(data).hexdigest().encode()


def npz_intact(data: bytes) -> bool:
    """Whether an archive is what `signed_npz` made."""
    return data[-len(BLANK) :] == hashlib.sha256(memoryview(data)[: -len(BLANK)]).hexdigest().encode()


def signed_line(values: dict[str, Any]) -> str:
    """JSON on one line that ends with its own SHA-256, without a line break."""
    text = json.dumps(values)
    return f'{text[:-1]}, "{LINE_FIELD}": "{hashlib.sha256(text.encode()).hexdigest()}"}}'


LINE_FIELD = "line_sha256"


def read_line(line: bytes) -> dict[str, Any] | None:
    """The values of a line of `signed_line`; None if it is anything else."""
    end = len(f', "{LINE_FIELD}": "{BLANK}"}}')
    try:
        values = json.loads(line[:-end] + b"}")
        intact = signed_line(values).encode() == line
    except (ValueError, TypeError, RecursionError):
        return None
    return values if intact else None
