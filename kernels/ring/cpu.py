"""The parts of a time step on a CPU, one compiled call each; a row's numbers do not depend on the other rows."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from painn_fast.kernels.jit import compiled
from painn_fast.kernels.launch import require_contiguous
from painn_fast.kernels.random.cpu import fill_normal
from painn_fast.kernels.ring import reference
from painn_fast.kernels.ring.reference import NOISE

STREAM = np.uint64(NOISE)


@compiled()
def _transform(matrix, source, target):  # type: ignore[no-untyped-def]
    """target = matrix source; [P, D]."""
    target[:] = 0.0
    for k in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            c = matrix[k, j]
            for d in range(source.shape[1]):
                target[k, d] += c * source[j, d]


@compiled()
def _free(q, p, m, cosine, sinc, pull):  # type: ignore[no-untyped-def]
    """q, p [P, D]; m [D]; the rest [P]."""
    for k in range(q.shape[0]):
        for d in range(q.shape[1]):
            pulled = pull[k] * m[d] * q[k, d]
            q[k, d] = q[k, d] * cosine[k] + sinc[k] / m[d] * p[k, d]
            p[k, d] = p[k, d] * cosine[k] - pulled


@compiled()
def _rescale(p, noise, m, c, thermal, degrees):  # type: ignore[no-untyped-def]
    """p, noise, m [D] of the centroid."""
    kinetic = 0.0
    for d in range(p.shape[0]):
        kinetic += p[d] * p[d] / m[d]
    if not kinetic > 0.0:
        return
    part = thermal * (1.0 - c) / kinetic
    rest = 0.0
    for d in range(1, degrees):
        rest += noise[d] * noise[d]
    factor = c + part * (noise[0] * noise[0] + rest) + 2.0 * noise[0] * np.sqrt(c * part)
    scale = np.sqrt(factor)
    if noise[0] * np.sqrt(part) + np.sqrt(c) < 0.0:
        scale = -scale
    for d in range(p.shape[0]):
        p[d] *= scale


@compiled()
def _rest(p, m):  # type: ignore[no-untyped-def]
    """p, m [D] of the centroid."""
    for x in range(3):
        total, mass = 0.0, 0.0
        for d in range(x, p.shape[0], 3):
            total += p[d]
            mass += m[d]
        for d in range(x, p.shape[0], 3):
            p[d] -= total * (m[d] / mass)


@compiled()
def _thermostat(p, noise, m, damping, strength, rescaling, degrees, rest):  # type: ignore[no-untyped-def]
    """p, noise [P, D]; m [D]; damping, strength [P]; rescaling [2] or [0]. Returns the gain of sum p^2 / m."""
    before = 0.0
    for k in range(p.shape[0]):
        for d in range(p.shape[1]):
            before += p[k, d] * p[k, d] / m[d]
            p[k, d] = p[k, d] * damping[k] + noise[k, d] * strength[k] * np.sqrt(m[d])
    if rescaling.shape[0] > 0:
        _rescale(p[0], noise[0], m, rescaling[0], rescaling[1], degrees)
    if rest:
        _rest(p[0], m)
    after = 0.0
    for k in range(p.shape[0]):
        for d in range(p.shape[1]):
            after += p[k, d] * p[k, d] / m[d]
    return after - before


@compiled()
def _copy(source, target):  # type: ignore[no-untyped-def]
    for k in range(source.shape[0]):
        for d in range(source.shape[1]):
            target[k, d] = source[k, d]


@compiled()
def advance_kernel(  # type: ignore[no-untyped-def]
    positions, momenta, forces, previous, exceeded, heat, trajectory, step, kick, matrix, back, cosine, sinc, pull, m,
    unit, seed, damping, strength, rescaling, degrees, rest, work,
):  # fmt: skip
    """positions, momenta, forces, previous [S, P, D]; m [D]; work [3, P, D]; the rest as in `Ring`."""
    q, p, noise = work[0], work[1], work[2]
    P, D = q.shape
    for s in range(positions.shape[0]):
        if exceeded[s] != 0:
            continue
        for k in range(P):
            for d in range(D):
                previous[s, k, d] = positions[s, k, d]
                momenta[s, k, d] += forces[s, k, d] * kick[s]
        if P == 1:
            _copy(positions[s], q)
            _copy(momenta[s], p)
        else:
            _transform(matrix, positions[s], q)
            _transform(matrix, momenta[s], p)
        _free(q, p, m, cosine[s], sinc[s], pull[s])
        if damping.shape[1] > 0:
            fill_normal(seed[s], trajectory[s], step, STREAM, noise.reshape(P * D))
            gain = _thermostat(p, noise, m, damping[s], strength[s], rescaling[s], degrees, rest)
            heat[s] += 0.5 * unit * gain
            _free(q, p, m, cosine[s], sinc[s], pull[s])
        if P == 1:
            _copy(q, positions[s])
            _copy(p, momenta[s])
        else:
            _transform(back, q, positions[s])
            _transform(back, p, momenta[s])


@compiled()
def close_kernel(  # type: ignore[no-untyped-def]
    positions, momenta, forces, previous, exceeded, energy, step, new_energy, new_forces, kick, m, max_kinetic,
    move, force,
):  # fmt: skip
    """New energy and forces, B, and `reference.within`; beads [S, P, D], m [D], energy [S, P]."""
    S, P, D = positions.shape
    for s in range(S):
        if exceeded[s] != 0:
            continue
        total, allowed = 0.0, True
        for k in range(P):
            row = s * P + k
            energy[s, k] = new_energy[row]
            allowed = allowed and np.isfinite(energy[s, k])
            for n in range(0, D, 3):
                moved, pushed, kinetic = 0.0, 0.0, 0.0
                for d in range(n, n + 3):
                    f = new_forces[row, d]
                    p = momenta[s, k, d] + f * kick[s]
                    forces[s, k, d], momenta[s, k, d] = f, p
                    moved += (positions[s, k, d] - previous[s, k, d]) ** 2
                    pushed += f**2
                    kinetic += p**2
                total += kinetic / m[n]
                allowed = allowed and moved < move * move and pushed < force * force
        if not (allowed and total < max_kinetic[s]):
            exceeded[s] = step


class Steps(reference.Steps):
    """The same on a CPU; the tensors must be contiguous."""

    def _bind(self) -> None:
        require_contiguous(*self.beads, self.energy, self.heat, self.trajectory)
        ring, (S, P) = self.ring, self.energy.shape
        self._beads = tuple(tensor.numpy().reshape(S, P, -1) for tensor in self.beads)
        self._m = ring.masses.repeat_interleave(3).numpy()
        matrix = np.ascontiguousarray(ring.matrix.numpy())
        self._numbers = self.exceeded.numpy(), self.heat.numpy(), self.trajectory.numpy().astype(np.uint64)
        self._fixed = (
            ring.kick.numpy(), matrix, np.ascontiguousarray(matrix.T), ring.cosine.numpy(), ring.sinc.numpy(),
            ring.pull.numpy(), self._m, ring.energy_unit, ring.seed.numpy().astype(np.uint64), ring.damping.numpy(),
            ring.noise.numpy(), ring.rescaling.numpy(), ring.degrees, ring.rest,
            np.empty((3, *self._beads[0].shape[1:])),
        )  # fmt: skip
        self._energy = self.energy.numpy()

    def advance(self, step: int | None = None) -> None:
        self._number = self._number + 1 if step is None else step
        advance_kernel(*self._beads, *self._numbers, np.uint64(self._number), *self._fixed)

    def close(self, energy: Tensor, forces: Tensor, max_kinetic: Tensor, move: float, force: float) -> None:
        rows = forces.numpy().reshape(-1, self._m.shape[0])
        new = energy.numpy(), np.ascontiguousarray(rows)
        limits = self._fixed[0], self._m, max_kinetic.numpy(), move, force
        close_kernel(*self._beads, self._numbers[0], self._energy, self._number, *new, *limits)
