"""The stretches of a run: an equilibration under a thermostat, then the run itself."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from painn_fast.md.estimators import Estimators
from painn_fast.md.integrators import RingPolymer
from painn_fast.md.settings import MDSettings
from painn_fast.md.state import System
from painn_fast.md.thermostats import Ensemble


@dataclass(frozen=True)
class Phase:
    """Steps start to end under one ensemble."""

    name: str
    start: int
    end: int
    integrator: RingPolymer
    estimators: Estimators


def phases(settings: MDSettings, system: System, temperature: Tensor) -> list[Phase]:
    """Phases of a run in order; temperature [S] K."""
    plan: list[tuple[str, int, int, Ensemble]] = []
    end = settings.equilibration_steps
    if end > 0:
        plan.append(("equilibration", 0, end, settings.equilibration_ensemble))
    plan.append(("run", end, settings.total_steps, settings.ensemble))
    return [
        Phase(
            name,
            first,
            last,
            RingPolymer(
                system,
                ensemble,
                settings.beads,
                temperature,
                settings.time_step,
                tau0=settings.tau,
                seed=settings.seed,
            ),
            Estimators(system, settings.beads, temperature, removed=_conserved(ensemble, settings)),
        )
        for name, first, last, ensemble in plan
    ]


def phase_at(plan: list[Phase], step: int) -> Phase:
    """The phase that step + 1 belongs to."""
    return next((phase for phase in plan if step < phase.end), plan[-1])


def _conserved(ensemble: Ensemble, settings: MDSettings) -> int:
    """Degrees of freedom of the centroid that stay at rest."""
    if ensemble in ("pile-l", "langevin"):
        return 0
    return 6 if settings.remove_rotation else 3
