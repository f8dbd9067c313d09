"""What a run writes and where: frames, correlation functions, restart files, last frames of stopped trajectories.

A process writes to one folder, in which each of several molecules has a folder of its own. Restart files and frozen
frames are those of the process, trajectory.h5 and correlation functions those of a molecule.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from painn_fast.correlation.series import FILE as CORRELATIONS
from painn_fast.correlation.series import SpectrumStreams
from painn_fast.errors import PaiNNFastError
from painn_fast.io.structures import write_extxyz
from painn_fast.md.estimators import UNITS
from painn_fast.md.guards import LimitExceeded
from painn_fast.md.recorder import RUN, Recorder, remove_segments, written_files
from painn_fast.md.restart import NEWEST, SYSTEM, Restart, read_restart, remove_restarts, write_restart
from painn_fast.md.resume import run_identity
from painn_fast.md.settings import MDSettings
from painn_fast.md.setup import Molecule, Setup
from painn_fast.md.simulation import Group, Simulation
from painn_fast.runtime.atomic import make_folder
from painn_fast.runtime.folders import molecule_folder, molecules_in, rank_folder, ranks_in
from painn_fast.runtime.progress import StatusLine

OBSERVED = ("dipole", "polarizability")
"""Series that the force field gives."""
DATASETS = {
    "positions/value": "Ang",
    "velocities/value": "Ang/fs",
    "dipole/value": "e Ang",
    "polarizability/value": "Ang^3",
    "centroids/positions": "Ang",
    "centroids/forces": "eV/Ang",
    **{f"energies/{name}": unit for name, unit in UNITS.items()},
}


def earlier_run(folder: Path, *, resume: bool, overwrite: bool) -> Restart | None:
    """The restart to go on from, if there is one. Changes nothing in the folder.

    Raises:
        PaiNNFastError: if there is a run and it is neither to be resumed nor to be replaced, or it cannot be resumed.
    """
    if folder.exists() and not folder.is_dir():
        raise PaiNNFastError("the output is a file, not a folder", where=folder)
    files = _run_files(folder)
    if not files or overwrite:
        return None
    if not resume:
        raise PaiNNFastError(
            "the output folder holds a run already", where=folder, got=files[0].name,
            fix="resume it (resume=True, --resume), replace it (overwrite=True, --overwrite) or choose another output",
        )  # fmt: skip
    restart = read_restart(folder)
    if restart is None:
        raise PaiNNFastError("a trajectory without a restart file cannot be resumed", where=folder)
    return restart


def refuse_other_world(output: Path, rank: int, world: int, *, overwrite: bool) -> None:
    """Refuse a run by another number of processes in the folder; with `overwrite` rank 0 removes it.

    Raises:
        PaiNNFastError: if there is one and it is not to be replaced.
    """
    own = [rank_folder(output, k, world) for k in range(world)]
    others = [folder for folder in (output, *ranks_in(output)) if folder not in own and _run_files(folder)]
    if others and not overwrite:
        raise PaiNNFastError(
            "the output folder holds a run by another number of processes", where=others[0],
            fix="start as many as then, replace it (overwrite=True, --overwrite) or choose another output",
        )  # fmt: skip
    for folder in others if rank == 0 else ():
        clear_folder(folder)


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


def _run_files(folder: Path) -> list[Path]:
    """Restarts and trajectories of one process."""
    trajectories = [file for part in molecules_in(folder) for file in written_files(part)]
    return [*folder.glob("restart*.safetensors"), *trajectories]


class Output:
    """Writes a run.

    Args:
        settings: of the run.
        folder: of this process.
        setup: molecules, and what identifies the model.
        line: for what guards report.
    """

    def __init__(self, settings: MDSettings, folder: Path, setup: Setup, line: StatusLine) -> None:
        self.settings, self.folder, self.setup, self.line = settings, folder, setup, line
        self.recorders = [
            Recorder(
                molecule_folder(folder, molecule.index, molecule.formula, setup.count), self._header(molecule), DATASETS
            )
            for molecule in setup.molecules
        ]
        self.streams = [_streams(settings, molecule) for molecule in setup.molecules]
        self.saved, self.saved_step = time.monotonic(), -1
        """Time and step of the last restart file."""
        self._exceeded = self._notes = 0  # how many of the simulation's are reported

    def resume(self, restart: Restart, simulation: Simulation) -> None:
        """Take up what the folder holds up to the step of the restart."""
        self._keep(simulation)
        step = simulation.step_number
        begun = step > self.settings.equilibration_steps  # if not, the first frame is still to be recorded
        for recorder, stream, values in zip(self.recorders, self.streams, restart.streams, strict=True):
            recorder.fold(step if begun else step - 1)
            if stream is not None:
                stream.restore({name: _array(value) for name, value in values.items()})

    def due(self, step: int) -> list[str]:
        """Series that are recorded after a step; the first frame is recorded before any."""
        sampled = step - self.settings.equilibration_steps
        return [name for name, stride in self.settings.strides.items() if sampled > 0 and sampled % stride == 0]

    def record(self, simulation: Simulation, due: list[str], observed: list[dict[str, Tensor]]) -> None:
        """Record series of the present frame; `observed` are properties of each group."""
        step = simulation.step_number
        fs = (step - self.settings.equilibration_steps) * self.settings.longest_step
        for group, seen, recorder, stream in zip(
            simulation.groups, observed, self.recorders, self.streams, strict=True
        ):
            for name in due:
                columns = _columns(name, group, seen)
                if stream is not None and name in stream.intervals:
                    stream.push(name, columns["value"])
                else:
                    recorder.add(name, step, fs, columns)

    def report(self, simulation: Simulation) -> None:
        """Report what exceeded a limit since the last report; write the last good frame of what was stopped."""
        exceeded, notes = self._keep(simulation)
        for event in exceeded:
            self.line.keep(str(event))
            k, s = _index(simulation, event.trajectory)
            group = simulation.groups[k]
            frames = [group.system.atoms(bead.cpu()) for bead in group.state.positions[s]]
            write_extxyz(self.folder / f"frozen-{event.trajectory}.xyz", frames, comment=str(event))
        for event in notes:
            self.line.keep(str(event))

    def _keep(self, simulation: Simulation) -> tuple[list[LimitExceeded], list[LimitExceeded]]:
        """What is new goes into the headers of the molecules that it concerns."""
        exceeded, notes = simulation.exceeded[self._exceeded :], simulation.notes[self._notes :]
        self._exceeded, self._notes = len(simulation.exceeded), len(simulation.notes)
        for event in exceeded:
            self.recorders[_index(simulation, event.trajectory)[0]].frozen.append(event.as_json())
        for event in notes:
            self.recorders[_index(simulation, event.trajectory)[0]].notes.append(event.as_json())
        return exceeded, notes

    @property
    def full(self) -> bool:
        """Whether frames in memory are so many that they are to be written."""
        return any(recorder.full for recorder in self.recorders)

    def checkpoint(self, simulation: Simulation) -> None:
        """Write frames, then the restart file that needs them, then correlation functions."""
        simulation.check_limits()
        self.report(simulation)
        step, groups = simulation.step_number, simulation.groups
        for recorder in self.recorders:
            recorder.flush(step)
        write_restart(
            Restart(
                states=[group.state for group in groups],
                systems=[{name: getattr(group.system, name) for name in SYSTEM} for group in groups],
                force_field=simulation.force_field.state(),
                streams=[_tensors(stream) for stream in self.streams],
                settings=self.settings.model_dump(mode="json"),
                exceeded=simulation.exceeded,
                notes=simulation.notes,
                bonds=[{} if group.fragments is None else group.fragments.tensors() for group in groups],
                model=self.setup.model,
                config=self.setup.config,
                starts=[molecule.start for molecule in self.setup.molecules],
                file=self.folder / NEWEST,
            )
        )
        for recorder, stream in zip(self.recorders, self.streams, strict=True):
            recorder.tidy(step)
            if stream is not None:
                stream.save(recorder.folder)
        self.saved, self.saved_step = time.monotonic(), step

    def finish(self, step: int) -> Path:
        """Put all frames into trajectory.h5; returns its path, or the folder of several molecules."""
        for recorder in self.recorders:
            recorder.fold(step)
        return self.folder / "trajectory.h5" if self.setup.count == 1 else self.folder

    def _header(self, molecule: Molecule) -> dict[str, Any]:
        settings, system = self.settings, molecule.system
        intervals = {f"{name}_every": stride * settings.longest_step for name, stride in settings.strides.items()}
        return {
            "numbers": _array(system.numbers),
            "masses": _array(system.masses),
            "cell": _array(system.cell),
            "pbc": _array(system.pbc),
            "total_charge": float(system.total_charge),
            "spin_multiplicity": float(system.spin_multiplicity),
            **({} if system.tags is None else {"tags": _array(system.tags)}),
            "beads": settings.beads,
            "trajectories": len(molecule.trajectory),
            "trajectory": _array(molecule.trajectory),
            "temperature": _one_or_all(molecule.temperature),
            "time_step": _one_or_all(molecule.time_step),
            "longest_time_step": settings.longest_step,
            "ensemble": settings.ensemble,
            "seed": _one_or_all(molecule.seed),
            "model_sha256": self.setup.model,
            RUN: run_identity(settings, self.setup, molecule),
            "settings": json.dumps(settings.model_dump(mode="json")),
            "units": "numbers: 1, masses: amu, cell: Ang, total_charge: e, spin_multiplicity: 1 (2S + 1), "
            "temperature: K, *time_step and *_every: fs",
            **intervals,
        }


def _streams(settings: MDSettings, molecule: Molecule) -> SpectrumStreams | None:
    """Takes the series that are not kept."""
    if not settings.streamed:
        return None
    assert settings.stream is not None
    symbols = [chemical_symbols[z] for z in molecule.system.numbers.tolist()]
    return SpectrumStreams(settings.streamed, settings.stream, symbols=symbols, masses=_array(molecule.system.masses))


def _tensors(stream: SpectrumStreams | None) -> dict[str, Tensor]:
    return {} if stream is None else {name: torch.from_numpy(value) for name, value in stream.state().items()}


def _index(simulation: Simulation, number: int) -> tuple[int, int]:
    """Index of the group of the trajectory with this number, and of the trajectory in it."""
    return next(
        (k, int(s))
        for k, group in enumerate(simulation.groups)
        for s in torch.nonzero(group.state.trajectory == number)[:, 0]
    )


def _columns(name: str, group: Group, observed: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """What is recorded of a group under a name."""
    if name == "energies":
        return {key: _array(value) for key, value in group.estimates().items()}
    if name == "positions":
        return {"value": _array(group.masked(group.state.positions))}
    if name == "velocities":
        return {"value": _array(group.masked(group.state.momenta / group.system.masses[:, None]))}
    if name == "centroids":
        state = group.state
        means = {"positions": state.positions.mean(1), "forces": state.forces.mean(1)}
        return {key: _array(group.masked(value)) for key, value in means.items()}
    return {"value": _array(observed[name])}


def _one_or_all(values: Tensor) -> np.ndarray | float | int:
    """The value of all trajectories, or an array of them."""
    first: float | int = values[0].item()
    return first if bool((values == values[0]).all()) else _array(values)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()
