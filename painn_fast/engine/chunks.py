"""Division of a batch among threads of a CPU: chunks of whole molecules that stay in the cache, and threads' memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from painn_fast.engine.atom_blocks import Blocks, divide
from painn_fast.engine.passes_cpu import Pairs, Scratch, scratch
from painn_fast.graph import AtomicBatch
from painn_fast.kernels.simd import LANES

CHUNK_ATOMS = 144
"""Atoms in a chunk: more read the weights less often, fewer keep their features in the cache."""
NONE_EMBEDDED = np.empty((0, 0))
"""Until an engine gives its own features."""


@dataclass(frozen=True)
class Chunk:
    """Molecules that one thread evaluates together."""

    atoms: slice
    pairs: Pairs
    blocks: Blocks | None  # of one large molecule

    @property
    def size(self) -> int:
        """Atoms."""
        return self.atoms.stop - self.atoms.start


@dataclass(frozen=True)
class Workspace:
    """A graph, divided into chunks of whole molecules."""

    batch: AtomicBatch
    chunks: list[Chunk]

    @cached_property
    def molecule(self) -> np.ndarray:
        """Of each atom [N]."""
        return self.batch.molecule.numpy()

    @cached_property
    def largest(self) -> tuple[int, int]:
        """Atoms and pairs that a thread needs memory for."""
        return (
            max(chunk.size for chunk in self.chunks),
            max(len(chunk.pairs.receiver) for chunk in self.chunks),
        )

    def embedding(self, features: np.ndarray) -> Self:
        """The same with an engine's features before the first message [N, F], or none [0, F]."""
        chunks = [Chunk(one.atoms, one.pairs._replace(embedded=features[one.atoms]), one.blocks) for one in self.chunks]
        return type(self)(self.batch, chunks)


def divided(batch: AtomicBatch, threads: int) -> Workspace:
    """A batch in chunks; costs a few hundredths of an evaluation."""
    limit = min(CHUNK_ATOMS, max(LANES, -(-batch.n_total // threads)))
    ends, atoms = [0], 0
    for size in batch.n_atoms.tolist():
        if atoms > ends[-1] and atoms + size - ends[-1] > limit:
            ends.append(atoms)
        atoms += size
    ends.append(atoms)
    numbers, molecule, receiver, sender, shift, mirror = (
        t.numpy() for t in (batch.numbers, batch.molecule, batch.receiver, batch.sender, batch.shift, batch.mirror)
    )
    first = np.flatnonzero(np.arange(len(mirror)) < mirror)  # each edge whose opposite comes later stands for both
    receiver, sender, shift = receiver[first], sender[first], shift[first]
    bounds = np.searchsorted(receiver, ends).tolist()
    chunks = []
    for start, end, low, high in zip(ends[:-1], ends[1:], bounds[:-1], bounds[1:], strict=True):
        i, j = receiver[low:high] - start, sender[low:high] - start
        pairs = Pairs(numbers[start:end], i, j, shift[low:high], molecule[start:end], NONE_EMBEDDED)
        large = end - start > CHUNK_ATOMS  # which one molecule alone can be
        chunks.append(Chunk(slice(start, end), *(divide(pairs, threads) if large else (pairs, None))))
    return Workspace(batch, chunks)


class Memory:
    """Threads and the scratch of each, for engines that take turns at them."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._pool: ThreadPoolExecutor | None = None

    def threads(self, count: int) -> ThreadPoolExecutor:
        """The pool, of `count` threads when it is made."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(count, "painn-engine")
        return self._pool

    def scratch(self, kind: tuple[Any, ...], atoms: int, pairs: int) -> Scratch:
        """Of this thread, for networks of a kind, the further arguments of `scratch`; grown if a chunk needs more."""
        kinds: dict[tuple[Any, ...], Scratch] = self._local.__dict__.setdefault("kinds", {})
        have = kinds.get(kind)
        if have is None or len(have.gs) < atoms or len(have.distance) < pairs:
            have = kinds[kind] = scratch(atoms, pairs, *kind)
        return have

    def share(self, run: Callable[..., None], tasks: list[tuple[Any, ...]], threads: int) -> None:
        """run(*task) for all tasks in turn, by this thread and others; one that does not come in time is not waited
        for."""
        if threads == 1 or len(tasks) == 1:
            for task in tasks:
                run(*task)
            return
        turn = iter(tasks)  # one step of a list's iterator is atomic

        def take() -> None:
            for task in turn:
                run(*task)

        others = [self.threads(threads).submit(take) for _ in range(min(threads, len(tasks)) - 1)]
        try:
            take()
        finally:
            for other in others:
                if not other.cancel():
                    other.result()
