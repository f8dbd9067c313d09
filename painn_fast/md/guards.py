"""Signs that a trajectory has left what the model or the time step can describe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.batch import CLOSEST
from painn_fast.md.estimators import Estimators
from painn_fast.md.geometry import atom_name, closest_pair
from painn_fast.md.state import State, System


@dataclass(frozen=True)
class LimitExceeded:
    """A limit that a trajectory exceeded in a step, or a bond of it that broke."""

    trajectory: int
    step: int
    bead: int | None
    atom: int | None
    """None where it concerns the whole trajectory."""
    what: str
    value: float
    limit: float
    cause: str
    bond: tuple[int, int] | None = None
    """The atoms of a bond that broke."""
    start: float | None = None
    """Å, length of that bond at the start."""
    stopped: bool = True
    """False for what is only noted."""

    def __str__(self) -> str:
        where = "" if self.atom is None else f", bead {self.bead}, atom {self.atom}"
        return (
            f"trajectory {self.trajectory} {'stopped ' * self.stopped}at step {self.step}{where}: {self.what} "
            f"{self.value:.4g}, limit {self.limit:.4g}; likely cause: {self.cause}"
        )

    def as_json(self) -> dict[str, Any]:
        """For restart files and attributes; `LimitExceeded(**values)` reads it."""
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

    def max_temperature(self, estimators: Estimators, target: Tensor) -> Tensor:
        """Limit of the temperature of the momenta [S], K, for targets [S]."""
        return target * max(self.heating, 1.0 + 40.0 / estimators.degrees**0.5)

    def describe(
        self,
        s: int,
        step: int,
        state: State,
        previous: Tensor,
        estimators: Estimators,
        target: Tensor,
        system: System,
        spread: Tensor | None = None,
        failure: str = "",
    ) -> LimitExceeded:
        """Which limit trajectory `s` exceeded in a step, worst first; `failure` is the error of the force field."""
        number = int(state.trajectory[s])
        forces = torch.linalg.vector_norm(state.forces[s], dim=-1)  # [P, N]
        moves = torch.linalg.vector_norm(state.positions[s] - previous[s], dim=-1)
        for what, values in (("positions are", moves), ("forces are", forces)):
            if not bool(torch.isfinite(values).all()):
                bead, atom = divmod(int((~torch.isfinite(values)).flatten().int().argmax()), values.shape[1])
                cause = _not_finite(state.positions[s, bead], atom, system, failure)
                return LimitExceeded(number, step, bead, atom, f"{what} not finite,", float("nan"), self.force, cause)
        doubt = torch.zeros_like(forces) if spread is None else spread[s]
        far = "a geometry far from the training data"
        for what, values, limit, cause in (
            ("spread of the members' forces in eV/Å", doubt, self.spread, far),
            ("force in eV/Å", forces, self.force, "a geometry far from the training data, or a time step too long"),
            ("move in one step in Å", moves, self.move, "a time step too long for this mass and temperature"),
        ):
            if not bool((values < limit).all()):  # NaN is above any limit
                bead, atom = divmod(int(values.nan_to_num(nan=torch.inf).argmax()), values.shape[1])
                what = f"{what} on {atom_name(system, atom)}"
                return LimitExceeded(number, step, bead, atom, what, float(values[bead, atom]), limit, cause)
        if not bool(torch.isfinite(state.energy[s]).all()):
            return LimitExceeded(
                number, step, None, None, "energy not finite,", float("nan"), 0.0, "a geometry that the model fails on"
            )
        hot = float(estimators.kinetic_temperature(state)[s])
        limit = float(self.max_temperature(estimators, target)[s])
        cause = "energy is not conserved: the time step is too long, or the model fails at this geometry"
        return LimitExceeded(number, step, None, None, "temperature in K", hot, limit, cause)


def _not_finite(positions: Tensor, atom: int, system: System, failure: str) -> str:
    """Why the force on an atom of a bead at positions [N, 3] is not finite."""
    i, j, apart = closest_pair(positions, system)
    if apart < CLOSEST:
        return f"{atom_name(system, i)} and {atom_name(system, j)} are on top of each other, {apart:.2g} Å apart"
    if failure:
        return f"the force field fails at these positions: {failure}"
    return f"the model returned NaN for {atom_name(system, atom)}: atoms on top of each other, or a step too long"


def check_start(state: State, guards: Guards, system: System) -> None:
    """Refuse a first frame that dynamics cannot start from.

    Raises:
        PaiNNFastError: if energy or forces of the first frame are not finite or beyond the limit.
    """
    good = torch.isfinite(state.energy) & torch.isfinite(state.forces).flatten(2).all(2)  # [S, P]
    if not bool(good.all()):
        s, bead = divmod(int((~good).flatten().int().argmax()), good.shape[1])
        atom = int((~torch.isfinite(state.forces[s, bead]).all(1)).int().argmax())
        raise PaiNNFastError(
            "the model gives no finite energy and forces for the first frame",
            where=f"trajectory {int(state.trajectory[s])}, bead {bead}",
            got=_not_finite(state.positions[s, bead], atom, system, ""),
            fix="check the structure and the model",
        )
    forces = torch.linalg.vector_norm(state.forces, dim=-1)
    if not bool((forces <= guards.force).all()):
        atom = int(forces.argmax()) % forces.shape[-1]
        raise PaiNNFastError(
            "the forces of the first frame are too large",
            where=f"atom {atom}",
            got=f"{float(forces.max()):.4g} eV/Å",
            expected=f"at most {guards.force:g} eV/Å",
            fix="optimize the structure first",
        )
