"""Inference without autograd: energies and hand-derived forces over the kernels."""

from painn_fast.engine.auto import GIVES, Engine, check_backend, engine_for, supports
from painn_fast.engine.cpu import CpuEngine, Workspace

__all__ = ["GIVES", "CpuEngine", "Engine", "Workspace", "check_backend", "engine_for", "supports"]
