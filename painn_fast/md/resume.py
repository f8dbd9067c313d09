"""Whether a run may go on from what its folder holds: settings, model, structures and trajectories are those it had."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.io.options import LoadOptions
from painn_fast.md.recorder import RUN, end_of, open_file, trajectory_files
from painn_fast.md.restart import SYSTEM, Restart
from painn_fast.md.settings import FREE_TO_CHANGE, MDSettings
from painn_fast.md.setup import Molecule, Setup
from painn_fast.runtime.folders import molecule_folder
from painn_fast.runtime.hdf5 import read_dataset

NAMES_ONLY = {"model", "members", "add", "structure", *LoadOptions.model_fields}
"""Settings that name a file: its content is compared instead."""
SAME = 1e-6
"""Å: positions nearer than that are the same; a structure may have been relaxed anew."""
OTHER = "restore what it began with, or choose another output"


def resumed(settings: MDSettings, setup: Setup, restart: Restart, folder: Path) -> Setup:
    """The parts of the run as it began, after a check of all that it depends on; nothing in its folder is touched.

    Raises:
        PaiNNFastError: if settings, model, structures or trajectories are not those of the run, or the run is longer.
    """
    check_restart(settings, setup, restart)
    molecules = [
        dataclasses.replace(molecule, positions=start["positions"].to(molecule.positions.device))
        for molecule, start in zip(setup.molecules, restart.starts, strict=True)
    ]
    setup = dataclasses.replace(setup, molecules=molecules)
    for molecule in setup.molecules:
        part = molecule_folder(folder, molecule.index, molecule.formula, setup.count)
        _check_trajectory(part, settings, run_identity(settings, setup, molecule), restart.states[0].step)
    return setup


def check_restart(settings: MDSettings, setup: Setup, restart: Restart) -> None:
    """Raise PaiNNFastError unless the restart belongs to these settings, this model and this structure."""
    began = MDSettings.parse(restart.settings, where=f"settings in {restart.file}")
    before = began.with_positions(restart.settings).model_dump(mode="json")
    for name, value in settings.model_dump(mode="json").items():
        if name not in FREE_TO_CHANGE | NAMES_ONLY and before[name] != value:
            raise PaiNNFastError(
                "a resumed run must keep its settings",
                where=name,
                got=value,
                expected=before[name],
                fix="or choose another output",
            )
    if restart.model != setup.model:
        raise PaiNNFastError("the run began with another model", got=setup.model, expected=restart.model, fix=OTHER)
    if restart.config != setup.config:
        raise PaiNNFastError(
            "the run began with another model", where="its configuration: units, cut-off, epsilon ...",
            got=setup.config, expected=restart.config, fix=OTHER,
        )  # fmt: skip
    if len(restart.states) != len(setup.molecules):
        raise PaiNNFastError(
            "the run began with other molecules",
            got=f"{len(setup.molecules)} molecules",
            expected=len(restart.states),
        )
    for k, (molecule, state) in enumerate(zip(setup.molecules, restart.states, strict=True)):
        if not 0 <= state.step <= began.total_steps:
            raise PaiNNFastError(
                "a step beyond the end of the run",
                where=restart.file,
                got=state.step,
                expected=f"0 to {began.total_steps}",
            )
        if not torch.equal(state.trajectory, molecule.trajectory.cpu()):
            raise PaiNNFastError(
                "the run began with other trajectories in this folder", got=molecule.trajectory.tolist(),
                expected=state.trajectory.tolist(), fix="resume with as many processes as it began with",
            )  # fmt: skip
        _check_structure(molecule, restart.systems[k], restart.starts[k])
        expected = (len(molecule.trajectory), settings.beads, molecule.system.n_atoms, 3)
        if tuple(state.positions.shape) != expected:
            raise PaiNNFastError(
                "not a state of this run", where=restart.file, got=tuple(state.positions.shape), expected=expected
            )
    step = restart.states[0].step
    if step > settings.total_steps:
        done = (step - settings.equilibration_steps) * settings.longest_step
        raise PaiNNFastError(
            "the run is already longer than the duration", where=restart.file, got=f"{settings.duration:g} fs",
            expected=f"at least {done:g} fs, which are done", fix="choose another output for a shorter run",
        )  # fmt: skip


def _check_structure(molecule: Molecule, system: dict[str, Tensor], start: dict[str, Tensor]) -> None:
    """Raise PaiNNFastError unless a molecule is what its trajectories started from."""
    other = "the run began with another structure"
    for name in SYSTEM:
        now, before = getattr(molecule.system, name).cpu(), system[name]
        if not torch.equal(before, now):
            raise PaiNNFastError(other, where=name, got=_first(now, before), expected=_first(before, now), fix=OTHER)
    for name in ("charge", "spin"):
        if float(start[name]) != getattr(molecule, name):
            raise PaiNNFastError(other, where=name, got=getattr(molecule, name), expected=float(start[name]), fix=OTHER)
    now, before = molecule.positions.cpu(), start["positions"]
    moved = (now - before).abs().amax(dim=-1) > SAME  # [S, N]
    if bool(moved.any()):
        s, atom = torch.nonzero(moved)[0].tolist()
        raise PaiNNFastError(
            other, where=f"positions, trajectory {int(molecule.trajectory[s])}, atom {atom}",
            got=f"{now[s, atom].tolist()} Ang", expected=f"{before[s, atom].tolist()} Ang", fix=OTHER,
        )  # fmt: skip


def _first(values: Tensor, others: Tensor) -> object:
    """The first that differs, or all if shapes do."""
    if values.shape != others.shape:
        return values.tolist()
    return values[values != others][0].item()


def run_identity(settings: MDSettings, setup: Setup, molecule: Molecule) -> str:
    """SHA-256 of all that decides the frames of a molecule but for their number."""
    kept = settings.model_dump(mode="json", exclude=FREE_TO_CHANGE | NAMES_ONLY)
    if settings.equilibration_tau is None:  # younger than the first runs, which are to go on
        del kept["equilibration_tau"]
    if settings.centroids_every is None:  # so is this
        del kept["centroids_every"]
    if not settings.positions_every:  # as runs have it that began when positions were recorded on request only
        kept["positions_every"] = None
    kept["hold"] = kept.pop("remove_com_motion")  # its name when the first runs were written, which are to go on
    digest = hashlib.sha256(json.dumps([kept, setup.model, setup.config], sort_keys=True).encode())
    system = {name: getattr(molecule.system, name) for name in SYSTEM}
    for name, value in (system | molecule.start | {"trajectory": molecule.trajectory}).items():
        array = value.detach().cpu().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _check_trajectory(folder: Path, settings: MDSettings, identity: str, step: int) -> None:
    """Raise PaiNNFastError unless the frames up to `step` exist and are those of the run."""
    first = settings.equilibration_steps
    strides = {name: stride for name, stride in settings.strides.items() if name not in settings.streamed}
    last = step if step > first else first - 1  # the first frame is recorded with the first step after it
    expected = {name: np.arange(first, last + 1, stride) for name, stride in strides.items()}
    steps_of: dict[str, list[np.ndarray]] = {name: [] for name in strides}
    for path in trajectory_files(folder):
        with open_file(path) as file:
            if file.attrs.get(RUN) != identity:
                raise PaiNNFastError(
                    "the trajectory is of another run", where=path, got=f"run {str(file.attrs.get(RUN))[:12]}",
                    expected=f"run {identity[:12]}, which the restart file belongs to", fix=RESTORE,
                )  # fmt: skip
            for name in strides:
                if name in file:
                    steps_of[name].append(_steps(file, name))
    for name, steps in expected.items():
        got = np.concatenate([np.zeros(0, dtype=np.int64), *steps_of[name]])
        got = got[got <= step]
        if len(steps) and not np.array_equal(got, steps):
            what = "the trajectory lacks frames" if steps_of[name] else "the trajectory is gone"
            raise PaiNNFastError(
                what, where=f"{folder}, {name}", got=f"{len(got)} frames up to step {step}",
                expected=f"{len(steps)}, as the restart file is of that step", fix=RESTORE,
            )  # fmt: skip


RESTORE = "restore trajectory.h5 and segments from a copy, replace the run (overwrite=True, --overwrite)"


def _steps(file, name: str) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Steps of the frames of a series, all of whose columns have as many."""
    steps = read_dataset(file, f"{name}/step")
    for column, entry in file[name].items():
        if len(entry) != len(steps):
            raise PaiNNFastError(
                "the trajectory lacks frames", where=f"{file.filename}, {name}/{column}", got=len(entry),
                expected=len(steps), fix=RESTORE,
            )  # fmt: skip
    return steps


def fallback(settings: MDSettings, setup: Setup, restart: Restart, folder: Path) -> list[str]:
    """A line for each newer restart file that could not be read: which, why, and what is lost."""
    step = restart.states[0].step
    parts = [molecule_folder(folder, one.index, one.formula, setup.count) for one in setup.molecules]
    reached = max((end_of(path) for part in parts for path in trajectory_files(part)), default=step)
    lost = (
        f"{reached - step} steps ({(reached - step) * settings.longest_step:g} fs)" if reached > step else "what came"
    )
    lost = f"going on from {restart.file.name}; {lost} after its step {step} are computed again"
    return [f"{error.where}: {error.what}, {error.got}; {lost}" for error in restart.failed]
