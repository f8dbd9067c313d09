"""HDF5 files from elsewhere, opened only as far as they are plain: numbers in groups, all of them in the file itself.

HDF5 can do much more: links to other files, data sets that are views of other files or lie outside, filters that load
code, objects of any size that take no room in the file. None of that is needed here, and all of it is refused before
anything is read.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

import h5py

from painn_fast.errors import PaiNNFastError, reading

MAX_OBJECTS = 10_000
MAX_DEPTH = 4
MAX_ATTRIBUTE = 64 * 2**20
"""Bytes."""
FILTERS = {h5py.h5z.FILTER_DEFLATE: 50, h5py.h5z.FILTER_SHUFFLE: 1, h5py.h5z.FILTER_FLETCHER32: 1}
"""Filters that need no plugin, and how many times as much data as bytes in the file they can give at most."""
HEAP = re.compile(b"GCOL\x01")
"""Begins a global heap: a collection of texts of any length, those of attributes for example."""


def open_hdf5(path: str | Path) -> h5py.File:
    """A file open for reading, every object in it seen to be plain.

    Raises:
        FileNotFoundError: if it does not exist.
        PaiNNFastError: if it cannot be opened, or holds what no file of ours holds; names the object.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(path)
    if not path.is_file():
        raise PaiNNFastError("not a readable HDF5 file", where=path, got="a folder or a device")
    with reading("not a readable HDF5 file", path):
        facts = path.stat()
        stamp = (str(path.absolute()), facts.st_ino, facts.st_size, facts.st_mtime_ns)
        if stamp not in _plain:
            _check_heaps(path)
        file = h5py.File(path, "r")
    try:
        with reading("a damaged HDF5 file", path):
            if stamp not in _plain:
                _check(file, path)
    except PaiNNFastError:
        file.close()
        raise
    _plain[stamp] = None
    while len(_plain) > REMEMBERED:
        del _plain[next(iter(_plain))]
    return file


REMEMBERED = 1_000
_plain: dict[tuple[str, int, int, int], None] = {}
"""Files that were seen to be plain, as they were: the series of a trajectory are read one after another."""


def _check(file: h5py.File, path: Path) -> None:
    size = path.stat().st_size
    _check_attributes(file, f"{path}, /")
    for name, item in _objects(file, path):
        where = f"{path}, '{name}'"
        _check_attributes(item, where)
        if isinstance(item, h5py.Dataset):
            _check_dataset(item, where, size)


def _objects(file: h5py.File, path: Path) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Everything in a file by its whole name; links that lead elsewhere are not followed but refused."""
    waiting: list[tuple[str, h5py.Group, int]] = [("", file, 0)]
    seen = 0
    while waiting:
        prefix, group, depth = waiting.pop()
        for key in group:
            seen += 1
            name = f"{prefix}{key}"
            if seen > MAX_OBJECTS or depth >= MAX_DEPTH:
                raise PaiNNFastError("an HDF5 file with too many objects or levels", where=path, expected=MAX_OBJECTS)
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise PaiNNFastError("a link to somewhere else", where=f"{path}, '{name}'", expected="data in the file")
            item = group[key]
            if not isinstance(item, h5py.Group | h5py.Dataset):
                raise PaiNNFastError("neither a group nor a data set", where=f"{path}, '{name}'")
            yield name, item
            if isinstance(item, h5py.Group):
                waiting.append((f"{name}/", item, depth + 1))


def _check_dataset(data: h5py.Dataset, where: str, file_size: int) -> None:
    settings = data.id.get_create_plist()
    if data.is_virtual or settings.get_external_count():
        raise PaiNNFastError("data that lie in other files", where=where, expected="data in the file")
    if data.shape is None or data.dtype.kind not in "fiub" or data.dtype.subdtype is not None:
        raise PaiNNFastError("not plain numbers", where=where, got=data.dtype, expected="integers or floating point")
    factor = 1
    for k in range(settings.get_nfilters()):
        number = settings.get_filter(k)[0]
        if number not in FILTERS:
            raise PaiNNFastError("a filter that is not one of ours", where=where, got=number, expected=list(FILTERS))
        factor *= FILTERS[number]
    stored, declared = data.id.get_storage_size(), math.prod(data.shape) * data.dtype.itemsize
    if stored > file_size or declared > stored * factor:
        raise PaiNNFastError(
            "a data set larger than what is stored of it",
            where=where,
            got=f"{data.shape} of {data.dtype}, {declared} bytes",
            expected=f"{stored} bytes in a file of {file_size}",
        )


def _check_attributes(item: h5py.Group | h5py.Dataset, where: str) -> None:
    """Attributes are numbers or texts, none of them huge."""
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        dtype = attribute.dtype
        text = h5py.check_string_dtype(dtype) is not None
        if attribute.shape is None or not (text or (dtype.kind in "fiub" and dtype.subdtype is None)):
            raise PaiNNFastError("an attribute that is neither text nor numbers", where=f"{where}, {name}", got=dtype)
        size = math.prod(attribute.shape) * dtype.itemsize
        if size > MAX_ATTRIBUTE:
            raise PaiNNFastError("too large an attribute", where=f"{where}, {name}", got=size, expected=MAX_ATTRIBUTE)


def _check_heaps(path: Path) -> None:
    """Refuse a global heap with an object of no size, or of more than the heap: libhdf5 goes from one to the next, with
    bytes counted modulo 2^64, and would not end."""
    if not path.stat().st_size:
        raise PaiNNFastError("an empty file", where=path)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for match in HEAP.finditer(data):
            if _stands_still(data, match.start()):
                got = f"a heap without end at byte {match.start()}"
                raise PaiNNFastError("a damaged HDF5 file", where=path, got=got)


def _stands_still(data: mmap.mmap, at: int) -> bool:
    """Whether the way along the objects of a heap, 16 bytes of header each, comes to one of no length or leaves it."""
    end = at + int.from_bytes(data[at + 8 : at + 16], "little")
    header = at + 16
    while header + 16 <= min(end, len(data)):
        index = int.from_bytes(data[header : header + 2], "little")
        size = int.from_bytes(data[header + 8 : header + 16], "little")
        length = size if index == 0 else 16 + (size + 7) // 8 * 8
        if length == 0 or header + length > end:
            return True
        header += length
    return False
