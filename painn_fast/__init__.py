"""painn-fast: PaiNN, from a trained model to a spectrum."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if importlib.util.find_spec("painn_fast.kernels") is None:
    raise ImportError(
        "painn_fast is imported from its source folder, where painn_fast.kernels is not mapped; "
        "run `pip install -e .` in that folder, or run Python from another one"
    )

from painn_fast.errors import PaiNNFastError
from painn_fast.runtime.lazy import lazy

if TYPE_CHECKING:
    from painn_fast.ase import PaiNNCalculator
    from painn_fast.ensemble import Ensemble, Sum
    from painn_fast.evaluate import evaluate
    from painn_fast.io.load import load
    from painn_fast.schnetpack import accelerate, restore

__version__ = "0.1.0"
__all__ = ["Ensemble", "PaiNNCalculator", "PaiNNFastError", "Sum", "accelerate", "evaluate", "load", "restore"]

lazy(__name__)
