"""The stretches of a run: an equilibration under a thermostat, then the run itself."""

from __future__ import annotations

from dataclasses import dataclass

from painn_fast.md.estimators import Estimators
from painn_fast.md.integrators import RingPolymer
from painn_fast.md.settings import MDSettings
from painn_fast.md.setup import Molecule
from painn_fast.md.thermostats import Ensemble


@dataclass(frozen=True)
class Phase:
    """Steps start to end under one ensemble."""

    name: str
    start: int
    end: int
    parts: list[tuple[RingPolymer, Estimators]]
    """Of each molecule."""


def phases(settings: MDSettings, molecules: list[Molecule]) -> list[Phase]:
    """Phases of a run in order."""
    plan: list[tuple[str, int, int, Ensemble]] = []
    end = settings.equilibration_steps
    if end > 0:
        plan.append(("equilibration", 0, end, settings.equilibration_ensemble))
    plan.append(("run", end, settings.total_steps, settings.ensemble))
    return [
        Phase(name, first, last, [_part(settings, ensemble, molecule) for molecule in molecules])
        for name, first, last, ensemble in plan
    ]


def phase_at(plan: list[Phase], step: int) -> Phase:
    """The phase that step + 1 belongs to."""
    return next((phase for phase in plan if step < phase.end), plan[-1])


def _part(settings: MDSettings, ensemble: Ensemble, molecule: Molecule) -> tuple[RingPolymer, Estimators]:
    removed = _at_rest(ensemble, settings, molecule)
    integrator = RingPolymer(
        molecule.system,
        ensemble,
        settings.beads,
        molecule.temperature,
        molecule.time_step,
        tau0=settings.tau,
        seed=molecule.seed,
        removed=removed,
        hold=settings.hold,
    )
    return integrator, Estimators(molecule.system, settings.beads, molecule.temperature, removed=removed)


def _at_rest(ensemble: Ensemble, settings: MDSettings, molecule: Molecule) -> int:
    """Degrees of freedom of the centroid that stay at rest."""
    turns = 0 if "rotation" in settings.hold else molecule.rotations
    if ensemble in ("pile-l", "langevin"):
        return 3 * ("translation" in settings.hold) + molecule.rotations - turns
    if settings.remove_rotation and not (ensemble == "pile-g" and settings.beads > 1):  # its other modes begin one
        turns = 0
    return 3 + molecule.rotations - turns
