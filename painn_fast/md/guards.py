"""Signs that a trajectory has left what the model or the time step can describe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.md.estimators import Estimators
from painn_fast.md.state import State, System


@dataclass(frozen=True)
class Trip:
    """What a guard saw."""

    trajectory: int
    step: int
    bead: int | None
    atom: int | None
    """None where it concerns the whole trajectory."""
    what: str
    value: float
    limit: float
    cause: str

    def __str__(self) -> str:
        place = "" if self.atom is None else f", bead {self.bead}, atom {self.atom}"
        return (
            f"trajectory {self.trajectory} stopped at step {self.step}{place}: {self.what} {self.value:.4g}, "
            f"limit {self.limit:.4g}; likely cause: {self.cause}"
        )

    def as_json(self) -> dict[str, Any]:
        """For restart files and attributes; `Trip(**values)` reads it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Guards:
    """Limits of what a step may do.

    Args:
        force: eV/Å, on one atom of one bead.
        move: Å, of one atom of one bead in one step.
        spread: eV/Å, standard deviation of the force on an atom over the members of an ensemble.
        heating: temperature of the momenta as a multiple of the target; more where there are so few degrees of freedom
            that a fluctuation could reach it.
    """

    force: float = 100.0
    move: float = 0.5
    heating: float = 10.0
    spread: float = float("inf")

    def hottest(self, estimators: Estimators, target: Tensor) -> Tensor:
        """Limit of the temperature of the momenta [S], K, for targets [S]."""
        return target * max(self.heating, 1.0 + 40.0 / estimators.degrees**0.5)

    def explain(
        self,
        s: int,
        step: int,
        state: State,
        previous: Tensor,
        estimators: Estimators,
        target: Tensor,
        system: System,
        spread: Tensor | None = None,
    ) -> Trip:
        """Which limit trajectory `s` broke in a step, worst first."""
        number = int(state.trajectory[s])
        forces = torch.linalg.vector_norm(state.forces[s], dim=-1)  # [P, N]
        moves = torch.linalg.vector_norm(state.positions[s] - previous[s], dim=-1)
        for what, values in (("positions are", moves), ("forces are", forces)):
            if not bool(torch.isfinite(values).all()):
                bead, atom = divmod(int((~torch.isfinite(values)).flatten().int().argmax()), values.shape[1])
                name = self._name(system, atom)
                cause = f"{name} is where the model gives no numbers: atoms on top of each other, or a step too long"
                return Trip(number, step, bead, atom, f"{what} not finite,", float("nan"), self.force, cause)
        doubt = torch.zeros_like(forces) if spread is None else spread[s]
        far = "a geometry far from the training data"
        for what, values, limit, cause in (
            ("spread of the members' forces in eV/Å", doubt, self.spread, far),
            ("force in eV/Å", forces, self.force, "a geometry far from the training data, or a time step too long"),
            ("move in one step in Å", moves, self.move, "a time step too long for this mass and temperature"),
        ):
            if float(values.max()) >= limit:
                bead, atom = divmod(int(values.argmax()), values.shape[1])
                name = self._name(system, atom)
                return Trip(number, step, bead, atom, f"{what} on {name}", float(values.max()), limit, cause)
        if not bool(torch.isfinite(state.energy[s]).all()):
            return Trip(
                number, step, None, None, "energy not finite,", float("nan"), 0.0, "a geometry that the model fails on"
            )
        hot = float(estimators.kinetic_temperature(state)[s])
        limit = float(self.hottest(estimators, target)[s])
        return Trip(
            number, step, None, None, "temperature in K", hot, limit, "energy out of nowhere: time step or model"
        )

    def _name(self, system: System, atom: int) -> str:
        return f"{chemical_symbols[int(system.numbers[atom])]}{atom}"


def check_start(state: State, guards: Guards) -> None:
    """Refuse to start where nothing could come of it.

    Raises:
        PaiNNFastError: if energy or forces of the first frame are not finite or beyond the limit.
    """
    if not bool(torch.isfinite(state.energy).all() & torch.isfinite(state.forces).all()):
        raise PaiNNFastError(
            "the model gives no finite energy and forces for the first frame", fix="check the structure and the model"
        )
    forces = torch.linalg.vector_norm(state.forces, dim=-1)
    if float(forces.max()) > guards.force:
        atom = int(forces.argmax()) % forces.shape[-1]
        raise PaiNNFastError(
            "the forces of the first frame are too large",
            where=f"atom {atom}",
            got=f"{float(forces.max()):.4g} eV/Å",
            expected=f"at most {guards.force:g} eV/Å",
            fix="optimize the structure first",
        )
