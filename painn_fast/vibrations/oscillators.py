"""Polynomials of positions and momenta acting on states of harmonic oscillators."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np

State = tuple[int, ...]
"""The excited modes in ascending order, one entry a quantum: () is the ground state, (3, 3) an overtone."""
Kinds = tuple[str, ...]


def _tables(quanta: int = 14) -> dict[str, dict[int, np.ndarray]]:
    """<n + move| operator |n> by operator, move and n, of q, q^2, q^3, q^4 and p / i."""
    up = np.diag(np.sqrt(np.arange(1, quanta) / 2.0), -1)
    q = up + up.T
    operators = {"q": q, "q2": q @ q, "q3": q @ q @ q, "q4": q @ q @ q @ q, "p": up - up.T}
    size, tables = quanta - 5, {}
    for name, matrix in operators.items():
        power = int(name[1:] or 1)
        tables[name] = {
            move: np.array([matrix[n + move, n] if n + move >= 0 else 0.0 for n in range(size)])
            for move in range(-power, power + 1, 2)
        }
    return tables


TABLES = _tables()


@dataclass(frozen=True)
class Terms:
    """A polynomial: groups of products of one-mode operators with their modes [T, m] and coefficients [T]."""

    groups: tuple[tuple[Kinds, np.ndarray, np.ndarray], ...]

    @classmethod
    def cubic(cls, third: np.ndarray) -> Terms:
        """1/6 sum phi_ijk q_i q_j q_k, from [K, K, K] symmetric."""
        return cls(
            (
                _group(("q3",), third, lambda i: (i, i, i), 1 / 6),
                _group(("q2", "q"), third, lambda i, j: (i, i, j), 1 / 2),
                _group(("q", "q", "q"), third, lambda i, j, k: (i, j, k), 1.0),
            )
        )

    @classmethod
    def semi_quartic(cls, fourth: np.ndarray) -> Terms:
        """1/24 sum phi_iijk q_i q_i q_j q_k and permutations, from phi_iijk [K, K, K]."""
        return cls(
            (
                _group(("q4",), fourth, lambda i: (i, i, i), 1 / 24),
                _group(("q3", "q"), fourth, lambda i, j: (i, i, j), 1 / 6),
                _group(("q2", "q2"), fourth, lambda i, j: (i, j, j), 1 / 4, ordered=True),
                _group(("q2", "q", "q"), fourth, lambda i, j, k: (i, j, k), 1 / 2),
            )
        )

    @classmethod
    def linear(cls, first: np.ndarray) -> Terms:
        """sum mu_i q_i, from [K]."""
        return cls((_group(("q",), first, lambda i: (i,), 1.0),))

    @classmethod
    def quadratic(cls, second: np.ndarray) -> Terms:
        """1/2 sum mu_ij q_i q_j, from [K, K] symmetric."""
        pair = _group(("q", "q"), second, lambda i, j: (i, j), 1.0, ordered=True)
        return cls((_group(("q2",), second, lambda i: (i, i), 1 / 2), pair))

    @classmethod
    def semi_cubic(cls, third: np.ndarray) -> Terms:
        """1/6 sum mu_iij q_i q_i q_j and permutations, from mu_iij [K, K]."""
        return cls(
            (
                _group(("q3",), third, lambda i: (i, i), 1 / 6),
                _group(("q2", "q"), third, lambda i, j: (i, j), 1 / 2),
            )
        )


def _group(
    kinds: Kinds, values: np.ndarray, at: Callable[..., Any], factor: float, *, ordered: bool = False
) -> tuple[Kinds, np.ndarray, np.ndarray]:
    """All sets of different modes for operators of these kinds; `at` says where their constant is in `values`."""
    count = len(values)
    alike = len(set(kinds)) == 1 or ordered
    if len(kinds) == 1:
        modes = np.arange(count)[:, None]
    elif len(kinds) == 2:
        modes = np.array(list(combinations(range(count), 2) if alike else _two(count))).reshape(-1, 2)
    elif alike:
        modes = np.array(list(combinations(range(count), 3))).reshape(-1, 3)
    else:
        listed = [(i, j, k) for i in range(count) for j, k in combinations(range(count), 2) if i not in (j, k)]
        modes = np.array(listed).reshape(-1, 3)
    coefficients = factor * values[at(*modes.T)] if len(modes) else np.zeros(0)
    large = coefficients != 0
    return kinds, modes[large].astype(int), coefficients[large]


def _two(count: int) -> Iterable[tuple[int, int]]:
    return ((i, j) for i in range(count) for j in range(count) if i != j)


class Basis:
    """Harmonic states, their keys and energies, and operators that act on them.

    A state's key is the sum over modes of quanta times a random 64-bit number, so that keys of many states are computed
    as arrays; two states share one with a probability of 1e-12 for a million of them.
    """

    def __init__(self, omega: np.ndarray) -> None:
        self.omega = omega
        self.numbers = np.random.default_rng(2021).integers(0, 2**64, len(omega), dtype=np.uint64)

    def key(self, state: Iterable[int]) -> np.uint64:
        return np.uint64(sum(int(self.numbers[mode]) for mode in state) % 2**64)

    def energy(self, state: State) -> float:
        """Above the ground state, cm-1."""
        return float(sum(self.omega[mode] for mode in state))

    def apply(self, terms: Terms, state: State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys of the states in `terms`|state>, their amplitudes and energies above `state`."""
        quanta = np.bincount(np.array(state, dtype=int), minlength=len(self.omega))
        base, keys, values, shifts = self.key(state), [], [], []
        for kinds, modes, coefficients in terms.groups:
            for moves in product(*(TABLES[kind] for kind in kinds)):
                amplitude, key = coefficients, np.full(len(modes), base)
                shift = np.zeros(len(modes))
                for column, (kind, move) in enumerate(zip(kinds, moves, strict=True)):
                    mode = modes[:, column]
                    amplitude = amplitude * TABLES[kind][move][quanta[mode]]
                    key = key + np.uint64(move % 2**64) * self.numbers[mode]
                    shift += move * self.omega[mode]
                found = amplitude != 0
                keys.append(key[found])
                values.append(amplitude[found])
                shifts.append(shift[found])
        different, first, where = np.unique(np.concatenate(keys), return_index=True, return_inverse=True)
        summed = np.bincount(where, np.concatenate(values)).astype(float)  # of nothing: integers
        return different, summed, np.concatenate(shifts)[first]
