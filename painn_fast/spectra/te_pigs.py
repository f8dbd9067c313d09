"""Te-PIGS: a potential for classical dynamics whose vibrations are those of quantum nuclei.

Path integrals at an elevated temperature T_e give pairs of a centroid and the mean force over its beads. Its
difference to the force of the potential at the centroid is learned, as a correction to the potential; classical
dynamics at the temperature of interest runs on the sum. Musil, Zaporozhets, Noé, Clementi, Kapil, J. Chem. Phys. 157,
181102 (2022).

T_e is elevated since the centroid of a wide ring polymer that bends around the centre of a rotation lies inside the
arc, which shifts stretches to the red the more the colder it is; zero-point motion, which the correction is to contain,
is the same at T_e as long as kB T_e is well below the quantum of a vibration.
"""

from __future__ import annotations

import shutil
from typing import Any

import ase
import numpy as np
import torch
from ase.calculators.singlepoint import SinglePointCalculator

from painn_fast import md, train
from painn_fast.errors import PaiNNFastError
from painn_fast.io import load
from painn_fast.io.structures import write_extxyz
from painn_fast.md import ForceField, ModelForces, Trajectory
from painn_fast.runtime.ranks import rank_and_world_size
from painn_fast.spectra.mean_force import mean_forces
from painn_fast.spectra.settings import CORRECTION, SpectrumSettings
from painn_fast.vibrations.internal_coordinates import bonds

DATASET = "centroids.xyz"
CHUNK = 256
"""Copies that are evaluated at once."""


def train_correction(settings: SpectrumSettings, start: list[ase.Atoms], *, resume: bool, overwrite: bool) -> None:
    """Sample, write the differences of forces, train: each stage goes on where it was interrupted.

    Args:
        settings: with the method te-pigs.
        start: structures that the path integrals start from in turn.
        resume: go on.
        overwrite: replace an earlier correction.

    Raises:
        PaiNNFastError: as `painn_fast.md.run` and `painn_fast.train.run`; under `torchrun`.
    """
    if rank_and_world_size()[1] > 1:
        raise PaiNNFastError("te-pigs trains in a single process", got="torchrun", fix="start without torchrun")
    folder = settings.folder / CORRECTION.parts[0]
    training = settings.folder / CORRECTION.parent
    if overwrite:
        shutil.rmtree(training, ignore_errors=True)
    sampling = settings.sampling()
    spread = np.linspace(0, len(start) - 1, min(len(start), sampling.trajectories)).round().astype(int)
    some = [start[k] for k in spread]  # of all conformers
    trajectory = Trajectory(md.run(sampling, atoms=some, resume=resume, overwrite=overwrite))
    model = load(settings.model, **settings.load_options, dtype=settings.dtype, device=settings.device)
    frames = force_differences(trajectory, ModelForces(model, start[0]))
    write_extxyz(folder / DATASET, frames)
    chosen: dict[str, Any] = {"output": str(training), "seed": settings.seed, "device": settings.device}
    train.run(train.load_config(settings.correction_training, chosen), data_folder=folder, resume=resume)


def force_differences(trajectory: Trajectory, force_field: ForceField) -> list[ase.Atoms]:
    """Centroids of path integrals, with the mean force over the beads less the force at the centroid as their forces.

    Args:
        trajectory: of ring polymers in equilibrium, with positions.
        force_field: that they moved in.

    Returns:
        A structure for each frame of trajectories that no guard stopped; `mean_forces` reduces the scatter.

    Raises:
        PaiNNFastError: if the trajectory has no positions, or none are left.

    Example:
        >>> from ase.build import molecule
        >>> from painn_fast import load, md
        >>> from painn_fast.spectra.te_pigs import force_differences
        >>> chosen = {"ensemble": "pile-l", "beads": 4, "temperature": "600 K", "start": "free", "duration": "3 fs"}
        >>> path = md.run(md.MDSettings(model="ethanol", positions_every="1 fs", **chosen))
        >>> field = md.ModelForces(load("ethanol"), molecule("CH3CH2OH"))
        >>> frames = force_differences(md.Trajectory(path), field)
        >>> len(frames), bool(abs(frames[0].get_forces().sum(axis=0)).max() < 1e-3)  # eV/Å, no force on the whole
        (4, True)
    """
    beads = trajectory.positions  # [T, S, P, N, 3]
    beads = beads.reshape(-1, *beads.shape[2:])
    beads = beads[np.isfinite(beads).all(axis=(1, 2, 3))]
    if not len(beads):
        raise PaiNNFastError("no centroids", where=trajectory.path, expected="frames of trajectories that went on")
    centroids = beads.mean(axis=1)
    forces = _forces(force_field, beads.reshape(-1, *beads.shape[2:])).reshape(beads.shape)
    physical = _forces(force_field, centroids)
    masses = trajectory.system.masses.numpy()
    pairs = bonds(trajectory.system.atoms(centroids[0]))
    means = mean_forces(beads, forces, masses, pairs, trajectory.temperature, physical)
    frames = [trajectory.system.atoms(one) for one in centroids]
    for frame, difference in zip(frames, means - physical, strict=True):
        frame.calc = SinglePointCalculator(frame, forces=difference)
    return frames


def _forces(force_field: ForceField, positions: np.ndarray) -> np.ndarray:
    """At positions [n, N, 3] Å, eV/Å."""
    return np.concatenate([force_field(part)[1].numpy(force=True) for part in torch.from_numpy(positions).split(CHUNK)])
