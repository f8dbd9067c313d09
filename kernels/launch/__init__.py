"""Launches of GPU kernels: data, one file a GPU, read once; `python -m painn_fast.kernels.tools.tuning` writes one."""

from __future__ import annotations

import difflib
import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Launches = dict[str, dict[str, int]]
"""Numbers of each launch, by its name; README.md explains them."""
FOLDER = Path(__file__).parent
VARIABLE = "PAINN_FAST_TUNING"
"""Environment variable with a folder that is searched before this one."""
LARGEST = {
    "atoms": 8, "features": 8, "warps": 32, "rows": 256, "programs": 2**20, "columns": 1024, "elements": 2**14
}  # fmt: skip
MEASURED = {"date", "driver", "versions"}


def launches(device: torch.device | None = None) -> Launches:
    """Launches of a device: as measured for GPUs of its name, else the default."""
    if device is None or device.type != "cuda":
        return default()
    return _of_gpu(device.index)


@lru_cache(maxsize=1)
def default() -> Launches:
    """`default.json`."""
    return read(FOLDER / "default.json")


@lru_cache
def _of_gpu(index: int | None) -> Launches:
    return named(torch.cuda.get_device_name(index))


@lru_cache
def named(gpu: str) -> Launches:
    """For a GPU, by its name as torch has it; a launch that its file leaves out is the default's."""
    of_gpu: Launches = {}
    for folder in (os.environ.get(VARIABLE), FOLDER):
        if folder and (path := Path(folder) / file_name(gpu)).is_file():
            of_gpu = read(path, default())
            break
    return {name: of_gpu.get(name, numbers) for name, numbers in default().items()}


@lru_cache
def multiprocessors(device: torch.device | None = None) -> int:
    """Of a GPU; of an H200 where kernels are interpreted, or compiled alone."""
    if device is None or device.type != "cuda":
        return 132
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def require_contiguous(*tensors: Tensor | None) -> None:
    """Kernels that compute addresses from shapes alone read and write the wrong numbers in other memory.

    Raises:
        ValueError: with the number, the shape and the strides of the first one that is not contiguous.
    """
    for k, tensor in enumerate(tensors):
        if tensor is not None and not tensor.is_contiguous():
            got = f"tensor {k}, shape {tuple(tensor.shape)}, strides {tensor.stride()}"
            raise ValueError(f"kernels need contiguous tensors; got: {got}; fix: pass tensor.contiguous()")


def file_name(gpu: str) -> str:
    """nvidia-h200.json for "NVIDIA H200"."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-") + ".json"


def read(path: Path, known: Launches | None = None) -> Launches:
    """The launches of a file, which must be among the `known` ones and have the same numbers.

    Raises:
        ValueError: for anything that README.md does not allow.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _invalid("not a JSON file", path, got=error) from None
    _require_keys(content, {"format", "gpu", "measured", "launches"}, path, "the top")
    if content["format"] != 1:
        raise _invalid("another format", f"{path}, format", got=content["format"], expected=1)
    if known is not None:
        if not isinstance(content["gpu"], str) or file_name(content["gpu"]) != path.name:
            expected = f"the name of the GPU whose file is {path.name}"
            raise _invalid("another GPU", f"{path}, gpu", got=content["gpu"], expected=expected)
        _require_keys(content["measured"], MEASURED, path, "measured")
    if not isinstance(content["launches"], dict):
        raise _invalid("no launches", f"{path}, launches", got=content["launches"], expected="an object")
    for name, numbers in content["launches"].items():
        if known is not None and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise _invalid("no such kernel", f"{path}, launches", got=name, expected=(close or [", ".join(known)])[0])
        _check(numbers, set(LARGEST if known is None else known[name]), f"{path}, launches, {name}", known is None)
    return dict(content["launches"])


def _check(numbers: Any, keys: set[str], where: str, some: bool) -> None:
    if not isinstance(numbers, dict) or (set(numbers) - keys if some else set(numbers) != keys):
        raise _invalid("not the numbers of this launch", where, got=numbers, expected=", ".join(sorted(keys)))
    for key, value in numbers.items():
        if type(value) is not int or not 1 <= value <= LARGEST[key] or value & (value - 1):
            expected = f"a power of two from 1 to {LARGEST[key]}"
            raise _invalid("not a number that can be launched", f"{where}, {key}", got=repr(value), expected=expected)


def _require_keys(content: Any, keys: set[str], path: Path, at: str) -> None:
    if not isinstance(content, dict) or set(content) != keys:
        got = ", ".join(sorted(content)) if isinstance(content, dict) else content
        raise _invalid("not the keys of a tuning file", f"{path}, {at}", got=got, expected=", ".join(sorted(keys)))


def _invalid(what: str, where: Any, *, got: Any, expected: Any = None) -> ValueError:
    """The same parts as in errors of the package, which kernels do not import."""
    parts = {"where": where, "got": got, "expected": expected}
    known = [what, *(f"{name}: {value}" for name, value in parts.items() if value is not None)]
    return ValueError(
        "; ".join(known) + "; fix: delete the file, or write it anew by `python -m painn_fast.kernels.tools.tuning`"
    )
