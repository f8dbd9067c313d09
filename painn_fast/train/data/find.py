"""Where a data file is."""

from __future__ import annotations

from pathlib import Path

from painn_fast.errors import PaiNNFastError
from painn_fast.train.settings import CONFIGS


def find_data(file: str, folder: str | Path) -> Path:
    """The file in `folder`, or the one of that name that comes with the shipped configurations.

    `folder` may be the file itself, where a configuration has only one; also QM9's folder of files, by its name.
    """
    own, shipped = Path(folder) / file, CONFIGS / file
    if Path(folder).is_file() or (Path(folder).is_dir() and Path(folder).name == file and not own.exists()):
        return Path(folder)
    return shipped if shipped.is_file() and not own.exists() else own


def existing_data(file: str, folder: str | Path) -> Path:
    """As `find_data`.

    Raises:
        PaiNNFastError: if there is no such file.
    """
    path = find_data(file, folder)
    if not path.exists():
        raise PaiNNFastError("no such data file", where=path, fix="name the folder of the data with --data")
    return path
