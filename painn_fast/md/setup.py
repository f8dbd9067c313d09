"""What a run needs before its first step: a folder of its own, a model, structures that fit it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from torch import Tensor

from painn_fast.correlation.series import FILE as CORRELATIONS
from painn_fast.errors import PaiNNFastError
from painn_fast.graph import batch_atoms
from painn_fast.graph.batch import CLOSEST
from painn_fast.graph.charge import charge_and_multiplicity
from painn_fast.io import load
from painn_fast.io.load import MODELS, bundled, device_of
from painn_fast.io.model_file import config_fingerprint, fingerprint
from painn_fast.io.structures import read_structures, refuse_constraints
from painn_fast.md.forces import EnsembleForces, ForceField, ModelForces
from painn_fast.md.fragments import Mode
from painn_fast.md.initial import rotations
from painn_fast.md.recorder import remove_segments, written_files
from painn_fast.md.restart import Restart, read_restart, remove_restarts
from painn_fast.md.settings import MDSettings
from painn_fast.md.state import System
from painn_fast.nn import Potential
from painn_fast.runtime.atomic import make_folder
from painn_fast.runtime.folders import molecules_in, rank_folder, ranks_in
from painn_fast.runtime.progress import warn


@dataclass(frozen=True)
class Molecule:
    """One molecule (or crystal) of a run, and its trajectories."""

    index: int
    """Among the molecules of the run."""
    system: System
    trajectory: Tensor  # [S] int64, numbers of its trajectories among all of the run
    positions: Tensor  # [S, N, 3] float64, Å, where each starts
    temperature: Tensor  # [S] float64, K
    time_step: Tensor  # [S] float64, fs
    seed: Tensor  # [S] int64
    rotations: int
    """Rotational degrees of freedom; 0 in a cell."""
    charge: float
    """e."""
    spin: float
    """Multiplicity, 2S + 1."""

    @property
    def start(self) -> dict[str, Tensor]:
        """What its trajectories start from, as a restart file keeps it."""
        told = {name: torch.tensor(getattr(self, name), dtype=torch.float64) for name in ("charge", "spin")}
        return {"positions": self.positions.cpu(), **told}

    @property
    def formula(self) -> str:
        """Such as C2H6O."""
        return str(ase.Atoms(self.system.numbers.cpu().numpy()).get_chemical_formula())


@dataclass(frozen=True)
class Prepared:
    """The unchanging parts of a run."""

    molecules: list[Molecule]
    count: int
    """Of all molecules of the run; those of this process may be fewer."""
    force_field: ForceField
    model: str
    """SHA-256 of the model's weights."""
    config: str
    """SHA-256 of what else decides its numbers."""


def earlier_run(folder: Path, *, resume: bool, overwrite: bool) -> Restart | None:
    """Look at the folder without touching it: the restart to go on from, if any.

    Raises:
        PaiNNFastError: if there is a run and it is neither to be resumed nor to be replaced, or it cannot be resumed.
    """
    if folder.exists() and not folder.is_dir():
        raise PaiNNFastError("the output is a file, not a folder", where=folder)
    files = _files(folder)
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
    if restart is None:
        raise PaiNNFastError("a trajectory without a restart file cannot be resumed", where=folder)
    return restart


def settle_processes(output: Path, rank: int, world: int, *, overwrite: bool) -> None:
    """See that no run by another number of processes is in the way; the first process removes it if told to.

    Raises:
        PaiNNFastError: if there is one and it is not to be replaced.
    """
    mine = [rank_folder(output, k, world) for k in range(world)]
    others = [one for one in (output, *ranks_in(output)) if one not in mine and _files(one)]
    if others and not overwrite:
        raise PaiNNFastError(
            "the output folder holds a run by another number of processes", where=others[0],
            fix="start as many as then, replace it (overwrite=True, --overwrite) or choose another output",
        )  # fmt: skip
    for one in others if rank == 0 else ():
        clear_folder(one)


def _files(folder: Path) -> list[Path]:
    """Restarts and trajectories of one process."""
    trajectories = [file for part in molecules_in(folder) for file in written_files(part)]
    return [*folder.glob("restart*.safetensors"), *trajectories]


def clear_folder(folder: Path) -> None:
    """Make the folder, without anything of an earlier run; restarts go first: none is to be without its frames."""
    make_folder(folder)
    remove_restarts(folder)
    for part in molecules_in(folder):
        remove_segments(part)
        for name in ("trajectory.h5", CORRELATIONS):
            (part / name).unlink(missing_ok=True)
    for path in (*folder.glob("settings.toml"), *folder.glob("frozen-*.xyz")):
        path.unlink()


def prepare(
    settings: MDSettings,
    force_field: ForceField | None,
    atoms: ase.Atoms | list[ase.Atoms] | None,
    mine: range,
) -> Prepared:
    """Load model and structures and see that they fit each other and the settings.

    Args:
        settings: of the whole run.
        force_field: instead of the settings' model.
        atoms: instead of the settings' structures.
        mine: numbers of the trajectories that this process runs.

    Raises:
        PaiNNFastError: saying what does not fit.
    """
    device_of(settings.device)
    frames = _structures(settings, atoms)
    _check_frames(frames, settings.structure if atoms is None else None, first=0 in mine)
    kinds = _kinds(frames)
    if settings.trajectories < len(set(kinds)):
        raise PaiNNFastError(
            "more molecules than trajectories", got=f"{settings.trajectories} for {len(set(kinds))} molecules",
            fix=f"trajectories = {len(frames)} runs one of each frame",
        )  # fmt: skip
    of_kind: dict[int, list[int]] = {}
    for number in mine:
        of_kind.setdefault(kinds[number % len(frames)], []).append(number)
    of_kind = dict(sorted(of_kind.items()))
    order = sorted(set(kinds))
    molecules = [_molecule(settings, frames, order.index(kind), numbers) for kind, numbers in of_kind.items()]
    model = config = "none: a force field of the caller's"
    if force_field is None:
        batch_atoms(frames, CLOSEST)  # refuses atoms on top of each other, in any of the frames
        potentials = [_potential(settings, name) for name in settings.members or (settings.model,)]
        model = " ".join(fingerprint(potential.state_dict()) for potential in potentials)
        config = " ".join(config_fingerprint(potential.config) for potential in potentials)
        firsts = [frames[numbers[0] % len(frames)] for numbers in of_kind.values()]
        members = [ModelForces(potential, firsts, backend=settings.backend) for potential in potentials]
        force_field = EnsembleForces(members) if settings.members else members[0]
    return Prepared(molecules, len(order), force_field, model, config)


def _check_frames(frames: list[ase.Atoms], file: str | None, *, first: bool) -> None:
    """Refuse constraints, which integrators do not know; say that momenta do not count.

    Args:
        frames: structures to start from.
        file: that they come from.
        first: whether this process is the one that says things.
    """
    refuse_constraints(frames, "dynamics", where=file)
    moving = [k for k, frame in enumerate(frames) if frame.has("momenta") and frame.get_momenta().any()]
    if moving and first:
        warn(
            f"momenta of structure {moving[0]}{f' of {file}' if file else ''} are not used: trajectories start with "
            "thermal ones at the temperature of the settings"
        )


def bonds_of(settings: MDSettings, molecule: Molecule) -> Mode:
    """What to do where a bond of a molecule breaks: bonds of a crystal come and go."""
    return settings.fragments or ("off" if bool(molecule.system.pbc.any()) else "stop")


def _molecule(settings: MDSettings, frames: list[ase.Atoms], index: int, numbers: list[int]) -> Molecule:
    """One kind of molecule with the trajectories of these numbers."""
    starts = [frames[number % len(frames)] for number in numbers]
    if settings.remove_rotation or "rotation" in settings.hold:
        name = "remove_rotation" if settings.remove_rotation else "hold = rotation"
        if starts[0].pbc.any():
            raise PaiNNFastError(f"{name} makes no sense in a periodic cell", got=starts[0].pbc.tolist())
    system = System.from_atoms(starts[0], settings.device)

    def of_mine(name: str, dtype: torch.dtype = torch.float64) -> Tensor:
        values = settings.each(name)
        return torch.tensor([values[number] for number in numbers], dtype=dtype, device=settings.device)

    positions = np.stack([start.positions for start in starts])
    place = torch.tensor(positions, dtype=torch.float64, device=settings.device)
    return Molecule(
        index,
        system,
        torch.tensor(numbers, device=settings.device),
        place,
        of_mine("temperature"),
        of_mine("time_step"),
        of_mine("seed", torch.int64),
        0 if starts[0].pbc.any() else rotations(place[0], system.masses),
        *_told(starts[0]),
    )


def _kinds(frames: list[ase.Atoms]) -> list[int]:
    """Number of the first frame of the same molecule, for each frame."""
    first: dict[tuple[Any, ...], int] = {}
    kinds = []
    for number, frame in enumerate(frames):
        System.from_atoms(frame)
        told = _told(frame)
        arrays = (frame.numbers, frame.get_masses(), frame.cell.array, frame.pbc, frame.get_tags())
        kinds.append(first.setdefault((*told, *(array.tobytes() for array in arrays)), number))
    return kinds


def _told(frame: ase.Atoms) -> tuple[float, float]:
    """Charge (e) and spin multiplicity."""
    return charge_and_multiplicity(frame.info, where=frame.get_chemical_formula())


def _potential(settings: MDSettings, name: str) -> Potential:
    """A model that gives what is to be recorded."""
    dtype = getattr(torch, settings.dtype)
    potential = load(name, **settings.load_options, dtype=dtype, device=settings.device)
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
        for k, frame in enumerate(frames):
            if not isinstance(frame, ase.Atoms):
                got = f"{type(frame).__name__} {str(frame)[:40]!r}"
                fix = "give ase.Atoms, or a file as `structure` of the settings"
                raise PaiNNFastError("not a structure", where=f"structure {k}", got=got, expected="ase.Atoms", fix=fix)
    elif settings.structure is not None:
        frames = read_structures(settings.structure)
    elif settings.model in bundled() and (MODELS / f"{settings.model}.xyz").exists():
        frames = read_structures(MODELS / f"{settings.model}.xyz")
    else:
        raise PaiNNFastError("no structure to start from", where="structure", expected="a file that ASE reads")
    if not frames:
        raise PaiNNFastError("no structure to start from", where=settings.structure, got="no frames")
    return frames
