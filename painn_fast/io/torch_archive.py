"""The zip files of `torch.save`, read without `torch.load`.

All sizes in a file are checked against its bytes before memory is allocated, and nothing in it is decompressed or
executed. Tensors are views of the bytes read: a file cannot ask for more memory than it has.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from painn_fast.errors import PaiNNFastError, reading
from painn_fast.runtime.zip_directory import check_directory

MAX_PICKLE = 16 * 2**20
"""Bytes; the description of a model takes some 100 kB."""
MAX_WORD = 100
"""Bytes of an entry that is a single word."""
MAX_NOTE = 10_000
"""Bytes of a note."""
MAX_DIMENSIONS = 8

STORAGE_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
"""Classes of `torch` that a file names for its storages."""


@dataclass(frozen=True)
class StorageRecord:
    """A run of numbers in the file."""

    dtype: torch.dtype
    key: str
    length: int


@dataclass(frozen=True)
class TensorRecord:
    """A tensor as the file describes it; `TorchArchive.tensor` checks it and makes it."""

    storage: StorageRecord
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class TorchArchive:
    """A file of `torch.save`, open for reading.

    Args:
        path: the file.

    Raises:
        PaiNNFastError: if it is not such a file, or damaged, or written by another machinery (TorchScript, old torch).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._storages: dict[str, Tensor] = {}
        check_directory(self.path)
        with reading("not a readable file of torch.save", path):
            self._zip = zipfile.ZipFile(self.path)
        try:
            self._refuse_torchscript()
            self._entries = self._checked_entries()
            self._folder = self._find_folder()
        except PaiNNFastError:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def pickle(self) -> bytes:
        """The pickled description of what was saved."""
        return self._read(f"{self._folder}data.pkl", MAX_PICKLE)

    def note(self, name: str) -> bytes | None:
        """A small entry that another program put beside the data; None if there is none."""
        entry = f"{self._folder}{name}"
        return self._read(entry, MAX_NOTE) if entry in self._entries else None

    def tensor(self, record: TensorRecord) -> Tensor:
        """The tensor behind a record, a view of the file's bytes.

        Raises:
            PaiNNFastError: if size, stride or offset reach outside of the storage.
        """
        if not _fits(record):
            raise PaiNNFastError(
                "a tensor that reaches outside of its storage",
                where=f"{self.path}, storage '{record.storage.key}'",
                got=f"offset {record.offset}, size {record.size}, stride {record.stride}"[:200],
                expected=f"{record.storage.length} numbers",
            )
        if 0 in record.size:
            return torch.empty(record.size, dtype=record.storage.dtype)  # `_fits` has seen that its strides are numbers
        return self._storage(record.storage).as_strided(record.size, record.stride, record.offset)

    def _storage(self, record: StorageRecord) -> Tensor:
        name = f"{self._folder}data/{record.key}"
        if name not in self._storages:
            self._storages[name] = torch.frombuffer(bytearray(self._read(name)), dtype=torch.uint8)
        data = self._storages[name]
        if data.numel() != record.length * record.dtype.itemsize:
            raise PaiNNFastError(
                "a storage of another size than declared",
                where=f"{self.path}, storage '{record.key}'",
                got=f"{data.numel()} bytes",
                expected=f"{record.length} x {record.dtype}",
            )
        return data.view(record.dtype)

    def _read(self, name: str, limit: int | None = None) -> bytes:
        info = self._entries.get(name)
        if info is None:
            raise PaiNNFastError("a part of the file is missing", where=self.path, expected=name)
        if limit is not None and info.file_size > limit:
            got = f"{info.file_size} bytes"
            raise PaiNNFastError("too large a description", where=self.path, got=got, expected=f"at most {limit}")
        with reading("a damaged file", f"{self.path}, {name}"):  # its checksum does not fit, for one
            return self._zip.read(info)

    def _refuse_torchscript(self) -> None:
        """Checked first, because a TorchScript file has compressed entries, which are another error."""
        if any(name.endswith("/constants.pkl") for name in self._zip.namelist()):
            raise PaiNNFastError(
                "a TorchScript file (torch.jit.save, or spkdeploy of SchNetPack), which is code to be run",
                where=self.path,
                expected="weights as torch.save writes them",
                fix="give the best_model, .task or .ckpt that it was made of",
            )

    def _checked_entries(self) -> dict[str, zipfile.ZipInfo]:
        """Entries by name: none compressed, and together no larger than the file (no zip bombs)."""
        entries: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                where = f"{self.path}, {info.filename!r}"
                raise PaiNNFastError("a compressed entry, which torch.save does not write", where=where)
            if info.filename in entries:
                raise PaiNNFastError("two entries of one name", where=f"{self.path}, {info.filename!r}")
            entries[info.filename] = info
        if sum(info.file_size for info in entries.values()) > os.path.getsize(self.path):
            raise PaiNNFastError("entries that overlap", where=self.path)
        return entries

    def _find_folder(self) -> str:
        """The one folder that holds `data.pkl`, with its slash."""
        folders = [name.removesuffix("data.pkl") for name in self._entries if name.endswith("/data.pkl")]
        if len(folders) != 1 or folders[0].count("/") != 1:
            expected = "one data.pkl in one folder"
            raise PaiNNFastError("a zip file, but not one of torch.save", where=self.path, expected=expected)
        order = f"{folders[0]}byteorder"
        if order in self._entries and self._read(order, MAX_WORD).strip() != b"little":
            fix = "save it again on a current machine"
            raise PaiNNFastError("numbers in big-endian order", where=self.path, fix=fix)
        return folders[0]


def _fits(record: TensorRecord) -> bool:
    """Whether every element lies in the storage, and there are no more of them than numbers stored."""
    sizes, strides, length = record.size, record.stride, record.storage.length
    if len(sizes) != len(strides) or len(sizes) > MAX_DIMENSIONS:
        return False
    if not all(_count(number) for number in (record.offset, *sizes, *strides)):
        return False
    count, extent, last = 1, 1, record.offset
    for size, stride in zip(sizes, strides, strict=True):
        count *= size
        extent *= max(size, 1)
        last += (size - 1) * stride
    if extent >= 2**40:  # also of a tensor without elements: torch multiplies its sizes all the same
        return False
    return count == 0 or (last < length and count <= length)


def _count(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**40
