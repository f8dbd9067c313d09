"""Which structures are for training, validation and test: drawn, the file's own, or those of another training."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from painn_fast.errors import PaiNNFastError, reading
from painn_fast.runtime.atomic import atomic_write
from painn_fast.train.data.dataset import SPLITS, Dataset
from painn_fast.train.data.duplicates import duplicates, roots
from painn_fast.train.data.find import find_data
from painn_fast.train.data.frames import Frames
from painn_fast.train.settings import DataFile, SplitSizes

HEADER = ["file", "frame", "split"]


def split_of(
    frames: Frames, data: Dataset, source: DataFile, sizes: SplitSizes, path: Path, folder: str | Path
) -> np.ndarray:
    """0 training, 1 validation, 2 test, -1 for none [n]: by `use_as`, a split file, the file itself or a draw.

    Raises:
        PaiNNFastError: for an invalid split, or a split file of other data.
    """
    n = len(data)
    if source.use_as is not None:
        return np.full(n, SPLITS.index(source.use_as))
    if sizes.file is not None:
        file = Path(sizes.file)
        return _listed(data, source, file if file.is_file() else find_data(sizes.file, folder))
    own = own_split(frames, path)
    return draw(n, sizes, path, duplicates(data)) if own is None else own


def own_split(frames: Frames, path: Path) -> np.ndarray | None:
    """The split [n] that a file has itself, None if it has none.

    Raises:
        PaiNNFastError: unless each structure is in one of the three.
    """
    split, n = frames.split, len(frames)
    if split is None:
        return None
    where, got = f"{path}, 'split'", f"{split.dtype} {split.shape}"
    if split.shape == (n,) and split.dtype.kind in "iuf":
        wrong = np.flatnonzero(~np.isin(split, (0, 1, 2)))
        if not len(wrong):
            return split
        where = f"{where}, frame {frames.frames[wrong[0]]}"
        got = f"{split[wrong[0]]}, and none of the three in {len(wrong)} of {n} structures"
    raise PaiNNFastError(
        "wrong split",
        where=where,
        got=got,
        expected=f"{n} numbers: 0 train, 1 validation, 2 test; in extended XYZ also by these names",
    )


def draw(n: int, sizes: SplitSizes, path: Path, equal: np.ndarray | None = None) -> np.ndarray:
    """A split [n] by seed: so many for training and validation, the rest to test.

    Equal structures, pairs of rows `equal` [p, 2], come one after another, so that hardly any is in two splits.
    """
    train = sizes.train if sizes.train is not None else n - 2 * (n // 10)
    validation = sizes.validation if sizes.validation is not None else n // 10
    if train + validation > n:
        raise PaiNNFastError(
            "more structures requested than there are",
            where=path,
            got=f"{train} for training and {validation} for validation",
            expected=f"at most {n}",
            fix="change split.train and split.validation in the settings",
        )
    order = np.random.default_rng(sizes.seed).permutation(n)
    if equal is not None and len(equal):
        rank = np.argsort(order)
        order = np.lexsort((rank, rank[roots(equal, n)]))
    split = np.full(n, 2)
    split[order[:train]], split[order[train : train + validation]] = 0, 1
    return split


def write_split(data: Mapping[str, Dataset], path: str | Path) -> None:
    """Write file, frame and split of every structure as a CSV file that `split.file` in the settings takes."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for name, part in data.items():
            rows = zip(part.file.tolist(), part.frame.tolist(), strict=True)
            writer.writerows((part.files[k], frame, name) for k, frame in dict.fromkeys(rows))


def read_split_file(path: Path) -> dict[str, dict[int, int]]:
    """Split of each frame of each file.

    Raises:
        PaiNNFastError: naming the line.
    """
    table: dict[str, dict[int, int]] = {}
    with reading("cannot read the split", path), path.open(newline="", encoding="utf-8-sig") as stream:
        lines = list(csv.reader(stream))
    if not lines or lines[0] != HEADER:
        raise PaiNNFastError("not a split", where=path, expected=f"a first line {','.join(HEADER)}")
    for k, line in enumerate(lines[1:], 2):
        if len(line) != 3 or not line[1].isdecimal() or line[2] not in SPLITS:
            raise PaiNNFastError(
                "not a split", where=f"{path}, line {k}", got=",".join(line), expected=f"file,frame,{'|'.join(SPLITS)}"
            )
        frame, split = int(line[1]), SPLITS.index(line[2])
        before = table.setdefault(line[0], {}).setdefault(frame, split)
        if before != split:
            what, where = "a structure in two splits", f"{path}, line {k}"
            raise PaiNNFastError(what, where=where, got=f"{SPLITS[before]} and {line[2]}", expected="one of them")
    return table


def _listed(data: Dataset, source: DataFile, path: Path) -> np.ndarray:
    table = read_split_file(path).get(source.file, {})
    split = np.array([table.get(frame, -1) for frame in data.frame.tolist()], dtype=np.int64)
    foreign = table.keys() - set(data.frame.tolist())
    if foreign or not table:
        got = f"frame {min(foreign)} of {source.file}, which it lacks" if foreign else f"nothing of {source.file}"
        raise PaiNNFastError("the split is one of other data", where=path, got=got)
    return split
