"""What a verb was given, refused before anything is imported that takes seconds: names of files, units, types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from painn_fast.errors import PaiNNFastError

EXTXYZ, HDF5 = (".xyz", ".extxyz"), (".h5", ".hdf5")
"""Endings of outputs."""


def check_model(
    model: str, options: Mapping[str, Any] | None = None, *, dtype: str | None = None, device: str | None = None
) -> None:
    """Refuse a model that does not exist, or options that no model takes; as `painn_fast.load`, without torch."""
    from painn_fast.io.find import check_names, find

    check_names(dtype=dtype, device=device, **(options or {}))
    find(model)


def check_files(*paths: str | Path | None, kind: str = "structure") -> None:
    """Refuse the first file that does not exist; None is a file that was not given."""
    for path in paths:
        if path is not None and not Path(path).exists():
            raise PaiNNFastError(f"no such {kind} file", where=path)


def check_output(output: Path | None, endings: Sequence[str], inputs: Sequence[Path] = ()) -> None:
    """Refuse an output whose ending readers take for another format, or that is one of the inputs."""
    if output is None:
        return
    if output.suffix not in endings:
        raise PaiNNFastError("unknown kind of output", got=output.name, expected=" | ".join(endings))
    if any(output.exists() and output.samefile(path) for path in inputs if path.exists()):
        raise PaiNNFastError("the output is the input", where=output, fix="choose another name")
