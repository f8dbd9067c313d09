"""Structures from files, through ASE."""

from __future__ import annotations

from pathlib import Path

import ase

from painn_fast.errors import PaiNNFastError
from painn_fast.io.ase_formats import iread


def read_structures(path: str | Path) -> list[ase.Atoms]:
    """All frames of a structure file in any format that ASE recognises; positions in Å.

    Raises:
        PaiNNFastError: if the file is not there, cannot be read or holds no frame.
    """
    if not Path(path).is_file():
        raise PaiNNFastError("no such structure file", where=path)
    try:
        frames = list(iread(path))
    except PaiNNFastError:
        raise
    except Exception as error:  # every reader of ASE fails in its own way
        raise PaiNNFastError(
            "not a readable structure file",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected="xyz, or another format of ASE",
        ) from None
    if not frames:
        raise PaiNNFastError("a structure file without structures", where=path)
    return list(frames)
