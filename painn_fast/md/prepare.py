"""What a run needs before its first step: a folder of its own, a model, structures that fit it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np
import torch
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.io import load
from painn_fast.io.load import MODELS, bundled
from painn_fast.io.model_file import fingerprint
from painn_fast.io.structures import read_structures
from painn_fast.md.forces import EnsembleForces, ForceField, ModelForces
from painn_fast.md.restart import Restart, read_restart, remove_restarts
from painn_fast.md.segments import remove_segments, trajectory_files
from painn_fast.md.settings import FREE_TO_CHANGE, MDSettings
from painn_fast.md.state import System
from painn_fast.nn import Potential


@dataclass(frozen=True)
class Prepared:
    """The unchanging parts of a run."""

    system: System
    positions: Tensor  # [frames, N, 3] float64, Å
    force_field: ForceField
    model: str
    """SHA-256 of the model's tensors."""


def earlier_run(folder: Path, *, resume: bool, overwrite: bool) -> Restart | None:
    """Look at the folder without touching it: the restart to go on from, if any.

    Raises:
        PaiNNFastError: if there is a run and it is neither to be resumed nor to be replaced, or it cannot be resumed.
    """
    if folder.exists() and not folder.is_dir():
        raise PaiNNFastError("the output is a file, not a folder", where=folder)
    files = [*folder.glob("restart*.safetensors"), *folder.glob("trajectory.h5"), *folder.glob("segments/*")]
    if not files or overwrite:
        return None
    if not resume:
        raise PaiNNFastError(
            "the output folder holds a run already",
            where=folder,
            got=files[0].name,
            fix="resume it (resume=True, --resume), replace it (overwrite=True, --overwrite) or choose another output",
        )
    restart = read_restart(folder)
    if restart is None and trajectory_files(folder):
        raise PaiNNFastError("a trajectory without a restart file cannot be resumed", where=folder)
    return restart


def clear_folder(folder: Path) -> None:
    """Make the folder, without anything of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_segments(folder)
    remove_restarts(folder)
    for path in (*folder.glob("trajectory.h5"), *folder.glob("settings.toml"), *folder.glob("frozen-*.xyz")):
        path.unlink()


def prepare(
    settings: MDSettings,
    force_field: ForceField | None,
    atoms: ase.Atoms | list[ase.Atoms] | None,
    restart: Restart | None,
) -> Prepared:
    """Load model and structures and see that they fit each other, the settings and the restart.

    Raises:
        PaiNNFastError: saying what does not fit.
    """
    frames = _structures(settings, atoms)
    if settings.remove_rotation and frames[0].pbc.any():
        raise PaiNNFastError("remove_rotation makes no sense in a periodic cell", got=frames[0].pbc.tolist())
    model = "none: a force field of the caller's"
    if force_field is None:
        potentials = [_potential(settings, name) for name in settings.members or (settings.model,)]
        model = " ".join(fingerprint(potential.state_dict()) for potential in potentials)
        members = [ModelForces(potential, frames[0], backend=settings.backend) for potential in potentials]
        force_field = EnsembleForces(members) if settings.members else members[0]
    system = System.from_atoms(frames[0], settings.device)
    positions = torch.tensor(
        np.stack([frame.positions for frame in frames]), dtype=torch.float64, device=settings.device
    )
    prepared = Prepared(system, positions, force_field, model)
    if restart is not None:
        _check_restart(settings, prepared, restart)
    return prepared


def _potential(settings: MDSettings, name: str) -> Potential:
    """A model that gives what is to be recorded."""
    dtype = getattr(torch, settings.dtype)
    potential = load(name, energy_unit=settings.energy_unit, dtype=dtype, device=settings.device)
    for label in ("dipole", "polarizability"):
        if label in settings.strides and label not in potential.properties:
            raise PaiNNFastError(
                f"the model gives no {label}", where=f"{label}_every", expected=", ".join(potential.properties)
            )
    return potential


def _structures(settings: MDSettings, atoms: ase.Atoms | list[ase.Atoms] | None) -> list[ase.Atoms]:
    """Frames to start from: the caller's, the file's, or the bundled model's own."""
    if atoms is not None:
        frames = [atoms] if isinstance(atoms, ase.Atoms) else list(atoms)
    elif settings.structure is not None:
        frames = read_structures(settings.structure)
    elif settings.model in bundled() and (MODELS / f"{settings.model}.xyz").exists():
        frames = read_structures(MODELS / f"{settings.model}.xyz")
    else:
        raise PaiNNFastError("no structure to start from", where="structure", expected="a file that ASE reads")
    for number, frame in enumerate(frames):
        System.from_atoms(frame)
        if not np.array_equal(frame.numbers, frames[0].numbers) or not np.array_equal(frame.cell, frames[0].cell):
            raise PaiNNFastError(
                "frames of different molecules or cells", where=f"frame {number}", got=frame.get_chemical_formula(),
                expected=frames[0].get_chemical_formula(),
            )  # fmt: skip
    return frames


def _check_restart(settings: MDSettings, prepared: Prepared, restart: Restart) -> None:
    """Raise PaiNNFastError unless the restart belongs to these settings, this model and this structure."""
    now = settings.model_dump(mode="json")
    for name, value in now.items():
        before = restart.settings.get(name)
        if name not in FREE_TO_CHANGE | {"model", "members", "structure", "energy_unit"} and before != value:
            raise PaiNNFastError(
                "a resumed run must keep its settings",
                where=name,
                got=value,
                expected=before,
                fix="or choose another output",
            )
    if restart.model != prepared.model:
        raise PaiNNFastError("the run began with another model", got=prepared.model, expected=restart.model)
    for name in ("numbers", "masses", "cell", "pbc"):
        if not torch.equal(restart.system[name], getattr(prepared.system, name).cpu()):
            raise PaiNNFastError("the run began with another structure", where=name)
