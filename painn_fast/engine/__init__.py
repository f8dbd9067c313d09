"""Inference without autograd: energies and hand-derived forces over the kernels."""

from painn_fast.engine.cpu import CpuEngine, Workspace
from painn_fast.engine.select import GIVES, Engine, Evaluator, check_backend, engine_for, evaluator_for, supports

__all__ = [
    "GIVES",
    "CpuEngine",
    "Engine",
    "Evaluator",
    "Workspace",
    "check_backend",
    "engine_for",
    "evaluator_for",
    "supports",
]
