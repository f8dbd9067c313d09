"""Ring polymers on the committee's mean, until its spread passes a limit: what is fresh, and what to label next."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np

from painn_fast.ensemble import Ensemble
from painn_fast.errors import PaiNNFastError
from painn_fast.learn.pick import descriptors, spread_out
from painn_fast.learn.settings import LearnSettings
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.numpy_files import load_npz
from painn_fast.select import select
from painn_fast.vibrations.torsions import connected

TRAJECTORIES, HOTTER = 6, 2
"""At the temperature, and at twice that."""
EVERY = 10.0
"""fs between frames."""
EQUILIBRATED = 200.0
"""fs after which beads are those of an equilibrium."""
CANDIDATES = 3000
"""Beads whose spread is computed, at most."""
BY_SPREAD = 0.5
"""Share of the next structures that have the largest spread; the others are spread out over all beads."""
SAME = 1e-6
"""Å between positions in memory and in a file of text."""
NONSENSE = 5.0
"""eV/Å: a larger spread is taken for a structure that makes no sense."""


@dataclass(frozen=True)
class Explored:
    """Beads of an exploration."""

    fresh: list[ase.Atoms]  # at the temperature, in equilibrium; all at the temperature if there are too few
    all: list[ase.Atoms]  # with the bonds of the molecule
    stopped: tuple[str, ...]  # why trajectories were
    cold_stopped: int  # of those at the temperature


def explore(
    settings: LearnSettings, models: Sequence[Path], starts: Sequence[ase.Atoms], path: Path, seed: int
) -> None:
    """Run ring polymers with the committee, and write their beads to a file.

    Args:
        settings: of the run.
        models: the committee.
        starts: structures of the molecule.
        path: of the file, `.npz`; dynamics go into a folder beside it, which is removed.
        seed: of the dynamics.
    """
    folder = path.with_suffix("")
    cold, hot = settings.temperature, 2.0 * settings.temperature
    chosen = MDSettings(
        members=tuple(str(model) for model in models),
        spread_limit=f"{settings.spread_limit} eV/Ang",
        output=str(folder),
        ensemble="pile-l" if settings.beads > 1 else "langevin",
        beads=settings.beads,
        trajectories=TRAJECTORIES + HOTTER,
        temperature=[f"{cold} K"] * TRAJECTORIES + [f"{hot} K"] * HOTTER,
        duration=f"{EQUILIBRATED + settings.explore} fs",
        positions_every=f"{EVERY} fs",
        seed=seed,
    )
    try:
        run(chosen, atoms=list(starts), overwrite=True)
    except PaiNNFastError as error:  # what all trajectories did until guards stopped them is to be learned
        if "guards stopped every trajectory" not in str(error):
            raise
    trajectory = Trajectory(folder)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            positions=np.asarray(trajectory.positions),  # [T, S, P, n, 3] Å
            stopped=np.array([one["what"] for one in trajectory.frozen], dtype=np.str_),
            numbers=np.array([one["trajectory"] for one in trajectory.frozen], dtype=np.int64),
        )
    shutil.rmtree(folder)


def read_explored(path: Path, molecule: ase.Atoms, count: int = 1) -> Explored:
    """What `explore` wrote about a molecule; `count` beads are enough to be fresh."""
    arrays = load_npz(path)
    bonds = connected(molecule)

    def structures(positions: np.ndarray) -> list[ase.Atoms]:
        beads = positions.reshape(-1, *positions.shape[-2:])
        frames = [molecule.copy() for _ in beads]
        for frame, bead in zip(frames, beads, strict=True):
            frame.positions = bead
        return [frame for frame in frames if np.isfinite(frame.positions).all()]

    positions = arrays["positions"][1:]  # at the start all beads coincide
    every = [one for one in structures(positions) if (connected(one) == bonds).all()]
    cold = positions[:, :TRAJECTORIES]
    fresh = structures(cold[round(EQUILIBRATED / EVERY) :])
    if len(fresh) < count:
        fresh = structures(cold)
    cold_stopped = int((arrays["numbers"] < TRAJECTORIES).sum())
    return Explored(fresh, every, tuple(arrays["stopped"].tolist()), cold_stopped)


def fresh_beads(explored: Explored, count: int, random: np.random.Generator) -> list[ase.Atoms]:
    """Beads at random, to be held out."""
    rows = random.permutation(len(explored.fresh))[:count]
    return [explored.fresh[k] for k in rows]


def next_structures(
    explored: Explored,
    models: Sequence[Path],
    known: Sequence[ase.Atoms],
    fresh: Sequence[ase.Atoms],
    count: int,
    random: np.random.Generator,
) -> list[ase.Atoms]:
    """Half of them where the committee's spread is largest, half spread out over beads, far from what is known.

    Args:
        explored: beads to choose from.
        models: the committee.
        known: structures that are labelled already.
        fresh: beads that are held out, and not chosen.
        count: how many.
        random: of the candidates.
    """
    held_out = np.array([one.positions for one in fresh])
    free = [one for one in explored.all if np.abs(held_out - one.positions).max(axis=(1, 2)).min() > SAME]
    pool = [free[k] for k in random.permutation(len(free))[:CANDIDATES]]
    selection = select(Ensemble(models), pool, round(BY_SPREAD * count), spread_below=NONSENSE)
    doubtful = [pool[k] for k in selection.chosen]
    possible = selection.spread < NONSENSE
    possible[selection.chosen] = False
    left = [pool[k] for k in np.flatnonzero(possible)]
    others = spread_out(descriptors(left), count - len(doubtful), descriptors([*known, *doubtful]))
    frames = [*doubtful, *(left[k] for k in others)]
    return [frames[k] for k in random.permutation(len(frames))]
