"""Structures to label, from one geometry: beads of ring polymers on a cheap surface, and displaced minima."""

from __future__ import annotations

import shutil
from pathlib import Path

import ase
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.io.structures import read_structures, write_extxyz
from painn_fast.label.methods import How
from painn_fast.learn.displaced import near, strained
from painn_fast.learn.minima import Minimum, conformers, modes
from painn_fast.learn.pick import descriptors, spread_out
from painn_fast.learn.settings import SampleSettings
from painn_fast.learn.surface import MethodForces
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.runtime.progress import StatusLine
from painn_fast.vibrations.torsions import connected

SHARES = {"beads": 0.5, "hot beads": 0.25, "near": 0.1, "strained": 0.15}
"""Of the structures, by kind."""
POOL = 2
"""Beads that are sampled for each that is chosen."""
TIME_STEP, EVERY, EQUILIBRATION = 1.0, 12.0, 120.0
"""fs: of dynamics, between frames whose beads are candidates, and before the first. Samples need no exact dynamics."""
HOT = 2.0
"""Temperature of the hotter beads, over that of the others."""
TRAJECTORIES = 4


def sample(settings: SampleSettings, atoms: ase.Atoms | None = None) -> Path:
    """Sample structures of one molecule and write them as extended XYZ; `kind` of each is in its comment line.

    Args:
        settings: what to sample.
        atoms: instead of the settings' file.

    Returns:
        The file.

    Raises:
        PaiNNFastError: for a structure that is no molecule in vacuum, or a method that fails on it.

    Example:
        >>> from ase.build import molecule
        >>> from painn_fast.learn import SampleSettings, sample
        >>> settings = {"method": "model:ethanol", "count": 20, "beads": 4, "output": "sampled.xyz"}
        >>> sample(SampleSettings(**settings), molecule("CH3CH2OH"))
        PosixPath('sampled.xyz')
    """
    given = structure_of(settings.structure, atoms)
    output = Path(settings.output)
    if output.exists() and not settings.overwrite:
        raise PaiNNFastError("the output exists already", where=output, fix="choose another name, or use --overwrite")
    how = How(settings.method, settings.level, tuple(sorted(settings.options.items())))
    how.make()  # its errors are raised here, and not by each worker process
    with MethodForces(how, given, settings.workers) as surface:
        frames, _ = sampled(settings, given, surface, output.with_name(output.name + ".sampling"))
    write_extxyz(output, frames)
    return output


def structure_of(file: str | None, atoms: ase.Atoms | None) -> ase.Atoms:
    """The first structure of a file, unless one is given."""
    if atoms is not None:
        return atoms
    if file is None:
        raise PaiNNFastError("no structure to start from", where="structure", expected="a file that ASE reads")
    return read_structures(file)[0]


def sampled(
    settings: SampleSettings, given: ase.Atoms, surface: MethodForces, folder: Path
) -> tuple[list[ase.Atoms], list[Minimum]]:
    """Structures and the minima that they are about.

    Args:
        settings: what to sample.
        given: the molecule.
        surface: the cheap one.
        folder: for dynamics; removed at the end.
    """
    random = np.random.default_rng(settings.seed)
    with StatusLine() as status:
        minima = [modes(surface, one) for one in conformers(surface, given, seed=settings.seed, rdkit=settings.rdkit)]
        status.keep(f"{len(minima)} conformers on {surface.how.theory}, lines {_lines(minima[0])} cm-1")
    counts = {kind: round(settings.count * share) for kind, share in SHARES.items()}
    counts["beads"] += settings.count - sum(counts.values())
    candidates = {
        "beads": _beads(settings, minima, surface, folder, counts["beads"], settings.temperature, settings.beads),
        "hot beads": _beads(
            settings, minima, surface, folder, counts["hot beads"], HOT * settings.temperature, settings.beads // 2
        ),
    }
    frames: list[ase.Atoms] = []
    for kind, pool in candidates.items():
        frames += _named([pool[k] for k in spread_out(descriptors(pool), counts[kind])], kind)
    for k, minimum in enumerate(minima):
        share = {name: len(range(k, counts[name], len(minima))) for name in ("near", "strained")}
        frames += _named(near(minimum, share["near"], random), "near")
        frames += _named(strained(minimum, share["strained"], settings.temperature, random), "strained")
    shutil.rmtree(folder, ignore_errors=True)
    order = random.permutation(len(frames))
    return [frames[k] for k in order], minima


def evaluations(settings: SampleSettings) -> int:
    """Of the surface in dynamics, which are most of them."""
    total = 0
    for kind, beads in (("beads", settings.beads), ("hot beads", settings.beads // 2)):
        count = round(SHARES[kind] * settings.count)
        copies = max(min(TRAJECTORIES, count), 1) * max(beads, 1)
        total += round((EQUILIBRATION + EVERY * -(-POOL * count // copies)) / TIME_STEP) * copies
    return total


def _lines(minimum: Minimum) -> str:
    return " ".join(f"{line:.0f}" for line in minimum.wavenumber)


def _beads(
    settings: SampleSettings,
    minima: list[Minimum],
    surface: MethodForces,
    folder: Path,
    count: int,
    temperature: float,
    beads: int,
) -> list[ase.Atoms]:
    """Beads of ring polymers that start in all minima; those with other bonds are left out."""
    beads = max(beads, 1)
    trajectories = max(min(TRAJECTORIES, count), len(minima))
    frames = -(-POOL * count // (trajectories * beads))
    path = run(
        MDSettings(
            output=str(folder),
            ensemble="pile-l" if beads > 1 else "langevin",
            beads=beads,
            trajectories=trajectories,
            temperature=f"{temperature} K",
            time_step=f"{TIME_STEP} fs",
            equilibration=f"{EQUILIBRATION} fs",
            duration=f"{EVERY * max(frames, 1)} fs",
            positions_every=f"{EVERY} fs",
            seed=settings.seed,
        ),
        force_field=surface,
        atoms=[one.atoms for one in minima],
        overwrite=True,
    )
    positions = np.asarray(Trajectory(path).positions)
    bonds = connected(surface.atoms)
    every = surface.structures(positions.reshape(-1, *positions.shape[-2:]))
    return [one for one in every if np.isfinite(one.positions).all() and (connected(one) == bonds).all()]


def _named(frames: list[ase.Atoms], kind: str) -> list[ase.Atoms]:
    for frame in frames:
        frame.info["kind"] = kind
    return frames
