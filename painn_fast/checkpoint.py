"""Checkpoints: every tensor of a run in one safetensors file, every number in its header; nothing to unpickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes
from torch import Tensor

from painn_fast.atomic import atomic_write
from painn_fast.errors import PaiNNFastError

GO_ON = "free space there and go on with resume=True, on the command line --resume"


def save(path: Path, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Write a checkpoint; it is either whole or not there.

    Raises:
        PaiNNFastError: if there is no space.
    """
    flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_write(path, fix=GO_ON) as temporary:
        temporary.write_bytes(as_bytes(flat, {"numbers": json.dumps(numbers)}))  # `save_file` leaves files when killed


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and numbers of a checkpoint.

    Raises:
        PaiNNFastError: if it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads((file.metadata() or {})["numbers"])
            return {name: file.get_tensor(name) for name in file.keys()}, numbers  # noqa: SIM118  not a dictionary
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise PaiNNFastError(
            "not a readable checkpoint", where=path, got=str(error), fix="remove it to start anew"
        ) from None
