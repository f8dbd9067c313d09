"""A whole run of dynamics: from settings to a trajectory on disk, resumable bit for bit."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import torch
from torch import Tensor

from painn_fast.atomic import atomic_write
from painn_fast.errors import PaiNNFastError
from painn_fast.interrupt import Interrupt
from painn_fast.md import initial
from painn_fast.md.estimators import UNITS
from painn_fast.md.forces import ForceField
from painn_fast.md.guards import Guards
from painn_fast.md.phases import Phase, phase_at, phases
from painn_fast.md.prepare import Prepared, clear_folder, earlier_run, prepare
from painn_fast.md.reporters import Reporter
from painn_fast.md.restart import Restart, write_restart
from painn_fast.md.segments import Recorder
from painn_fast.md.settings import MDSettings
from painn_fast.md.simulation import Simulation
from painn_fast.md.state import State
from painn_fast.progress import StatusLine, clock
from painn_fast.settings import write_resolved

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

    Args:
        settings: what to run.
        force_field: instead of `settings.model`.
        atoms: instead of `settings.structure`; trajectories start from several structures in turn.
        resume: go on with the run in the folder, bit for bit; starts it if there is none.
        overwrite: replace the run in the folder.

    Returns:
        Path of trajectory.h5; read it with `Trajectory`.

    Raises:
        PaiNNFastError: if the folder holds a run and neither `resume` nor `overwrite` is given, if settings, model and
            structure do not fit, if the run is interrupted (it can be resumed), or if guards stopped all trajectories.
    """
    folder = Path(settings.output)
    restart = earlier_run(folder, resume=resume, overwrite=overwrite)
    prepared = prepare(settings, force_field, atoms, restart)
    if restart is None:
        clear_folder(folder)
    write_resolved(settings, folder / "settings.toml", {"model_sha256": prepared.model})
    with StatusLine() as line, Interrupt() as interrupt:
        return _Run(settings, folder, prepared, restart, line).go(interrupt)


class _Run:
    """One run: a simulation, what it writes and what it says."""

    def __init__(
        self, settings: MDSettings, folder: Path, prepared: Prepared, restart: Restart | None, line: StatusLine
    ) -> None:
        self.settings, self.folder, self.prepared, self.line = settings, folder, prepared, line
        device = prepared.system.masses.device
        self.temperature = torch.full(
            (settings.trajectories,), settings.temperature, dtype=torch.float64, device=device
        )
        self.recorder = Recorder(folder, self._header(), DATASETS)
        self.reporter = Reporter(line, settings.time_step, settings.total_steps)
        self.plan = phases(settings, prepared.system, self.temperature)
        state = restart.state.to(device) if restart else self._first_state()
        if restart:
            prepared.force_field.restore(restart.force_field)
            self.recorder.frozen = [trip.as_json() for trip in restart.trips]
            self.recorder.fold(state.step)
        phase = phase_at(self.plan, state.step)
        self.simulation = Simulation(
            prepared.system,
            state,
            prepared.force_field,
            phase.integrator,
            phase.estimators,
            self.temperature,
            Guards() if settings.spread_limit is None else Guards(spread=settings.spread_limit),
        )
        self.simulation.trips += restart.trips if restart else []
        self._saved = time.monotonic()
        if not restart:
            self._checkpoint()

    def go(self, interrupt: Interrupt) -> Path:
        """All steps that are left."""
        simulation, state, total = self.simulation, self.simulation.state, self.settings.total_steps
        began, first = time.monotonic(), state.step
        phase: Phase | None = None
        while state.step < total and not interrupt.signal and bool(state.alive.any()):
            if phase is None or state.step >= phase.end:
                phase = self._enter(phase_at(self.plan, state.step))
            due = self._due(state.step + 1)
            observed = simulation.step([name for name in OBSERVED if name in due])
            self._record(due, observed)
            self._report_trips()
            self.reporter.look(simulation)
            if time.monotonic() - self._saved >= self.settings.checkpoint or self.recorder.full:
                self._checkpoint()
        if state.step > first:
            self._checkpoint()
        return self._end(interrupt, time.monotonic() - began, state.step - first)

    def _end(self, interrupt: Interrupt, seconds: float, steps: int) -> Path:
        state, settings = self.simulation.state, self.settings
        if not bool(state.alive.any()):
            raise PaiNNFastError(
                "guards stopped every trajectory", where=self.folder, got=str(self.simulation.trips[0])
            )
        if interrupt.signal and state.step < settings.total_steps:
            raise PaiNNFastError(
                f"stopped by {interrupt.signal} after step {state.step} of {settings.total_steps}; nothing is lost",
                where=self.folder,
                fix="go on with resume=True, on the command line --resume",
            )
        self.recorder.fold(state.step)
        path = self.folder / "trajectory.h5"
        if steps:
            self.line.keep(
                f"{self.reporter.text(self.simulation).rsplit(' | ', 1)[0]} | took {clock(seconds)} | {path}"
            )
        return path

    def _enter(self, phase: Phase) -> Phase:
        simulation, state = self.simulation, self.simulation.state
        simulation.integrator, simulation.estimators = phase.integrator, phase.estimators
        if state.step == self.settings.equilibration_steps:
            self._begin_sampling()
        self.reporter.begin(phase.name, phase.start, phase.end, simulation)
        return phase

    def _begin_sampling(self) -> None:
        """Rest the centre of mass, which the equilibration moved; record the first frame."""
        state = self.simulation.state
        state.momenta.copy_(self._without_drift(state.momenta, state.positions))
        state.heat.zero_()
        due = list(self.settings.strides)
        self._record(due, self.simulation.observe([name for name in OBSERVED if name in due]))

    def _first_state(self) -> State:
        settings, prepared = self.settings, self.prepared
        trajectory = torch.arange(settings.trajectories, device=self.temperature.device)
        starts = prepared.positions[trajectory % len(prepared.positions)]  # [S, N, 3]
        P, seed, system = settings.beads, settings.seed, prepared.system
        positions = initial.ring_positions(
            system, starts, P, self.temperature, start=settings.start, seed=seed, trajectory=trajectory
        )
        momenta = initial.maxwell_boltzmann(system, P, self.temperature, seed=seed, trajectory=trajectory)
        return State.at(positions, self._without_drift(momenta, positions), trajectory)

    def _without_drift(self, momenta: Tensor, positions: Tensor) -> Tensor:
        momenta = initial.remove_translation(momenta, self.prepared.system.masses)
        if self.settings.remove_rotation:
            momenta = initial.remove_rotation(momenta, positions, self.prepared.system.masses)
        return momenta

    def _due(self, step: int) -> list[str]:
        """What is recorded after a step; the first frame is recorded before any."""
        sampled = step - self.settings.equilibration_steps
        return [name for name, stride in self.settings.strides.items() if sampled > 0 and sampled % stride == 0]

    def _record(self, due: list[str], observed: dict[str, Tensor]) -> None:
        simulation, state = self.simulation, self.simulation.state
        for name in due:
            if name == "energies":
                columns = {key: _array(value) for key, value in simulation.estimates().items()}
            elif name == "positions":
                columns = {"value": _array(simulation.masked(state.positions))}
            elif name == "velocities":
                velocities = state.momenta / self.prepared.system.masses[:, None]
                columns = {"value": _array(simulation.masked(velocities))}
            else:
                columns = {"value": _array(observed[name])}
            sampled = state.step - self.settings.equilibration_steps
            self.recorder.add(name, state.step, sampled * self.settings.time_step, columns)

    def _report_trips(self) -> None:
        """Say what guards saw and write the last good frame of what they stopped."""
        for trip in self.simulation.trips[len(self.recorder.frozen) :]:
            self.line.keep(str(trip))
            self.recorder.frozen.append(trip.as_json())
            beads = self.simulation.state.positions[trip.trajectory]
            frames = [self.prepared.system.atoms(bead.cpu()) for bead in beads]
            with atomic_write(self.folder / f"frozen-{trip.trajectory}.xyz") as temporary:
                ase.io.write(temporary, frames, format="extxyz", comment=str(trip))

    def _checkpoint(self) -> None:
        state = self.simulation.state
        self.recorder.flush(state.step)
        write_restart(
            self.folder,
            state,
            system=self.prepared.system,
            force_field=self.prepared.force_field.state(),
            settings=self.settings.model_dump(mode="json"),
            trips=self.simulation.trips,
            model=self.prepared.model,
        )
        self.recorder.tidy(state.step)
        self._saved = time.monotonic()

    def _header(self) -> dict[str, Any]:
        settings, system = self.settings, self.prepared.system
        intervals = {f"{name}_every": stride * settings.time_step for name, stride in settings.strides.items()}
        return {
            "numbers": _array(system.numbers),
            "masses": _array(system.masses),
            "cell": _array(system.cell),
            "pbc": _array(system.pbc),
            "beads": settings.beads,
            "trajectories": settings.trajectories,
            "temperature": settings.temperature,
            "time_step": settings.time_step,
            "ensemble": settings.ensemble,
            "seed": settings.seed,
            "model_sha256": self.prepared.model,
            "settings": json.dumps(settings.model_dump(mode="json")),
            "units": "numbers: 1, masses: amu, cell: Ang, temperature: K, time_step and *_every: fs",
            **intervals,
        }


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()
