"""A whole run of dynamics: from settings to a trajectory on disk, resumable bit for bit."""

from __future__ import annotations

import os
import time
from pathlib import Path

import ase

from painn_fast.errors import PaiNNFastError
from painn_fast.kernels.jit import working_time
from painn_fast.md.force_field import ForceField
from painn_fast.md.guards import Guards
from painn_fast.md.output import OBSERVED, Output, clear_folder, earlier_run, refuse_other_world
from painn_fast.md.reporter import Reporter
from painn_fast.md.restart import Restart
from painn_fast.md.resume import fallback, resumed
from painn_fast.md.settings import MDSettings
from painn_fast.md.setup import Setup, bond_guard, bonds_mode, first_state, remove_drift, set_up
from painn_fast.md.simulation import Group, Simulation
from painn_fast.md.stages import Stage, stage_at, stages
from painn_fast.runtime import checkpoint
from painn_fast.runtime.folders import rank_folder, remove_temporaries
from painn_fast.runtime.interrupt import Interrupt
from painn_fast.runtime.progress import StatusLine, clock, warn
from painn_fast.runtime.ranks import rank_and_world_size
from painn_fast.settings import write_resolved

EXIT = "EXIT"
"""A file of this name in the folder of a run ends it cleanly."""
POLL_EVERY = 0.2
"""Seconds between checks of the clock and for the file."""


def run(
    settings: MDSettings,
    *,
    force_field: ForceField | None = None,
    atoms: ase.Atoms | list[ase.Atoms] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Run dynamics and write it to `settings.output`: trajectory.h5, settings.toml, restart files.

    Under `torchrun` each process runs its share of the trajectories in a folder of its own, `rank-<number>`, and waits
    for no other; `Trajectory` reads them as one. Several molecules have a folder each, such as `0-C2H6O`.

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

    Example:
        >>> from painn_fast.md import MDSettings, Trajectory, run
        >>> path = run(MDSettings(model="ethanol", duration="2 fs", positions_every="1 fs", output="two-fs"))
        >>> path.as_posix()
        'two-fs/trajectory.h5'
        >>> Trajectory(path).positions.shape  # frames, trajectories, beads, atoms, 3
        (3, 1, 1, 9, 3)
    """
    rank, world = rank_and_world_size()
    if world > 1 and settings.device == "cuda":
        settings = settings.model_copy(update={"device": f"cuda:{os.environ.get('LOCAL_RANK', '0')}"})
    output = Path(settings.output)
    folder = rank_folder(output, rank, world)
    refuse_other_world(output, rank, world, overwrite=overwrite)
    mine = _share(settings.trajectories, rank, world)
    restart = earlier_run(folder, resume=resume, overwrite=overwrite)
    settings = settings.with_positions(None if restart is None else restart.settings)
    setup = set_up(settings, force_field, atoms, mine)
    if restart is not None:
        setup = resumed(settings, setup, restart, folder)
    with StatusLine(silent=rank > 0) as line, Interrupt() as interrupt:
        this = _Run(settings, folder, setup, restart, line)  # refuses what cannot start before anything is written
        if restart is None:
            clear_folder(folder)
        else:
            for note in fallback(settings, setup, restart, folder):
                warn(note)
            checkpoint.set_aside(restart.failed)
        remove_temporaries(folder)
        for path in this.exit_files:
            path.unlink(missing_ok=True)
        modes = dict.fromkeys(bonds_mode(settings, molecule) for molecule in setup.molecules)
        write_resolved(settings, folder / "settings.toml", {"model_sha256": setup.model, "fragments": ", ".join(modes)})
        this.begin(restart)
        this.go(interrupt)
    path = folder / "trajectory.h5"
    return path if world == 1 and path.exists() else output


def _share(trajectories: int, rank: int, world: int) -> range:
    """Numbers of the trajectories of one of `world` processes, consecutive."""
    if trajectories < world:
        raise PaiNNFastError(
            "fewer trajectories than processes", got=f"{trajectories} for {world}", fix="start fewer processes"
        )
    return range(trajectories * rank // world, trajectories * (rank + 1) // world)


class _Run:
    """One run: a simulation in stages, its output and its live line."""

    def __init__(
        self, settings: MDSettings, folder: Path, setup: Setup, restart: Restart | None, line: StatusLine
    ) -> None:
        self.settings, self.folder, self.line = settings, folder, line
        self.exit_files = {folder / EXIT, Path(settings.output) / EXIT}
        self.output = Output(settings, folder, setup, line)
        self.reporter = Reporter(line, settings.longest_step, settings.total_steps)
        self.stages = stages(settings, setup.molecules)
        self.simulation = self._simulation(setup, restart)
        if restart is None and setup.custom:  # what it cannot observe is an error now, not after the equilibration
            self.simulation.observe(self._observed(list(settings.strides)))
        self._began, self._polled = working_time(), time.monotonic()

    def _simulation(self, setup: Setup, restart: Restart | None) -> Simulation:
        """All trajectories at the start, or as the restart has them."""
        settings, molecules = self.settings, setup.molecules
        guards = [bond_guard(settings, molecule) for molecule in molecules]
        if restart is None:
            states = [first_state(settings, molecule) for molecule in molecules]
        else:
            states = [state.to(settings.device) for state in restart.states]
            setup.force_field.restore(restart.force_field)
            for guard, bonds in zip(guards, restart.bonds, strict=True):
                if guard is not None:
                    guard.restore(bonds)
        motion = stage_at(self.stages, states[0].step).motion
        groups = [
            Group(molecule.system, state, molecule.temperature, *parts, guard)
            for molecule, state, parts, guard in zip(molecules, states, motion, guards, strict=True)
        ]
        spread = {} if settings.spread_limit is None else {"spread": settings.spread_limit}
        simulation = Simulation(groups, setup.force_field, Guards(**spread))
        if restart is not None:
            simulation.exceeded += restart.exceeded
            simulation.notes += restart.notes
        return simulation

    @property
    def step(self) -> int:
        """Steps done."""
        return self.simulation.step_number

    def begin(self, restart: Restart | None) -> None:
        """Write the first restart file, or take up what the folder holds."""
        if restart is None:
            self.output.checkpoint(self.simulation)
        else:
            self.output.resume(restart, self.simulation)

    def go(self, interrupt: Interrupt) -> None:
        """All steps that are left."""
        simulation, output, total = self.simulation, self.output, self.settings.total_steps
        first = self.step
        stage: Stage | None = None
        stop = ""
        while self.step < total and not (stop := self._stop(interrupt)) and simulation.alive:
            if stage is None or self.step >= stage.end:
                stage = self._enter(stage_at(self.stages, self.step))
            due = output.due(self.step + 1)
            observed = simulation.step(self._observed(due))
            if due:
                simulation.check_limits()
            output.record(simulation, due, observed)
            output.report(simulation)
            self.reporter.update(simulation)
            if output.full or time.monotonic() - output.saved >= self.settings.checkpoint:
                output.checkpoint(simulation)
        if self.step > max(first, output.saved_step):  # the restart file before is to be of an earlier step
            output.checkpoint(simulation)
        self._end(stop, self.step - first)

    def _observed(self, names: list[str]) -> list[str]:
        return [name for name in OBSERVED if name in names]

    def _stop(self, interrupt: Interrupt) -> str:
        """Why to stop now, if there is a reason."""
        if interrupt.signal:
            return interrupt.signal
        now = time.monotonic()
        if now - self._polled < POLL_EVERY:
            return ""
        self._polled = now
        if self.settings.max_time is not None and working_time() - self._began >= self.settings.max_time:
            return f"max_time, {clock(self.settings.max_time)}"
        return f"the file {EXIT}" if any(path.exists() for path in self.exit_files) else ""

    def _enter(self, stage: Stage) -> Stage:
        """Change to the integrators of a stage."""
        simulation = self.simulation
        simulation.check_limits()  # with the integrators that know of them
        for group, (integrator, estimators) in zip(simulation.groups, stage.motion, strict=True):
            group.integrator, group.estimators = integrator, estimators
        if self.step == self.settings.equilibration_steps:
            self._begin_production()
        self.reporter.begin(stage.name, stage.start, stage.end, simulation)
        return stage

    def _begin_production(self) -> None:
        """Stop the centre of mass, which the equilibration moved; record the first frame."""
        for group in self.simulation.groups:
            remove_drift(self.settings, group.system, group.state)
            group.state.heat.zero_()
        due = list(self.settings.strides)
        self.output.record(self.simulation, due, self.simulation.observe(self._observed(due)))

    def _end(self, stop: str, steps: int) -> None:
        """Fold the trajectory and report, or raise PaiNNFastError if the run did not come to its end."""
        simulation, total = self.simulation, self.settings.total_steps
        if not simulation.alive:
            raise PaiNNFastError("guards stopped every trajectory", where=self.folder, got=str(simulation.exceeded[0]))
        if stop and self.step < total:
            raise PaiNNFastError(
                f"stopped by {stop} after step {self.step} of {total}; restartable: yes",
                where=self.folder,
                fix="go on with resume=True, on the command line --resume",
            )
        path = self.output.finish(self.step)
        if steps:
            took = clock(working_time() - self._began)
            self.line.keep(f"{self.reporter.text(simulation).rsplit(' | ', 1)[0]} | took {took} | {path}")
