"""Stages of a run: equilibration under a thermostat, then production."""

from __future__ import annotations

from dataclasses import dataclass

from painn_fast.md.estimators import Estimators
from painn_fast.md.integrators import RingPolymer
from painn_fast.md.settings import MDSettings
from painn_fast.md.setup import Molecule
from painn_fast.md.thermostats import Ensemble


@dataclass(frozen=True)
class Stage:
    """Steps start to end under one ensemble."""

    name: str
    start: int
    end: int
    motion: list[tuple[RingPolymer, Estimators]]
    """Integrator and estimators of each molecule."""


def stages(settings: MDSettings, molecules: list[Molecule]) -> list[Stage]:
    """Stages of a run in order."""
    first = settings.equilibration_steps
    plan: list[tuple[str, int, int, Ensemble]] = [("production", first, settings.total_steps, settings.ensemble)]
    if first > 0:
        plan.insert(0, ("equilibration", 0, first, "pile-l" if settings.beads > 1 else "langevin"))
    tau = {"equilibration": settings.equilibration_tau or settings.tau, "production": settings.tau}
    return [
        Stage(name, start, end, [_motion(settings, ensemble, tau[name], molecule) for molecule in molecules])
        for name, start, end, ensemble in plan
    ]


def stage_at(plan: list[Stage], step: int) -> Stage:
    """The stage that step + 1 belongs to."""
    return next((stage for stage in plan if step < stage.end), plan[-1])


def _motion(settings: MDSettings, ensemble: Ensemble, tau: float, molecule: Molecule) -> tuple[RingPolymer, Estimators]:
    removed = _constrained(ensemble, settings, molecule)
    integrator = RingPolymer(
        molecule.system,
        ensemble,
        settings.beads,
        molecule.temperature,
        molecule.time_step,
        tau0=tau,
        seed=molecule.seed,
        removed=removed,
        remove_com_motion=settings.remove_com_motion,
    )
    return integrator, Estimators(molecule.system, settings.beads, molecule.temperature, removed=removed)


def _constrained(ensemble: Ensemble, settings: MDSettings, molecule: Molecule) -> int:
    """Degrees of freedom of the centroid that stay at rest, translations and rotations."""
    removed = settings.remove_com_motion
    free = 0 if "rotation" in removed else molecule.rotations
    if ensemble in ("pile-l", "langevin"):
        return 3 * ("translation" in removed) + molecule.rotations - free
    if settings.remove_rotation and not (ensemble == "pile-g" and settings.beads > 1):  # its other modes excite one
        free = 0
    return 3 + molecule.rotations - free
