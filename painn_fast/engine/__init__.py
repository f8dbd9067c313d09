"""Inference without autograd: energies and hand-derived forces over the kernels."""

from painn_fast.engine.cpu import CpuEngine, Workspace
from painn_fast.engine.select import Engine, Evaluator, check_backend, engine_for, evaluator_for, refusal

__all__ = [
    "CpuEngine",
    "Engine",
    "Evaluator",
    "Workspace",
    "check_backend",
    "engine_for",
    "evaluator_for",
    "refusal",
]
