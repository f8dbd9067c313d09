"""A whole run of dynamics: from settings to a trajectory on disk, resumable bit for bit."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from painn_fast.correlation.series import SpectrumStreams
from painn_fast.errors import PaiNNFastError
from painn_fast.md import initial
from painn_fast.md.estimators import UNITS
from painn_fast.md.forces import ForceField
from painn_fast.md.fragments import Fragments
from painn_fast.md.guards import Guards, Trip
from painn_fast.md.recorder import RUN, Recorder
from painn_fast.md.reporters import Reporter
from painn_fast.md.restart import Restart, write_restart
from painn_fast.md.resume import fallback, resumed, run_identity, set_aside
from painn_fast.md.settings import MDSettings
from painn_fast.md.setup import (
    Molecule,
    Prepared,
    bonds_of,
    clear_folder,
    earlier_run,
    prepare,
    settle_processes,
)
from painn_fast.md.simulation import Group, Simulation
from painn_fast.md.stages import Phase, phase_at, phases
from painn_fast.md.state import State, System
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.folders import molecule_folder, rank_folder, remove_temporaries
from painn_fast.runtime.interrupt import Interrupt
from painn_fast.runtime.progress import StatusLine, clock, warn
from painn_fast.runtime.ranks import rank_and_world_size
from painn_fast.settings import write_resolved

EXIT = "EXIT"
"""A file of this name in the folder of a run ends it cleanly."""
LOOK_EVERY = 0.2
"""Seconds between looks at the clock and for the file."""
OBSERVED = ("dipole", "polarizability")
DATASETS = {
    "positions/value": "Ang",
    "velocities/value": "Ang/fs",
    "dipole/value": "e Ang",
    "polarizability/value": "Ang^3",
    **{f"energies/{name}": unit for name, unit in UNITS.items()},
}


def run(
    settings: MDSettings,
    *,
    force_field: ForceField | None = None,
    atoms: ase.Atoms | list[ase.Atoms] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Run dynamics and write it to `settings.output`: trajectory.h5, settings.toml, restart files.

    Under `torchrun` each process runs its share of the trajectories in a folder of its own, `rank-<number>`, without
    a word to the others; `Trajectory` reads them as one. Several molecules have a folder each, such as `0-C2H6O`.

    Args:
        settings: what to run.
        force_field: instead of `settings.model`.
        atoms: instead of `settings.structure`; trajectories start from several structures in turn.
        resume: go on with the run in the folder, bit for bit; starts it if there is none.
        overwrite: replace the run in the folder.

    Returns:
        Path of trajectory.h5, of the folder where there are several; read it with `Trajectory`.

    Raises:
        PaiNNFastError: if the folder holds a run and neither `resume` nor `overwrite` is given, if settings, model and
            structure do not fit, if the run is stopped before its end (it can be resumed), or if guards stopped all
            trajectories.
    """
    rank, world = rank_and_world_size()
    if world > 1 and settings.device == "cuda":
        settings = settings.model_copy(update={"device": f"cuda:{os.environ.get('LOCAL_RANK', '0')}"})
    output = Path(settings.output)
    folder = rank_folder(output, rank, world)
    settle_processes(output, rank, world, overwrite=overwrite)
    mine = _share(settings.trajectories, rank, world)
    restart = earlier_run(folder, resume=resume, overwrite=overwrite)
    prepared = prepare(settings, force_field, atoms, mine)
    if restart is not None:
        prepared = resumed(settings, prepared, restart, folder)
    with StatusLine(silent=rank > 0) as line, Interrupt() as interrupt:
        this = _Run(settings, folder, prepared, restart, line)  # refuses what cannot start before anything is written
        if restart is None:
            clear_folder(folder)
        else:
            for note in fallback(settings, prepared, restart, folder):
                warn(note)
            set_aside(restart)
        remove_temporaries(folder)
        for asked in {folder, output}:
            (asked / EXIT).unlink(missing_ok=True)
        watched = dict.fromkeys(bonds_of(settings, molecule) for molecule in prepared.molecules)
        about = {"model_sha256": prepared.model, "fragments": ", ".join(watched)}
        write_resolved(settings, folder / "settings.toml", about)
        this.begin(restart)
        this.go(interrupt)
    alone = folder / "trajectory.h5"
    return alone if world == 1 and alone.exists() else output


def _share(trajectories: int, rank: int, world: int) -> range:
    """Numbers of the trajectories of one of `world` processes, in one stretch."""
    if trajectories < world:
        raise PaiNNFastError(
            "fewer trajectories than processes", got=f"{trajectories} for {world}", fix="start fewer processes"
        )
    return range(trajectories * rank // world, trajectories * (rank + 1) // world)


class _Run:
    """One run: a simulation, what it writes and what it says."""

    def __init__(
        self, settings: MDSettings, folder: Path, prepared: Prepared, restart: Restart | None, line: StatusLine
    ) -> None:
        self.settings, self.folder, self.prepared, self.line = settings, folder, prepared, line
        molecules = prepared.molecules
        self.recorders = [
            Recorder(
                molecule_folder(folder, molecule.index, molecule.formula, prepared.count),
                self._header(molecule),
                DATASETS,
            )
            for molecule in molecules
        ]
        self.streams = [_streams(settings, molecule) for molecule in molecules]
        self.reporter = Reporter(line, settings.longest_step, settings.total_steps)
        self.plan = phases(settings, molecules)
        states = [self._first_state(molecule) for molecule in molecules]
        if restart:
            states = [state.to(settings.device) for state in restart.states]
            prepared.force_field.restore(restart.force_field)
        phase = phase_at(self.plan, states[0].step)
        self.fragments = [self._fragments(molecule) for molecule in molecules]
        self.simulation = Simulation(
            [
                Group(molecule.system, state, molecule.temperature, *part, fragments)
                for molecule, state, part, fragments in zip(molecules, states, phase.parts, self.fragments, strict=True)
            ],
            prepared.force_field,
            Guards() if settings.spread_limit is None else Guards(spread=settings.spread_limit),
        )
        self._began = self._saved = self._looked = time.monotonic()
        self._told, self._noted, self._saved_at = 0, 0, -1

    def begin(self, restart: Restart | None) -> None:
        """Take up what the folder holds, or write the first restart file."""
        if restart is None:
            self._checkpoint()
            return
        self.simulation.trips += restart.trips
        self.simulation.notes += restart.notes
        self._keep_trips(restart.trips)
        self._keep_notes(restart.notes)
        begun = self.step > self.settings.equilibration_steps  # if not, the first frame is still to be recorded
        for k, recorder in enumerate(self.recorders):
            recorder.fold(self.step if begun else self.step - 1)
            _restore(self.streams[k], restart.streams[k])
            fragments = self.fragments[k]
            if fragments is not None:
                fragments.restore(restart.bonds[k])

    @property
    def step(self) -> int:
        """Steps done."""
        return self.simulation.step_number

    def go(self, interrupt: Interrupt) -> None:
        """All steps that are left."""
        simulation, total = self.simulation, self.settings.total_steps
        first = self.step
        phase: Phase | None = None
        stop = ""
        while self.step < total and not (stop := self._stop(interrupt)) and simulation.alive:
            if phase is None or self.step >= phase.end:
                phase = self._enter(phase_at(self.plan, self.step))
            due = self._due(self.step + 1)
            observed = simulation.step([name for name in OBSERVED if name in due])
            if due:
                simulation.look()
            self._record(due, observed)
            self._report_trips()
            self.reporter.look(simulation)
            full = any(recorder.full for recorder in self.recorders)
            if full or time.monotonic() - self._saved >= self.settings.checkpoint:
                self._checkpoint()
        if self.step > max(first, self._saved_at):  # the one before is to be of an earlier step
            self._checkpoint()
        self._end(stop, self.step - first)

    def _stop(self, interrupt: Interrupt) -> str:
        """Why to stop now, if there is a reason."""
        if interrupt.signal:
            return interrupt.signal
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY:
            return ""
        self._looked = now
        if self.settings.max_time is not None and now - self._began >= self.settings.max_time:
            return f"max_time, {clock(self.settings.max_time)}"
        return f"the file {EXIT}" if any((place / EXIT).exists() for place in self._places()) else ""

    def _places(self) -> set[Path]:
        """Where a file may ask this process to end."""
        return {self.folder, Path(self.settings.output)}

    def _end(self, stop: str, steps: int) -> None:
        simulation, settings = self.simulation, self.settings
        if not simulation.alive:
            raise PaiNNFastError("guards stopped every trajectory", where=self.folder, got=str(simulation.trips[0]))
        if stop and self.step < settings.total_steps:
            raise PaiNNFastError(
                f"stopped by {stop} after step {self.step} of {settings.total_steps}; restartable: yes",
                where=self.folder,
                fix="go on with resume=True, on the command line --resume",
            )
        for recorder in self.recorders:
            recorder.fold(self.step)
        if steps:
            took = clock(time.monotonic() - self._began)
            where = self.folder / "trajectory.h5" if self.prepared.count == 1 else self.folder
            self.line.keep(f"{self.reporter.text(simulation).rsplit(' | ', 1)[0]} | took {took} | {where}")

    def _enter(self, phase: Phase) -> Phase:
        simulation = self.simulation
        simulation.look()  # while the integrators that know are there
        for group, (integrator, estimators) in zip(simulation.groups, phase.parts, strict=True):
            group.integrator, group.estimators = integrator, estimators
        if self.step == self.settings.equilibration_steps:
            self._begin_sampling()
        self.reporter.begin(phase.name, phase.start, phase.end, simulation)
        return phase

    def _begin_sampling(self) -> None:
        """Rest the centre of mass, which the equilibration moved; record the first frame."""
        for group in self.simulation.groups:
            state = group.state
            state.momenta.copy_(self._without_drift(state.momenta, state.positions, group.system))
            state.heat.zero_()
        due = list(self.settings.strides)
        self._record(due, self.simulation.observe([name for name in OBSERVED if name in due]))

    def _first_state(self, molecule: Molecule) -> State:
        P, system = self.settings.beads, molecule.system
        noise: dict[str, Any] = {"seed": molecule.seed, "trajectory": molecule.trajectory}
        positions = initial.ring_positions(
            system, molecule.positions, P, molecule.temperature, start=self.settings.start, **noise
        )
        momenta = initial.maxwell_boltzmann(system, P, molecule.temperature, **noise)
        return State.at(positions, self._without_drift(momenta, positions, system), molecule.trajectory)

    def _fragments(self, molecule: Molecule) -> Fragments | None:
        """What watches the bonds of a molecule."""
        mode = bonds_of(self.settings, molecule)
        if mode == "off":
            return None
        return Fragments(molecule.system, molecule.positions, mode, self.settings.longest_step)

    def _without_drift(self, momenta: Tensor, positions: Tensor, system: System) -> Tensor:
        momenta = initial.remove_translation(momenta, system.masses)
        if self.settings.remove_rotation or "rotation" in self.settings.hold:
            momenta = initial.remove_rotation(momenta, positions, system.masses)
        return momenta

    def _due(self, step: int) -> list[str]:
        """What is recorded after a step; the first frame is recorded before any."""
        sampled = step - self.settings.equilibration_steps
        return [name for name, stride in self.settings.strides.items() if sampled > 0 and sampled % stride == 0]

    def _record(self, due: list[str], observed: list[dict[str, Tensor]]) -> None:
        sampled = self.step - self.settings.equilibration_steps
        for k, (group, seen) in enumerate(zip(self.simulation.groups, observed, strict=True)):
            stream = self.streams[k]
            for name in due:
                columns = _columns(name, group, seen)
                if stream is not None and name in stream.intervals:
                    stream.push(name, columns["value"])
                else:
                    self.recorders[k].add(name, self.step, sampled * self.settings.longest_step, columns)

    def _report_trips(self) -> None:
        """Say what guards saw and write the last good frame of what they stopped."""
        fresh = self.simulation.trips[self._told :]
        self._keep_trips(fresh)
        for trip in fresh:
            self.line.keep(str(trip))
            k, s = self._find(trip.trajectory)
            group = self.simulation.groups[k]
            frames = [group.system.atoms(bead.cpu()) for bead in group.state.positions[s]]
            with atomic_write(self.folder / f"frozen-{trip.trajectory}.xyz") as temporary:
                ase.io.write(temporary, frames, format="extxyz", comment=str(trip))

        notes = self.simulation.notes[self._noted :]
        self._keep_notes(notes)
        for note in notes:
            self.line.keep(str(note))

    def _keep_notes(self, notes: list[Trip]) -> None:
        self._noted += len(notes)
        for note in notes:
            self.recorders[self._find(note.trajectory)[0]].notes.append(note.as_json())

    def _keep_trips(self, trips: list[Trip]) -> None:
        """Into the files of the molecules that they concern."""
        self._told += len(trips)
        for trip in trips:
            self.recorders[self._find(trip.trajectory)[0]].frozen.append(trip.as_json())

    def _find(self, number: int) -> tuple[int, int]:
        """Which group a trajectory is in, and its place there."""
        return next(
            (k, int(place))
            for k, group in enumerate(self.simulation.groups)
            for place in torch.nonzero(group.state.trajectory == number)[:, 0]
        )

    def _checkpoint(self) -> None:
        self.simulation.look()
        self._report_trips()
        for recorder in self.recorders:
            recorder.flush(self.step)
        write_restart(
            self.folder,
            [(group.system, group.state) for group in self.simulation.groups],
            force_field=self.prepared.force_field.state(),
            streams=[{} if stream is None else stream.state() for stream in self.streams],
            settings=self.settings.model_dump(mode="json"),
            trips=self.simulation.trips,
            notes=self.simulation.notes,
            bonds=[{} if fragments is None else fragments.tensors() for fragments in self.fragments],
            model=self.prepared.model,
            config=self.prepared.config,
            starts=[molecule.start for molecule in self.prepared.molecules],
        )
        for recorder, stream in zip(self.recorders, self.streams, strict=True):
            recorder.tidy(self.step)
            if stream is not None:
                stream.save(recorder.folder)
        self._saved, self._saved_at = time.monotonic(), self.step

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
            "model_sha256": self.prepared.model,
            RUN: run_identity(settings, self.prepared, molecule),
            "settings": json.dumps(settings.model_dump(mode="json")),
            "units": "numbers: 1, masses: amu, cell: Ang, total_charge: e, spin_multiplicity: 1 (2S + 1), "
            "temperature: K, *time_step and *_every: fs",
            **intervals,
        }


def _streams(settings: MDSettings, molecule: Molecule) -> SpectrumStreams | None:
    """What takes the series that are not kept."""
    if not settings.streamed:
        return None
    assert settings.stream is not None
    symbols = [chemical_symbols[z] for z in molecule.system.numbers.tolist()]
    return SpectrumStreams(settings.streamed, settings.stream, symbols=symbols, masses=_array(molecule.system.masses))


def _restore(stream: SpectrumStreams | None, state: dict[str, Tensor]) -> None:
    if stream is not None:
        stream.restore({name: _array(value) for name, value in state.items()})


def _columns(name: str, group: Group, observed: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """What is recorded of a group under a name."""
    if name == "energies":
        return {key: _array(value) for key, value in group.estimates().items()}
    if name == "positions":
        return {"value": _array(group.masked(group.state.positions))}
    if name == "velocities":
        return {"value": _array(group.masked(group.state.momenta / group.system.masses[:, None]))}
    return {"value": _array(observed[name])}


def _one_or_all(values: Tensor) -> np.ndarray | float | int:
    """The value of all trajectories, or an array of them."""
    first: float | int = values[0].item()
    return first if bool((values == values[0]).all()) else _array(values)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()
