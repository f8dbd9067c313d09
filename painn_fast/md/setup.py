"""What a run needs before its first step: a model, structures that fit it, beads and momenta."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ase
import numpy as np
import torch
from torch import Tensor

from painn_fast.ensemble import Ensemble
from painn_fast.errors import PaiNNFastError
from painn_fast.graph import batch_atoms
from painn_fast.graph.batch import CLOSEST
from painn_fast.graph.charge import charge_and_multiplicity
from painn_fast.io import load
from painn_fast.io.find import require_model
from painn_fast.io.load import device_of
from painn_fast.io.minima import start_structures
from painn_fast.io.model_file import config_fingerprint, fingerprint
from painn_fast.io.structures import refuse_constraints
from painn_fast.md import initial
from painn_fast.md.force_field import ForceField
from painn_fast.md.forces import ModelForces, SumForces
from painn_fast.md.fragments import Fragments, Mode
from painn_fast.md.settings import MDSettings
from painn_fast.md.state import State, System
from painn_fast.nn import Potential
from painn_fast.runtime.progress import warn

CUSTOM = "none: a force field of the caller's"
"""Instead of a SHA-256 of a model, in files too."""


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
        electrons = {name: torch.tensor(getattr(self, name), dtype=torch.float64) for name in ("charge", "spin")}
        return {"positions": self.positions.cpu(), **electrons}

    @property
    def formula(self) -> str:
        """Such as C2H6O."""
        return str(ase.Atoms(self.system.numbers.cpu().numpy()).get_chemical_formula())


@dataclass(frozen=True)
class Setup:
    """The unchanging parts of a run."""

    molecules: list[Molecule]
    count: int
    """Of all molecules of the run; those of this process may be fewer."""
    force_field: ForceField
    model: str
    """SHA-256 of the model's weights."""
    config: str
    """SHA-256 of what else decides its numbers."""

    @property
    def custom(self) -> bool:
        """Whether the force field is the caller's."""
        return self.model == CUSTOM


def set_up(
    settings: MDSettings,
    force_field: ForceField | None,
    atoms: ase.Atoms | list[ase.Atoms] | None,
    mine: range,
) -> Setup:
    """Load model and structures and check that they fit each other and the settings.

    Args:
        settings: of the whole run.
        force_field: instead of the settings' model.
        atoms: instead of the settings' structures.
        mine: numbers of the trajectories that this process runs.

    Raises:
        PaiNNFastError: naming what does not fit.
    """
    device_of(settings.device)
    if force_field is None:
        require_model(settings.model, *settings.members)
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
    model = config = CUSTOM
    if force_field is None:
        batch_atoms(frames, CLOSEST)  # refuses atoms on top of each other, in any of the frames
        potentials, added = _potentials(settings)
        model = " + ".join(map(_weights_of, (potentials, *([one] for one in added))))
        config = " ".join(config_fingerprint(potential.config) for potential in (*potentials, *added))
        firsts = [frames[numbers[0] % len(frames)] for numbers in of_kind.values()]
        potential = Ensemble(potentials) if settings.members else potentials[0]
        force_field = ModelForces(potential, firsts, backend=settings.backend)
        if added:
            corrections = [ModelForces(potential, firsts, backend=settings.backend) for potential in added]
            force_field = SumForces([force_field, *corrections], _observers([potentials[0], *added]))
    return Setup(molecules, len(order), force_field, model, config)


def _check_frames(frames: list[ase.Atoms], file: str | None, *, first: bool) -> None:
    """Refuse constraints, which integrators do not know; warn that momenta are not used.

    Args:
        frames: structures to start from.
        file: that they come from.
        first: whether this process is the one that warns.
    """
    refuse_constraints(frames, "dynamics", where=file)
    moving = [k for k, frame in enumerate(frames) if frame.has("momenta") and frame.get_momenta().any()]
    if moving and first:
        warn(
            f"momenta of structure {moving[0]}{f' of {file}' if file else ''} are not used: trajectories start with "
            "thermal ones at the temperature of the settings"
        )


def bonds_mode(settings: MDSettings, molecule: Molecule) -> Mode:
    """What to do where a bond of a molecule breaks: bonds of a crystal come and go."""
    return settings.fragments or ("off" if bool(molecule.system.pbc.any()) else "stop")


def bond_guard(settings: MDSettings, molecule: Molecule) -> Fragments | None:
    """The guard of the bonds of a molecule, if there is to be one."""
    mode = bonds_mode(settings, molecule)
    if mode == "off":
        return None
    return Fragments(molecule.system, molecule.positions, mode, settings.longest_step)


def first_state(settings: MDSettings, molecule: Molecule) -> State:
    """Beads and thermal momenta, forces still to be evaluated."""
    P, system, T = settings.beads, molecule.system, molecule.temperature
    noise: dict[str, Any] = {"seed": molecule.seed, "trajectory": molecule.trajectory}
    positions = initial.ring_positions(system, molecule.positions, P, T, start=settings.start, **noise)
    state = State.at(positions, initial.maxwell_boltzmann(system, P, T, **noise), molecule.trajectory)
    remove_drift(settings, system, state)
    return state


def remove_drift(settings: MDSettings, system: System, state: State) -> None:
    """Stop the centre of mass, and the rotation too if the settings ask for it."""
    momenta = initial.remove_translation(state.momenta, system.masses)
    if settings.remove_rotation or "rotation" in settings.remove_com_motion:
        momenta = initial.remove_rotation(momenta, state.positions, system.masses)
    state.momenta.copy_(momenta)


def _molecule(settings: MDSettings, frames: list[ase.Atoms], index: int, numbers: list[int]) -> Molecule:
    """One kind of molecule with the trajectories of these numbers."""
    starts = [frames[number % len(frames)] for number in numbers]
    if settings.remove_rotation or "rotation" in settings.remove_com_motion:
        name = "remove_rotation" if settings.remove_rotation else "remove_com_motion = rotation"
        if starts[0].pbc.any():
            raise PaiNNFastError(f"{name} makes no sense in a periodic cell", got=starts[0].pbc.tolist())
    system = System.from_atoms(starts[0], settings.device)

    def each(name: str, dtype: torch.dtype = torch.float64) -> Tensor:
        values = settings.each(name)
        return torch.tensor([values[number] for number in numbers], dtype=dtype, device=settings.device)

    positions = torch.tensor(
        np.stack([start.positions for start in starts]), dtype=torch.float64, device=settings.device
    )
    return Molecule(
        index,
        system,
        torch.tensor(numbers, device=settings.device),
        positions,
        each("temperature"),
        each("time_step"),
        each("seed", torch.int64),
        0 if starts[0].pbc.any() else initial.rotations(positions[0], system.masses),
        *_charge_and_spin(starts[0]),
    )


def _kinds(frames: list[ase.Atoms]) -> list[int]:
    """Number of the first frame of the same molecule, for each frame."""
    first: dict[tuple[Any, ...], int] = {}
    kinds = []
    for number, frame in enumerate(frames):
        System.from_atoms(frame)
        arrays = (frame.numbers, frame.get_masses(), frame.cell.array, frame.pbc, frame.get_tags())
        kinds.append(first.setdefault((*_charge_and_spin(frame), *(array.tobytes() for array in arrays)), number))
    return kinds


def _charge_and_spin(frame: ase.Atoms) -> tuple[float, float]:
    """Charge (e) and spin multiplicity."""
    return charge_and_multiplicity(frame.info, where=frame.get_chemical_formula())


def _potentials(settings: MDSettings) -> tuple[list[Potential], list[Potential]]:
    """The model, or the members of an ensemble, and models that are added to it; they give what is to be recorded."""
    dtype = getattr(torch, settings.dtype)

    def read(names: Sequence[str]) -> list[Potential]:
        return [load(name, **settings.options_of(name), dtype=dtype, device=settings.device) for name in names]

    potentials, added = read(settings.members or (settings.model,)), read(settings.add)
    for label in ("dipole", "polarizability"):
        giving = any(label in one.properties for one in added)
        for potential in potentials if label in settings.strides and not giving else ():
            if label not in potential.properties:
                raise PaiNNFastError(
                    f"the model gives no {label}", where=f"{label}_every", expected=", ".join(potential.properties)
                )
    return potentials, added


def _weights_of(potentials: Sequence[Potential]) -> str:
    return " ".join(fingerprint(potential.state_dict()) for potential in potentials)


def _observers(potentials: Sequence[Potential]) -> dict[str, int]:
    """Number of the first that gives a property, by its name."""
    return {name: k for k, one in reversed(list(enumerate(potentials))) for name in one.properties}


def _structures(settings: MDSettings, atoms: ase.Atoms | list[ase.Atoms] | None) -> list[ase.Atoms]:
    """Frames to start from: the caller's, the file's, or the bundled model's own."""
    if atoms is not None:
        frames = [atoms] if isinstance(atoms, ase.Atoms) else list(atoms)
        for k, frame in enumerate(frames):
            if not isinstance(frame, ase.Atoms):
                got = f"{type(frame).__name__} {str(frame)[:40]!r}"
                fix = "give ase.Atoms, or a file as `structure` of the settings"
                raise PaiNNFastError("not a structure", where=f"structure {k}", got=got, expected="ase.Atoms", fix=fix)
    else:
        frames = start_structures(settings.structure, settings.model)
    if not frames:
        raise PaiNNFastError("no structure to start from", where=settings.structure, got="no frames")
    return frames
