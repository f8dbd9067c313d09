"""Which module of an operation runs on a device: `cpu.py`, `triton.py`, or `reference.py` where there is neither."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any


@cache
def backend(operation: str, device: str) -> Any:
    """The module for a type of device, such as "cuda"; Triton is imported with the first call for a GPU."""
    on_gpu = "triton" if find_spec("triton") else "reference"
    return import_module(f"painn_fast.kernels.{operation}.{ {'cpu': 'cpu', 'cuda': on_gpu}.get(device, 'reference') }")
