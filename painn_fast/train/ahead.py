"""What a first training needs last is compiled by a process beside it, while it compiles what it needs first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from painn_fast.kernels.jit import is_kept
from painn_fast.kernels.network import passes_cpu

AHEAD = ("gradients of forces", "energies and forces")
"""Kinds of work of `painn_fast.warm`, which is above this package, in the order in which they are needed."""


@contextmanager
def compiling_ahead(wanted: bool = True) -> Iterator[None]:
    """Compile beside what runs inside, a training on forces on a CPU, if it has two threads and the code is not kept.

    Of two processes that need the same code one compiles it, and the other takes it. The one beside ends with what runs
    inside at the latest, and what it cannot do is left to that.
    """
    if not (wanted and sys.executable) or torch.get_num_threads() == 1 or is_kept(passes_cpu.dual_reverse):
        yield
        return
    quiet = subprocess.DEVNULL
    with subprocess.Popen(_command(), stdin=quiet, stdout=quiet, stderr=quiet) as process:
        try:
            yield
        finally:
            process.kill()


def _command() -> list[str]:
    return [sys.executable, "-m", "painn_fast.warm", *AHEAD]
