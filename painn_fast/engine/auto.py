"""Which backend evaluates a model."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch

from painn_fast.engine.cpu import CpuEngine, supports
from painn_fast.errors import PaiNNFastError
from painn_fast.nn import Potential

BACKENDS = ("auto", "fused", "reference")

_engines: WeakKeyDictionary[Potential, tuple[tuple[tuple[int, int], ...], CpuEngine]] = WeakKeyDictionary()


def check_backend(backend: str) -> None:
    """Raise PaiNNFastError for a name that is none of `BACKENDS`."""
    if backend not in BACKENDS:
        raise PaiNNFastError("unknown backend", got=repr(backend), expected=" | ".join(BACKENDS))


def engine_for(potential: Potential, backend: str = "auto") -> CpuEngine | None:
    """The engine of a model, or None for the reference.

    "auto" takes the engine for float32 networks that it can run; a float64 network asks for exact numbers and gets the
    reference. An engine is kept with its model and made anew once the weights have changed.

    Raises:
        PaiNNFastError: for "fused" where the engine cannot run the model.
    """
    check_backend(backend)
    if backend == "reference" or (backend == "auto" and potential.dtype != torch.float32):
        return None
    if not supports(potential):
        if backend == "auto":
            return None
        raise PaiNNFastError(
            "the fused backend cannot run this model",
            where=f"model '{potential.config.name}'",
            expected="a model with an energy, silu, no ablation, no charge or spin embedding, on a CPU",
            fix='use backend="auto" or "reference"',
        )
    weights = tuple((parameter.data_ptr(), parameter._version) for parameter in potential.parameters())
    known = _engines.get(potential)
    if known is None or known[0] != weights:
        known = _engines[potential] = (weights, CpuEngine(potential))
    return known[1]
