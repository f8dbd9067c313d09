"""painn-fast: PaiNN, from a trained model to a spectrum."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if importlib.util.find_spec("painn_fast.kernels") is None:
    raise ImportError(
        "painn_fast is imported from its source folder, where painn_fast.kernels is not mapped; "
        "run `pip install -e .` in that folder, or run Python from another one"
    )

from painn_fast.errors import PaiNNFastError

if TYPE_CHECKING:
    from painn_fast.ase import PaiNNCalculator
    from painn_fast.ensemble import Ensemble
    from painn_fast.evaluate import evaluate
    from painn_fast.io.load import load
    from painn_fast.schnetpack import accelerate, restore

__version__ = "0.1.0"
__all__ = ["Ensemble", "PaiNNCalculator", "PaiNNFastError", "accelerate", "evaluate", "load", "restore"]

_HOME = {
    "Ensemble": "painn_fast.ensemble",
    "PaiNNCalculator": "painn_fast.ase",
    "accelerate": "painn_fast.schnetpack",
    "evaluate": "painn_fast.evaluate",
    "load": "painn_fast.io",
    "restore": "painn_fast.schnetpack",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import painn_fast` and the command's help do not wait for torch."""
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'painn_fast' has no attribute '{name}'")


class _Package(ModuleType):
    """Keeps `painn_fast.evaluate` the function: importing the module of that name would put the module in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOME and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
