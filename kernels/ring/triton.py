"""The parts of a time step on a GPU: launches alone, none waits for the host, so that a CUDA graph may hold them.

Sums over a trajectory are made in a fixed order, without atomics, and how it is divided among programs depends on its
beads and atoms alone: its numbers are the same in every run and do not depend on the rest of the batch.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from painn_fast.kernels.launch import require_contiguous
from painn_fast.kernels.random import triton as random
from painn_fast.kernels.ring import reference
from painn_fast.kernels.ring.reference import NOISE

MOST_BEADS = 128
TILE, COLUMNS = 512, 8
"""Beads times columns of a program that transforms, and its fewest columns."""
ATOMS, PARTS = 256, 128
"""Atoms of all beads that a program of `close_kernel` has, at most; numbers that are summed together."""


@triton.jit
def _columns(D, COLUMNS: tl.constexpr, ROWS: tl.constexpr, P: tl.constexpr, block):
    """Rows [ROWS, 1] and columns [1, COLUMNS] of a block, and which of its elements are inside [P, D]."""
    k, d = tl.arange(0, ROWS)[:, None], (block * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    return k, d, (k < P) & (d < D)


@triton.jit
def _product(p_matrix, p_q, p_p, p_force, kick, k, d, D, P: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The transpose of a matrix [P, P] times columns d of q and p [P, D]; p is kicked by the force if there is one."""
    q, p = tl.zeros((ROWS, COLUMNS), tl.float64), tl.zeros((ROWS, COLUMNS), tl.float64)
    for j in range(P):
        c = tl.load(p_matrix + j * P + k, mask=k < P, other=0.0)
        row = tl.load(p_p + j * D + d, mask=d < D, other=0.0)
        if p_force is not None:
            row += kick * tl.load(p_force + j * D + d, mask=d < D, other=0.0)
        q += c * tl.load(p_q + j * D + d, mask=d < D, other=0.0)
        p += c * row
    return q, p


@triton.jit
def _free(q, p, cosine, sinc, pull, m, inverse):
    """A of modes [ROWS, COLUMNS]."""
    return q * cosine + sinc * inverse * p, p * cosine - pull * m * q


@triton.jit
def _gauss(p_next, p_trajectory, p_seed, s, number, STREAM: tl.constexpr):
    """Random numbers of a trajectory in the next step, by their index among its P D; products must not be fused."""
    number = number.to(tl.int64)
    zero = tl.zeros_like(number)
    seed, trajectory = tl.load(p_seed + s) + zero, tl.load(p_trajectory + s) + zero
    even, odd = random.gauss(seed, number >> 1, trajectory, tl.load(p_next) + zero, STREAM)
    return tl.where((number & 1) == 0, even, odd)


@triton.jit
def centroid_kernel(
    p_momenta, p_force, p_exceeded, p_kick, p_first, p_mass, p_next, p_trajectory, p_seed, p_damping, p_strength,
    p_rescaling, p_whole, D, degrees, P: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, REST: tl.constexpr,
    STREAM: tl.constexpr,
):  # fmt: skip
    """whole [S, 4]: the factor of a centroid's momenta after O, and the velocity x, y, z that is then taken from it.

    A does not change the momenta of the centroid, so that these come from the kicked ones. first [P] is its row of the
    matrix; without p_rescaling the factor is 1.
    """
    s = tl.program_id(0).to(tl.int64)
    if tl.load(p_exceeded + s) != 0:
        return
    p_momenta += s * P * D
    p_force += s * P * D
    kick = tl.load(p_kick + s)
    damping, strength = tl.load(p_damping + s * P), tl.load(p_strength + s * P)
    kinetic, squares = tl.zeros((COLUMNS,), tl.float64), tl.zeros((COLUMNS,), tl.float64)
    x, y, z = tl.zeros((COLUMNS,), tl.float64), tl.zeros((COLUMNS,), tl.float64), tl.zeros((COLUMNS,), tl.float64)
    mass, one = tl.zeros((COLUMNS,), tl.float64), tl.zeros((COLUMNS,), tl.float64)
    for block in range(tl.cdiv(D, COLUMNS)):
        k, d, inside = _columns(D, COLUMNS, ROWS, P, block)
        at = k * D + d
        kicked = tl.load(p_momenta + at, mask=inside, other=0.0) + kick * tl.load(p_force + at, mask=inside, other=0.0)
        p = tl.sum(tl.load(p_first + k, mask=k < P, other=0.0) * kicked, axis=0)
        d = block * COLUMNS + tl.arange(0, COLUMNS)
        xi = tl.where(d < D, _gauss(p_next, p_trajectory, p_seed, s, d, STREAM), 0.0)
        one += tl.where(d == 0, xi, 0.0)
        p = p * damping + xi * strength * tl.load(p_mass + 2 * D + d, mask=d < D, other=0.0)
        kinetic += p * p * tl.load(p_mass + D + d, mask=d < D, other=0.0)
        squares += tl.where((d > 0) & (d < degrees), xi * xi, 0.0)
        if REST:
            x += tl.where(d % 3 == 0, p, 0.0)
            y += tl.where(d % 3 == 1, p, 0.0)
            z += tl.where(d % 3 == 2, p, 0.0)
            mass += tl.where(d % 3 == 0, tl.load(p_mass + d, mask=d < D, other=0.0), 0.0)
    scale = 1.0
    if p_rescaling is not None:
        twice = tl.sum(kinetic, axis=0)
        c, thermal = tl.load(p_rescaling + 2 * s), tl.load(p_rescaling + 2 * s + 1)
        part = tl.where(twice > 0, thermal * (1.0 - c) / tl.where(twice > 0, twice, 1.0), 0.0)
        one = tl.sum(one, axis=0)
        factor = c + part * (one * one + tl.sum(squares, axis=0)) + 2.0 * one * tl.sqrt(c * part)
        sign = tl.where(one * tl.sqrt(part) + tl.sqrt(c) < 0, -1.0, 1.0)
        scale = tl.where(twice > 0, sign * tl.sqrt(factor), 1.0)
    tl.store(p_whole + 4 * s, scale)
    if REST:
        share = scale / tl.sum(mass, axis=0)
        tl.store(p_whole + 4 * s + 1, share * tl.sum(x, axis=0))
        tl.store(p_whole + 4 * s + 2, share * tl.sum(y, axis=0))
        tl.store(p_whole + 4 * s + 3, share * tl.sum(z, axis=0))


@triton.jit
def modes_kernel(
    p_positions, p_momenta, p_force, p_before, p_exceeded, p_kick, p_matrix, p_cosine, p_sinc, p_pull, p_mass,
    p_next, p_number, p_trajectory, p_seed, p_damping, p_strength, p_whole, p_heat, p_gain, p_q, p_p, D,
    P: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STREAM: tl.constexpr,
):  # fmt: skip
    """q and p [S, P, D], the modes after B A/2 O A/2, or after B A without p_damping, of a trajectory's columns.

    The number of the step becomes that of p_next.

    matrix is the transpose of the ring's; mass [4, D] has m, 1 / m, sqrt m and the heat for a unit of p^2. heat [S]
    grows if there is but one block of columns, else gain [S, blocks] has what it is to grow by. A single bead is its
    own mode; q and p may then be its positions and momenta.
    """
    s, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if (s == 0) & (block == 0):
        tl.store(p_number, tl.load(p_next))
    if tl.load(p_exceeded + s) != 0:
        return
    k, d, inside = _columns(D, COLUMNS, ROWS, P, block)
    kick, beads = tl.load(p_kick + s), s * P * D
    at = beads + k * D + d
    q = tl.load(p_positions + at, mask=inside, other=0.0)
    tl.store(p_before + at, q, mask=inside)
    if P > 1:
        q, p = _product(
            p_matrix, p_positions + beads, p_momenta + beads, p_force + beads, kick, k, d, D, P, ROWS, COLUMNS
        )
    else:
        p = tl.load(p_momenta + at, mask=inside, other=0.0) + kick * tl.load(p_force + at, mask=inside, other=0.0)
    mode = s * P + k
    cosine, sinc = tl.load(p_cosine + mode, mask=k < P, other=0.0), tl.load(p_sinc + mode, mask=k < P, other=0.0)
    pull = tl.load(p_pull + mode, mask=k < P, other=0.0)
    m, inverse = tl.load(p_mass + d, mask=d < D, other=0.0), tl.load(p_mass + D + d, mask=d < D, other=0.0)
    q, p = _free(q, p, cosine, sinc, pull, m, inverse)
    if p_damping is not None:
        if p_gain is None:
            heat = tl.load(p_heat + s)  # before the barriers of the sum: every warp reads what one of them replaces
        before = p
        width = tl.load(p_strength + mode, mask=k < P, other=0.0) * tl.load(p_mass + 2 * D + d, mask=d < D, other=0.0)
        p = p * tl.load(p_damping + mode, mask=k < P, other=0.0)
        p += width * _gauss(p_next, p_trajectory, p_seed, s, k * D + d, STREAM)
        if p_whole is not None:
            velocity = tl.load(p_whole + 4 * s + 1 + d % 3)
            p = tl.where(k == 0, p * tl.load(p_whole + 4 * s) - m * velocity, p)
        # not p p - before before, one product of which is fused, so that no change would be some heat
        gain = (p - before) * (p + before) * tl.load(p_mass + 3 * D + d, mask=d < D, other=0.0)
        gain = tl.sum(tl.sum(gain, axis=1), axis=0)
        if p_gain is None:
            tl.store(p_heat + s, heat + gain)
        else:
            tl.store(p_gain + s * tl.num_programs(1) + block, gain)
        q, p = _free(q, p, cosine, sinc, pull, m, inverse)
    tl.store(p_q + at, q, mask=inside)
    tl.store(p_p + at, p, mask=inside)


@triton.jit
def beads_kernel(
    p_q, p_p, p_exceeded, p_matrix, p_positions, p_momenta, D, P: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """positions and momenta [S, P, D] from modes."""
    s = tl.program_id(0).to(tl.int64)
    if tl.load(p_exceeded + s) != 0:
        return
    k, d, inside = _columns(D, COLUMNS, ROWS, P, tl.program_id(1))
    beads = s * P * D
    q, p = _product(p_matrix, p_q + beads, p_p + beads, None, None, k, d, D, P, ROWS, COLUMNS)
    tl.store(p_positions + beads + k * D + d, q, mask=inside)
    tl.store(p_momenta + beads + k * D + d, p, mask=inside)


@triton.jit
def _total(p_part, parts, PARTS: tl.constexpr):
    """Sum of [parts]."""
    total = tl.zeros((PARTS,), tl.float64)
    for first in range(0, parts, PARTS):
        k = first + tl.arange(0, PARTS)
        total += tl.load(p_part + k, mask=k < parts, other=0.0)
    return tl.sum(total, axis=0)


@triton.jit
def heat_kernel(p_gain, p_exceeded, p_heat, parts, PARTS: tl.constexpr):
    """heat [S] grows by the sum of gain [S, parts]."""
    s = tl.program_id(0).to(tl.int64)
    if tl.load(p_exceeded + s) != 0:
        return
    tl.store(p_heat + s, tl.load(p_heat + s) + _total(p_gain + s * parts, parts, PARTS))


@triton.jit(do_not_specialize_on_alignment=["p_new_energy", "p_new_force"])
def close_kernel(
    p_positions, p_momenta, p_force, p_before, p_energy, p_new_energy, p_new_force, p_exceeded, p_number, p_next,
    p_kick, p_mass, p_max_kinetic, p_kinetic, move: tl.float64, force: tl.float64, N, P: tl.constexpr,
    ATOMS: tl.constexpr,
):  # fmt: skip
    """New energy and forces of a part of a trajectory's atoms, and B; move and force are squares.

    kinetic [S, parts] becomes sum p^2 / m of each part, NaN where another limit is exceeded. Without it there is one
    part, and the program checks the limit itself. next becomes the number of the next step.
    """
    s, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if (s == 0) & (part == 0):
        tl.store(p_next, tl.load(p_number) + 1)
    if tl.load(p_exceeded + s) != 0:
        return
    a = part * ATOMS + tl.arange(0, ATOMS)
    energy = tl.load(p_new_energy + s * P + a, mask=a < P, other=0.0).to(tl.float64)
    tl.store(p_energy + s * P + a, energy, mask=a < P)
    inside = a < P * N
    at, kick = s * P * N * 3 + 3 * a, tl.load(p_kick + s)
    kinetic, moved = tl.zeros((ATOMS,), tl.float64), tl.zeros((ATOMS,), tl.float64)
    pushed = tl.zeros((ATOMS,), tl.float64)
    for x in tl.static_range(3):
        f = tl.load(p_new_force + at + x, mask=inside, other=0.0).to(tl.float64)
        p = tl.load(p_momenta + at + x, mask=inside, other=0.0) + kick * f
        step = tl.load(p_positions + at + x, mask=inside, other=0.0)
        step -= tl.load(p_before + at + x, mask=inside, other=0.0)
        tl.store(p_force + at + x, f, mask=inside)
        tl.store(p_momenta + at + x, p, mask=inside)
        kinetic += p * p
        moved += step * step
        pushed += f * f
    kinetic *= tl.load(p_mass + 3 * (N + a % N), mask=inside, other=0.0)
    allowed = (moved < tl.full((ATOMS,), move, tl.float64)) & (pushed < tl.full((ATOMS,), force, tl.float64))
    allowed = (allowed | (a >= P * N)) & (tl.abs(energy) < tl.full((ATOMS,), float("inf"), tl.float64))
    total = tl.sum(tl.where(allowed, kinetic, float("nan")), axis=0)
    if p_kinetic is None:
        _mark(total, p_max_kinetic + s, p_number, p_exceeded + s)
    else:
        tl.store(p_kinetic + s * tl.num_programs(1) + part, total)


@triton.jit
def _mark(total, p_limit, p_number, p_exceeded):
    """A trajectory whose sum of p^2 / m is not below its limit exceeds it."""
    allowed = total < tl.load(p_limit)
    tl.store(p_exceeded, tl.load(p_number), mask=allowed == 0)


@triton.jit
def check_kernel(p_kinetic, p_max_kinetic, p_number, p_exceeded, parts, PARTS: tl.constexpr):
    """Check the sum of kinetic [S, parts]."""
    s = tl.program_id(0).to(tl.int64)
    if tl.load(p_exceeded + s) != 0:
        return
    _mark(_total(p_kinetic + s * parts, parts, PARTS), p_max_kinetic + s, p_number, p_exceeded + s)


class Steps(reference.Steps):
    """The same on a GPU; the tensors must be contiguous, and beads at most `MOST_BEADS`.

    The number of a step lies on the device: of a step without one that is captured in a CUDA graph, each replay is the
    next. A first step before the capture loads the kernels.
    """

    def _bind(self) -> None:
        require_contiguous(*self.beads, self.energy, self.heat, self.trajectory)
        ring, (S, P, N) = self.ring, self.beads[0].shape[:3]
        m = ring.masses.repeat_interleave(3)
        self._counter = torch.zeros(1, dtype=torch.int64, device=m.device)
        self._next = torch.ones_like(self._counter)
        self._mass = torch.stack([m, 1.0 / m, m.sqrt(), 0.5 * ring.energy_unit / m])
        self._kick = ring.kick.contiguous()
        self._matrix, self._transpose = ring.matrix.contiguous(), ring.matrix.mT.contiguous()
        self._modes = ring.cosine.contiguous(), ring.sinc.contiguous(), ring.pull.contiguous()
        self._seed = ring.seed.contiguous()
        self._rescaling = ring.rescaling.contiguous() if ring.rescaling.shape[1] else None
        self._tile, self._warps = tile(P, 3 * N)
        self._atoms, self._atom_warps = atoms(P * N)
        self._blocks = S, triton.cdiv(3 * N, self._tile["COLUMNS"])
        self._parts = S, triton.cdiv(P * N, self._atoms)
        noisy = bool(ring.damping.shape[1])
        self._damping = ring.damping.contiguous() if noisy else None
        self._strength = ring.noise.contiguous() if noisy else None
        coupled = noisy and (ring.rest or self._rescaling is not None)
        self._q, self._p = map(torch.empty_like, self.beads[:2]) if P > 1 else self.beads[:2]
        self._whole = m.new_zeros(S, 4) if coupled else None
        self._gain = m.new_empty(self._blocks) if noisy and self._blocks[1] > 1 else None
        self._kinetic = m.new_empty(self._parts) if self._parts[1] > 1 else None

    def advance(self, step: int | None = None) -> None:
        if step is not None:
            self._next.fill_(step)
        ring, fixed, warps = self.ring, self._tile, self._warps
        S, D = len(self.heat), self._mass.shape[1]
        thermostat = self.trajectory, self._seed, self._damping, self._strength
        noise = {"STREAM": NOISE, "enable_fp_fusion": False}
        if self._whole is not None:
            given = (*self.beads[1:3], self.exceeded, self._kick, self._matrix, self._mass, self._next)
            last = *thermostat, self._rescaling, self._whole, D, ring.degrees
            _launch(centroid_kernel, (S,), warps, *given, *last, **fixed, REST=ring.rest, **noise)
        given = (*self.beads, self.exceeded, self._kick, self._transpose, *self._modes, self._mass)
        given += (self._next, self._counter, *thermostat)
        last = self._whole, self.heat, self._gain, self._q, self._p, D
        _launch(modes_kernel, self._blocks, warps, *given, *last, **fixed, **noise)
        if fixed["P"] > 1:
            given = (self._q, self._p, self.exceeded, self._matrix, *self.beads[:2], D)
            _launch(beads_kernel, self._blocks, warps, *given, **fixed)
        if self._gain is not None:
            _launch(heat_kernel, (S,), 1, self._gain, self.exceeded, self.heat, self._blocks[1], PARTS=PARTS)

    def close(self, energy: Tensor, forces: Tensor, max_kinetic: Tensor, move: float, force: float) -> None:
        (S, P, N), limit = self.beads[0].shape[:3], max_kinetic.contiguous()
        given = (*self.beads, self.energy, energy.contiguous(), forces.contiguous(), self.exceeded)
        last = self._counter, self._next, self._kick, self._mass, limit, self._kinetic, move * move, force * force, N
        _launch(close_kernel, self._parts, self._atom_warps, *given, *last, P=P, ATOMS=self._atoms)
        if self._kinetic is not None:
            given = self._kinetic, limit, self._counter, self.exceeded, self._parts[1]
            _launch(check_kernel, (S,), 1, *given, PARTS=PARTS)


def tile(P: int, D: int) -> tuple[dict[str, Any], int]:
    """Beads and columns of a trajectory in one program, and its warps: 4 elements a thread or more."""
    rows = triton.next_power_of_2(P)
    columns = min(triton.next_power_of_2(D), max(TILE // rows, COLUMNS))
    return {"P": P, "ROWS": rows, "COLUMNS": columns}, _warps(rows * columns // 4)


def atoms(count: int) -> tuple[int, int]:
    """Atoms of a program of `close_kernel`, of all beads, and its warps: 2 a thread or more."""
    together = min(triton.next_power_of_2(count), ATOMS)
    return together, _warps(together // 2)


def _warps(threads: int) -> int:
    return max(1, min(4, threads // 32))


def _launch(kernel: Any, grid: tuple[int, ...], warps: int, *arguments: Tensor | float | None, **fixed: int) -> None:
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, **fixed, num_warps=warps)


def cases() -> list[tuple[str, Any, dict[str, str], dict[str, Any], int]]:
    """Cases of the static report: one bead and many, small molecules and large ones."""
    made: list[tuple[str, Any, dict[str, Any], int]] = [
        ("ring heat", heat_kernel, {"PARTS": PARTS}, 1),
        ("ring check", check_kernel, {"PARTS": PARTS}, 1),
    ]
    noise: dict[str, Any] = dict.fromkeys(("p_seed", "p_trajectory", "p_damping", "p_strength"))
    whole: dict[str, Any] = {"p_whole": None}
    for P, N, ensemble, none in (
        (1, 1000, "NVE", noise | whole),
        (1, 9, "Langevin", whole),
        (16, 9, "PILE-L", whole),
        (16, 1000, "PILE-G", {}),
        (128, 9, "PILE-L", whole),
    ):
        (fixed, warps), (together, atom_warps) = tile(P, 3 * N), atoms(P * N)
        alone = {"p_gain": None} if fixed["COLUMNS"] >= 3 * N else {}
        whole_sum = {"p_kinetic": None} if together >= P * N else {}
        made.append(
            (f"ring modes {ensemble} P={P} N={N}", modes_kernel, fixed | none | alone | {"STREAM": NOISE}, warps)
        )
        made.append((f"ring close P={P} N={N}", close_kernel, {"P": P, "ATOMS": together} | whole_sum, atom_warps))
        if P > 1:
            made.append((f"ring beads P={P} N={N}", beads_kernel, fixed, warps))
        if ensemble == "PILE-G":
            made.append((f"ring centroid P={P} N={N}", centroid_kernel, fixed | {"REST": True, "STREAM": NOISE}, warps))
    return [(name, kernel, _signature(kernel, fixed), fixed, warps) for name, kernel, fixed, warps in made]


def _signature(kernel: Any, fixed: dict[str, Any]) -> dict[str, str]:
    numbers = ("p_exceeded", "p_number", "p_next", "p_trajectory", "p_seed")
    types = dict.fromkeys(numbers, "*i64") | {"move": "fp64", "force": "fp64"}
    of = {a: types.get(a, "*fp64" if a.startswith("p_") else "i32") for a in kernel.arg_names}
    return {a: "constexpr" if a in fixed else kind for a, kind in of.items()}
