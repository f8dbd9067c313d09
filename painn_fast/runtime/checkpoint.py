"""Checkpoints: every tensor of a run in one safetensors file, every number in its header; nothing to unpickle.

A file has the SHA-256 of all of itself, so that a bit flipped anywhere is noticed, and the newest two are kept, so that
there is one to go on from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.runtime.atomic import atomic_write, space_for, sync_folder
from painn_fast.runtime.signature import FIELD, safetensors_intact, safetensors_text, signed_safetensors

T = TypeVar("T")

GO_ON = "free space there and go on with resume=True, on the command line --resume"
START_ANEW = "restore the file from a copy, or remove it to start anew"


def save(path: Path, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        PaiNNFastError: if there is no space.
    """
    flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_write(path, fix=GO_ON) as temporary:
        temporary.write_bytes(signed_safetensors(flat, "numbers", numbers))  # `save_file` leaves files when killed


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and numbers of a checkpoint.

    Raises:
        PaiNNFastError: if it cannot be read, has no hash, or is not what was written.
    """
    try:
        data = Path(path).read_bytes()
        tensors = from_bytes(data)
        numbers = json.loads(safetensors_text(data, "numbers") or "nothing")
    except (OSError, SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise PaiNNFastError("not a readable checkpoint", where=path, got=str(error)[:200], fix=START_ANEW) from None
    intact = safetensors_intact(data)
    if intact is None:
        raise PaiNNFastError(
            "a checkpoint without a hash", where=path, got=f"no {FIELD}: of an earlier version, or damaged",
            expected="the SHA-256 of the file in its header", fix=START_ANEW,
        )  # fmt: skip
    if not intact:
        raise PaiNNFastError("a damaged checkpoint", where=path, got="another SHA-256 than written", fix=START_ANEW)
    if not isinstance(numbers, dict):
        raise PaiNNFastError("not a readable checkpoint", where=path, got=type(numbers).__name__, fix=START_ANEW)
    return tensors, {name: value for name, value in numbers.items() if name != FIELD}


def save_newest(path: Path, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Write the newest checkpoint of a run and keep the one before; a reader finds a whole one at any moment.

    Raises:
        PaiNNFastError: if there is no space.
    """
    fresh, _, previous = names(path)
    save(fresh, tensors, numbers)
    with space_for(path, GO_ON):
        if path.exists():
            _keep(path, previous)
        os.replace(fresh, path)
        sync_folder(path.parent)


def _keep(path: Path, previous: Path) -> None:
    """Give a file a second name, so that it has its own until the next one takes it; else rename it."""
    second = previous.with_name(f".{previous.name}.{os.getpid()}.tmp")
    second.unlink(missing_ok=True)
    try:
        os.link(path, second)
    except OSError:  # not every file system can
        os.replace(path, previous)
        return
    try:
        os.replace(second, previous)
    finally:
        second.unlink(missing_ok=True)


def load_newest(path: Path, read: Callable[[Path], T]) -> tuple[T | None, list[PaiNNFastError]]:
    """The newest checkpoint that can be read, as `read` returns it, and the errors of newer ones.

    Args:
        path: that `save_newest` writes to.
        read: such as `load`; raises PaiNNFastError.

    Returns:
        None if there is no checkpoint; the errors that `read` raised for newer ones, their files in `where`.

    Raises:
        PaiNNFastError: if there are some, but none can be read.
    """
    failed: list[PaiNNFastError] = []
    for one in existing(path):
        try:
            return read(one), failed
        except PaiNNFastError as error:
            failed.append(PaiNNFastError(error.what, where=one, got=error.got, fix=error.fix))
    if not failed:
        return None, []
    if len(failed) == 1:
        raise failed[0]
    reasons = [f"{error.what}, {error.where.name} ({error.got})" for error in failed]
    raise PaiNNFastError(
        "no checkpoint here can be read", where=path.parent, got=" | ".join(reasons), fix=failed[0].fix
    )


def names(path: Path) -> tuple[Path, Path, Path]:
    """Paths of the checkpoints: one that has just been written, the newest, the one before."""
    return path.with_suffix(f".new{path.suffix}"), path, path.with_suffix(f".previous{path.suffix}")


def existing(path: Path) -> list[Path]:
    """The checkpoints that exist, the newest first."""
    return [one for one in names(path) if one.exists()]


def set_aside(failed: Sequence[PaiNNFastError]) -> None:
    """Rename files that cannot be read, so that none of them becomes the previous one."""
    for error in failed:
        path: Path = error.where
        base = path.name.partition(".")[0]
        os.replace(path, path.with_name(f"{base}.damaged{path.suffix}"))
