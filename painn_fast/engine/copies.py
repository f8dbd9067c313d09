"""Many copies of one structure at once: chunks that stay in the processor's cache, one thread a chunk."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from painn_fast.engine.cpu import CpuEngine, Workspace
from painn_fast.graph import AtomicBatch, concatenate
from painn_fast.nn import Potential

CHUNK_ATOMS = 160
"""Atoms in a chunk: its features take about a megabyte a layer."""


class CopiesEngine:
    """Evaluates B copies of one structure in vacuum whose list of all pairs never changes.

    How copies are divided depends on B alone, so that results do not depend on the number of threads.

    Args:
        potential: a model that `engine.supports` accepts.
        one: the structure, a batch of one molecule.
        threads: None takes torch's number.
    """

    def __init__(self, potential: Potential, one: AtomicBatch, *, threads: int | None = None) -> None:
        self.engine, self.one = CpuEngine(potential), one
        self.threads = threads or torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._local = threading.local()

    def chunk_size(self, copies: int) -> int:
        """Copies in a chunk: at least two chunks, none larger than the cache likes."""
        return max(1, min(CHUNK_ATOMS // self.one.n_total, -(-copies // 2)))

    def __call__(self, positions: Tensor, properties: Sequence[str] = ("energy", "forces")) -> dict[str, Tensor]:
        """Properties [B, ...] at positions [B, N, 3] Å; forces [B, N, 3]."""
        chunks = positions.split(self.chunk_size(len(positions)))
        if self.threads == 1 or len(chunks) == 1:
            parts = [self._evaluate(chunk, properties) for chunk in chunks]
        else:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(
                    self.threads, "engine", initializer=torch.set_num_threads, initargs=(1,)
                )
            parts = list(self._pool.map(self._evaluate, chunks, [properties] * len(chunks)))
        return {name: torch.cat([part[name] for part in parts]) for name in properties}

    def _evaluate(self, chunk: Tensor, properties: Sequence[str]) -> dict[str, Tensor]:
        results = self.engine(self._workspace(len(chunk)), chunk.reshape(-1, 3), properties)
        if "forces" in results:
            results["forces"] = results["forces"].view_as(chunk)
        return results

    def _workspace(self, copies: int) -> Workspace:
        """Each thread has memory of its own."""
        spaces: dict[int, Workspace] = self._local.__dict__.setdefault("spaces", {})
        if copies not in spaces:
            spaces[copies] = self.engine.workspace(concatenate([self.one] * copies))
        return spaces[copies]
