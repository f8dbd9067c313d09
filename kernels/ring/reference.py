"""The parts of a time step of ring-polymer dynamics in plain torch: the specification, and what runs without Triton.

    B  p <- p + dt/2 f                             kick of the beads
    A  q <- cos q + sin / (m omega) p,  p <- cos p - m omega sin q        free ring polymer, exact, in normal modes
    O  p <- c p + sqrt(1 - c^2) sqrt(m P kB T) xi                         thermostat of a mode

`advance` is B A, or with a thermostat B A/2 O A/2; then come forces at the new positions, then `close`, the second B
and the check of limits. Trajectories that exceeded a limit do not move any more; nothing changes for others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from painn_fast.kernels.random import normal

NOISE = 0
"""Stream of the random numbers; those of the start have others."""


@dataclass(frozen=True)
class Ring:
    """Coefficients of S ring polymers of P beads of N atoms, all float64 but the seeds. Units: amu, Å, fs.

    Momenta of modes are those of an orthogonal transformation: each degree of freedom has m P kB T.
    """

    kick: Tensor  # [S] dt / 2, times amu Å / fs^2 per unit of force
    matrix: Tensor  # [P, P] normal modes, a row each
    cosine: Tensor  # [S, P] cos(omega h); h is dt, or dt / 2 with a thermostat
    sinc: Tensor  # [S, P] sin(omega h) / omega
    pull: Tensor  # [S, P] omega sin(omega h)
    masses: Tensor  # [N]
    energy_unit: float  # of heat in amu Å^2 / fs^2
    seed: Tensor  # [S] int64
    damping: Tensor  # [S, P] c of O; [S, 0] without a thermostat
    noise: Tensor  # [S, P] sqrt((1 - c^2) P kB T)
    rescaling: Tensor  # [S, 2] exp(-dt / tau) and P kB T of a velocity rescaling of the centroid; [S, 0] without
    degrees: int  # of freedom of the centroid that are rescaled
    rest: bool  # whether the centroid of the centre of mass is held at rest by the thermostat


def kick(momenta: Tensor, forces: Tensor, ring: Ring) -> Tensor:
    """B: new momenta [S, P, N, 3], with forces [S, P, N, 3]."""
    return momenta + forces * ring.kick[:, None, None, None]


def put(target: Tensor, values: Tensor, moving: Tensor) -> None:
    """Copy values [S, ...] to `target`, only of the trajectories that move [S] bool."""
    target.copy_(torch.where(moving.view(-1, *[1] * (target.ndim - 1)), values, target))


def advance(
    positions: Tensor, momenta: Tensor, forces: Tensor, before: Tensor, heat: Tensor, trajectory: Tensor,
    moving: Tensor, step: int, ring: Ring,
) -> None:  # fmt: skip
    """Everything of a step up to the evaluation of forces, in place.

    Args:
        positions: [S, P, N, 3] Å.
        momenta: [S, P, N, 3] amu Å/fs.
        forces: [S, P, N, 3] at `positions`.
        before: [S, P, N, 3], becomes a copy of `positions` before the step.
        heat: [S], grows by what the thermostat gives.
        trajectory: numbers of the trajectories [S] int64.
        moving: [S] bool; the others are left as they are.
        step: number of the step, which with seed and trajectory decides the noise.
        ring: coefficients.
    """
    q, p = to_modes(positions, ring), to_modes(kick(momenta, forces, ring), ring)
    free(q, p, ring)
    if ring.damping.shape[1]:
        put(heat, heat + thermostat(p, trajectory, step, ring), moving)
        free(q, p, ring)
    put(before, positions, moving)
    put(positions, (ring.matrix.mT @ q).view_as(positions), moving)
    put(momenta, (ring.matrix.mT @ p).view_as(momenta), moving)


def to_modes(beads: Tensor, ring: Ring) -> Tensor:
    """[S, P, N, 3] in normal modes [S, P, 3 N]; one product a trajectory, so that batches do not mix."""
    return ring.matrix @ beads.flatten(2)


def free(q: Tensor, p: Tensor, ring: Ring) -> None:
    """A: free motion of modes [S, P, 3 N]."""
    m = ring.masses.repeat_interleave(3)
    cosine = ring.cosine[:, :, None]
    pull = ring.pull[:, :, None] * m * q
    q.mul_(cosine).add_(ring.sinc[:, :, None] / m * p)
    p.mul_(cosine).sub_(pull)


def thermostat(p: Tensor, trajectory: Tensor, step: int, ring: Ring) -> Tensor:
    """O: momenta of modes [S, P, 3 N] in place; returns heat [S]."""
    m = ring.masses.repeat_interleave(3)
    noise = normal(ring.seed, trajectory, step, p[0].numel(), NOISE).view_as(p)
    before = p.square()
    p.mul_(ring.damping[:, :, None]).add_(noise * ring.noise[:, :, None] * m.sqrt())
    if ring.rescaling.shape[1]:
        p[:, 0] *= rescale(p[:, 0], noise[:, 0], ring)[:, None]
    if ring.rest:
        centre = p[:, 0].unflatten(1, (-1, 3))  # a view
        centre -= centre.sum(1, keepdim=True) * (ring.masses / ring.masses.sum())[:, None]
    return ((p.square() - before) / m).flatten(1).sum(1) * (0.5 * ring.energy_unit)


def rescale(p: Tensor, noise: Tensor, ring: Ring) -> Tensor:
    """Factor [S] of the momenta of the centroid p [S, 3 N] that samples their kinetic energy; noise [S, 3 N].

    Bussi, Donadio, Parrinello, J. Chem. Phys. 126, 014101 (2007), eq. A7, with the sign of the momenta, which moves
    diffusion closer to that of NVE (Bussi, Parrinello 2008).
    """
    c, thermal = ring.rescaling.T
    kinetic = (p.square() / ring.masses.repeat_interleave(3)).sum(1)  # twice the energy
    part = torch.where(kinetic > 0, thermal * (1.0 - c) / kinetic, 0.0)
    first, rest = noise[:, 0], noise[:, 1 : ring.degrees].square().sum(1)
    factor = c + part * (first.square() + rest) + 2.0 * first * torch.sqrt(c * part)
    sign = torch.where(first * torch.sqrt(part) + torch.sqrt(c) < 0, -1.0, 1.0)
    return torch.where(kinetic > 0, sign * torch.sqrt(factor), 1.0)


def within(
    positions: Tensor, momenta: Tensor, forces: Tensor, before: Tensor, energy: Tensor, masses: Tensor,
    max_kinetic: Tensor, move: float, force: float,
) -> Tensor:  # fmt: skip
    """Which trajectories [S] bool exceed no limit; NaN exceeds all of them.

    Args:
        positions: [S, P, N, 3].
        momenta: [S, P, N, 3].
        forces: [S, P, N, 3].
        before: positions a step earlier.
        energy: [S, P], to be finite.
        masses: [N].
        max_kinetic: limit of sum p^2 / m, twice the kinetic energy, of each trajectory [S].
        move: limit of the length of a bead's move.
        force: limit of the length of a force.
    """
    moved, pushed = (positions - before).square().sum(-1), forces.square().sum(-1)
    kinetic = (momenta.square() / masses[:, None]).flatten(1).sum(1)
    short = ((moved < move**2) & (pushed < force**2)).flatten(1).all(1)
    return short & (kinetic < max_kinetic) & torch.isfinite(energy).all(1)


class Steps:
    """The parts of a step on given tensors, see `advance`, for all steps of a run.

    Args:
        positions: [S, P, N, 3], as the next three.
        momenta: changed in place.
        forces: those of the positions.
        before: becomes the positions before each step.
        energy: [S, P].
        heat: [S].
        trajectory: [S] int64.
        alive: [S] bool, which are to move.
        ring: coefficients.
    """

    exceeded: Tensor
    """[S] int64 on the device: 0, or the step in which a trajectory exceeded a limit; 1 if it was not to move at all.

    It completes that step, and is then left as it is.
    """

    def __init__(
        self, positions: Tensor, momenta: Tensor, forces: Tensor, before: Tensor, energy: Tensor, heat: Tensor,
        trajectory: Tensor, alive: Tensor, ring: Ring,
    ) -> None:  # fmt: skip
        self.beads = positions, momenta, forces, before
        self.energy = energy
        self.heat, self.trajectory, self.ring = heat, trajectory, ring
        self.exceeded = (~alive).long()
        self._known = self.exceeded.to("cpu", copy=True)
        self._number = 0
        self._bind()

    def _bind(self) -> None:
        """Preparation of a back end, once for all steps."""

    def advance(self, step: int | None = None) -> None:
        """B A, or B A/2 O A/2, of the step with this number, 1 or more; without one, of the next."""
        self._number = self._number + 1 if step is None else step
        advance(*self.beads, self.heat, self.trajectory, self.exceeded == 0, self._number, self.ring)

    def close(self, energy: Tensor, forces: Tensor, max_kinetic: Tensor, move: float, force: float) -> None:
        """Take energy [S P] and forces [S P, N, 3] at the new positions, B; note which are not `within` limits."""
        moving = self.exceeded == 0
        put(self.energy, energy.view_as(self.energy), moving)
        put(self.beads[2], forces.view_as(self.beads[2]), moving)
        put(self.beads[1], kick(self.beads[1], self.beads[2], self.ring), moving)
        allowed = within(*self.beads, self.energy, self.ring.masses, max_kinetic, move, force)
        self.exceeded.masked_fill_(moving & ~allowed, self._number)

    def within_limits(self) -> bool:
        """Whether no trajectory has exceeded a limit since the last call; waits for the device."""
        exceeded = self.exceeded.cpu()
        if torch.equal(self._known, exceeded):
            return True
        self._known = exceeded.clone()
        return False
