"""One large molecule on several threads: blocks of atoms, and rounds of pairs in which no two tasks share a block.

Every atom is written by one task at a time, in the order of the rounds, so that results do not depend on the number of
threads. Rounds are those of a tournament: with an even number of blocks, each meets another one in each round.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from painn_fast.engine.passes_cpu import (
    ATOMS_BACKWARD,
    ATOMS_FORWARD,
    GEOMETRY,
    PAIRS_BACKWARD,
    PAIRS_FORWARD,
    EngineWeights,
    Pairs,
    Scratch,
    finish,
    step,
)
from painn_fast.kernels.dense.cpu import aligned

BLOCK_ATOMS = 162
"""Atoms in a block, at most."""
Shares = list[np.ndarray]
"""For each thread, ranges [R, 2] of atoms or pairs: first and last + 1."""


@dataclass(frozen=True)
class Blocks:
    """How threads divide the work on a molecule."""

    atoms: Shares
    pairs: Shares
    rounds: list[Shares]  # of pairs, in turn


def divide(pairs: Pairs, threads: int) -> tuple[Pairs, Blocks]:
    """The pairs of one molecule in an order that depends on the molecule alone, and the work of each thread."""
    n = len(pairs.numbers)
    count = 4 * -(-n // (4 * BLOCK_ATOMS))
    bounds = np.linspace(0, n, count + 1).astype(np.int64)
    a, b = (np.searchsorted(bounds, atom, side="right") - 1 for atom in (pairs.receiver, pairs.sender))
    a, b = np.minimum(a, b), np.maximum(a, b)
    meeting = np.where(b == count - 1, 2 * a, a + b) % (count - 1) + 1
    task = np.where(a == b, 0, meeting) * count + a  # a is the lower block of one task a round
    order = np.argsort(task, kind="stable")
    ends = np.searchsorted(task[order], np.arange(count * count + 1))
    ranges = np.stack([ends[:-1], ends[1:]], axis=1).reshape(count, count, 2)
    receiver, sender, shift = (array[order] for array in (pairs.receiver, pairs.sender, pairs.shift))
    rows = np.stack([bounds[:-1], bounds[1:]], axis=1)
    blocks = Blocks(
        _shares(rows, threads), _shares(ranges.reshape(-1, 2), threads), [_shares(tasks, threads) for tasks in ranges]
    )
    return pairs._replace(receiver=receiver, sender=sender, shift=shift), blocks


def _shares(tasks: np.ndarray, threads: int) -> Shares:
    """Tasks [T, 2] divided: the largest first, each to the thread with the least work so far."""
    sizes = tasks[:, 1] - tasks[:, 0]
    owner, load = np.zeros(len(tasks), np.int64), np.zeros(threads)
    for task in np.argsort(-sizes, kind="stable"):
        owner[task] = load.argmin()
        load[owner[task]] += sizes[task]
    parts = [tasks[(owner == thread) & (sizes > 0)] for thread in range(threads)]
    return [part for part in parts if len(part)]


def energy_and_forces_by_blocks(
    w: EngineWeights, g: Pairs, m: Scratch, blocks: Blocks, pool: ThreadPoolExecutor, positions: np.ndarray,
    want_forces: bool, energies: np.ndarray, forces: np.ndarray, virial: np.ndarray,
) -> None:  # fmt: skip
    """As `passes_cpu.energy_and_forces` to the last bit, by several threads."""

    call: Callable[..., None] = step
    threads = max(map(len, (blocks.atoms, blocks.pairs, *blocks.rounds)))
    memory = [m, *(m._replace(filters=aligned(m.filters.shape, m.filters.dtype)) for _ in range(1, threads))]

    def run(which: int, k: int, shares: Shares) -> None:
        given = zip(memory, shares, strict=False)  # a round may have fewer shares than there are threads
        tasks = [(w, g, own, positions, want_forces, energies, which, k, share) for own, share in given]
        others = [pool.submit(call, *task) for task in tasks[1:]]
        for task in tasks[:1]:
            call(*task)
        for one in others:
            one.result()

    layers = len(m.kept.x)
    run(GEOMETRY, 0, blocks.pairs)
    for k in range(layers + 1):
        run(ATOMS_FORWARD, k, blocks.atoms)
        for shares in blocks.rounds if k < layers else ():
            run(PAIRS_FORWARD, k, shares)
    if want_forces:
        for k in reversed(range(layers)):
            run(ATOMS_BACKWARD, k, blocks.atoms)
            for shares in blocks.rounds:
                run(PAIRS_BACKWARD, k, shares)
        finish(w, g, m, positions, forces, virial)
