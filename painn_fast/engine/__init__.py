"""Inference without autograd: energies and hand-derived forces over the kernels."""

from painn_fast.engine.auto import check_backend, engine_for
from painn_fast.engine.cpu import CpuEngine, Workspace, supports

__all__ = ["CpuEngine", "Workspace", "check_backend", "engine_for", "supports"]
