"""How a model behaves in dynamics: drift of the energy, and whether ring polymers stay where it knows its way."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.md import MDSettings, Trajectory, run

NVE, WIDE = 0.5, 0.25
"""Time of classical dynamics, and of RPMD with twice as many beads, over that of RPMD."""
EQUILIBRATION = 0.025
"""The same of the equilibration of each."""
TRAJECTORIES = 2
STEP, RECORD = 0.5, 10.0
"""fs: time step, and between records."""


@dataclass(frozen=True)
class Stability:
    """One run without a thermostat."""

    name: str
    picoseconds: float
    beads: int
    trajectories: int
    drift: float  # meV/atom/ps, of the conserved quantity, largest of the trajectories
    stopped: tuple[str, ...]  # by guards


def stability(
    model: Path, starts: Sequence[ase.Atoms], temperature: float, beads: int, length: float, folder: Path
) -> list[Stability]:
    """Classical NVE, and RPMD of `length` fs with so many beads and twice as many; the folder is removed."""
    kinds = (("NVE", NVE * length, 1), ("RPMD", length, beads), ("RPMD", WIDE * length, 2 * beads))
    return [_one(model, starts, temperature, *kind, EQUILIBRATION * length, folder) for kind in kinds]


def _one(
    model: Path,
    starts: Sequence[ase.Atoms],
    temperature: float,
    name: str,
    length: float,
    beads: int,
    equilibration: float,
    folder: Path,
) -> Stability:
    chosen = MDSettings(
        model=str(model),
        output=str(folder),
        ensemble="rpmd" if beads > 1 else "nve",
        beads=beads,
        trajectories=max(TRAJECTORIES, len(starts)),
        temperature=f"{temperature} K",
        time_step=f"{STEP} fs",
        equilibration=f"{equilibration} fs",
        duration=f"{length} fs",
        energies_every=f"{RECORD} fs",
    )
    try:
        run(chosen, atoms=list(starts), overwrite=True)
    except PaiNNFastError as error:
        if "guards stopped every trajectory" not in str(error):
            raise
    trajectory = Trajectory(folder)
    conserved, atoms = trajectory.energies["conserved"], len(trajectory.numbers)  # [T, S] eV
    times = np.arange(len(conserved)) * trajectory.interval("energies") / 1000.0  # ps
    slopes = [np.polyfit(times, one, 1)[0] for one in conserved.T if np.isfinite(one).all()]
    drift = 1000.0 * max(map(abs, slopes), default=float("nan")) / atoms
    stopped = tuple(f"{one['what']} at step {one['step']}" for one in trajectory.frozen)
    shutil.rmtree(folder)
    return Stability(name, length / 1000.0, beads, chosen.trajectories, drift, stopped)
