"""Second-order vibrational perturbation theory with resonances, in a basis of harmonic oscillators.

H = H0 + V3 + V4 + C: harmonic oscillators in dimensionless normal coordinates q, cubic and quartic terms, and the
rotation that vibrations carry, C = sum_t B_t pi_t^2. A canonical (Van Vleck) transformation exp(S1 + S2) removes V3 to
second order, except between states in resonance. What is left is a small matrix over states that interact:

    <a|H2|b> = <a|V4 + C|b> + sum_c <a|V3|c><c|V3|b> (1 / (E_a - E_c) + 1 / (E_b - E_c)) / 2

where a denominator in Fermi resonance is left out and its <a|V3|c> stands in the matrix itself. Couplings of second
order between nearly degenerate states (Darling-Dennison resonances) are entries of it too. The transition moments are
those of the transformed dipole and polarizability.

Bloino, Biczysko and Barone, J. Phys. Chem. A 119, 11862 (2015); Martin, Lee, Taylor and François, J. Chem. Phys. 103,
2589 (1995); Rosnik and Polik, Mol. Phys. 112, 261 (2014).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np
from scipy.sparse import csr_array

from painn_fast.vibrations.oscillators import Basis, State, Terms

FERMI_WINDOW = 200.0
"""cm-1: the largest difference |2 w_i - w_k| or |w_i + w_j - w_k| of a Fermi resonance."""
FERMI_ERROR = 1.0
"""cm-1: the error of perturbation theory, phi^4 / (256 d^3) or phi^4 / (64 d^3), of a resonance (Martin et al.)."""
DARLING_WINDOW = 100.0
"""cm-1: the largest difference of two states in a Darling-Dennison resonance."""
DARLING_RATIO = 0.1
"""The smallest coupling of one over that difference: the states mix by 1 %."""
ALL_BINARY = 30
"""Modes, up to which all overtones and combinations are computed; beyond, those in resonance with fundamentals."""


@dataclass(frozen=True)
class AnharmonicField:
    """A force field of fourth order around a minimum, K modes, and the moments that give intensities.

    Derivatives are with respect to dimensionless normal coordinates q. Moments have C components each.
    """

    omega: np.ndarray  # [K] cm-1
    cubic: np.ndarray  # phi_ijk [K, K, K] cm-1
    quartic: np.ndarray  # phi_iijk [K, K, K] cm-1
    zeta: np.ndarray  # Coriolis constants [3, K, K]
    rotational: np.ndarray  # B [3] cm-1; 0 about the axis of a linear molecule, which has no term of Watson's
    first: np.ndarray  # d mu / dq [C, K]
    second: np.ndarray  # [C, K, K]
    third: np.ndarray  # d^3 mu / dq_i^2 dq_j [C, K, K]


@dataclass(frozen=True)
class Levels:
    """States of the vibrational Hamiltonian above its ground state, in order of their energy."""

    zero_point: float  # cm-1
    energy: np.ndarray  # [L] cm-1
    states: tuple[State, ...]  # leading state of each
    share: np.ndarray  # [L], of the leading state
    weights: np.ndarray  # [L, L] of all states, columns in the order of `basis`
    basis: tuple[State, ...]
    moments: np.ndarray  # <0| mu |level> [C, L]
    fermi: tuple[tuple[State, State], ...]  # resonances, ((i, j), (k,))


def levels(field: AnharmonicField) -> Levels:
    """Fundamentals, overtones and binary combinations, with resonances, and their transition moments.

    Returns:
        All levels of up to two quanta, or for many modes the fundamentals and what they are in resonance with.
    """
    return _Perturbation(field).levels()


class _Perturbation:
    def __init__(self, field: AnharmonicField) -> None:
        self.field, self.basis = field, Basis(field.omega)
        self.count = len(field.omega)
        self.cubic, self.quartic = Terms.cubic(field.cubic), Terms.semi_quartic(field.quartic)
        self.fermi = fermi_resonances(field.omega, field.cubic)
        keys = np.array([[self.basis.key(state) for state in pair] for pair in self.fermi], np.uint64).reshape(-1, 2)
        self.resonant = np.concatenate([keys[:, 0] - keys[:, 1], keys[:, 1] - keys[:, 0]])
        self.states = self._states()
        self.index = {state: i for i, state in enumerate(self.states)}
        self.energies = np.array([self.basis.energy(state) for state in self.states])

    def _states(self) -> tuple[State, ...]:
        """Ground state, fundamentals, states of two quanta, and those of three that resonate with them."""
        modes = range(self.count)
        found: set[State] = {(), *((i,) for i in modes)}
        if self.count <= ALL_BINARY:
            found |= set(combinations_with_replacement(modes, 2))
        new = found
        while new:
            new = {other for state in new for other in self._partners(state) if len(other) <= 3} - found
            found |= new
        return tuple(sorted(found, key=lambda state: (len(state), state)))

    def _partners(self, state: State) -> Iterable[State]:
        """States that differ by one Fermi resonance."""
        for pair in self.fermi:
            for one, other in (pair, pair[::-1]):
                rest = list(state)
                try:
                    for mode in one:
                        rest.remove(mode)
                except ValueError:
                    continue
                yield tuple(sorted((*rest, *other)))

    @cached_property
    def rows(self) -> tuple[csr_array, csr_array, csr_array, np.ndarray]:
        """Of V3: all, its part in resonance, and the rest over E_a - E_c, [states, keys]; and the keys."""
        parts = [self.basis.apply(self.cubic, state) for state in self.states]
        keys, columns = np.unique(np.concatenate([key for key, _, _ in parts]), return_inverse=True)
        starts = np.cumsum([0, *(len(key) for key, _, _ in parts)])
        value = np.concatenate([values for _, values, _ in parts])
        shift = np.concatenate([shifts for _, _, shifts in parts])
        own = np.repeat([self.basis.key(state) for state in self.states], np.diff(starts))
        apart = ~np.isin(keys[columns] - own, self.resonant)
        generator = np.divide(value, -shift, out=np.zeros_like(value), where=apart)
        shape = (len(self.states), len(keys))
        free, bound, over = (
            csr_array((data, columns, starts), shape=shape) for data in (value * apart, value * ~apart, generator)
        )
        return free, bound, over, keys

    @cached_property
    def second_order(self) -> np.ndarray:
        """<a|H2|b> over all states, without the cubic terms of resonances."""
        free, bound, over, _ = self.rows
        cubic = (over @ (0.5 * free + bound).T).toarray()
        return cubic + cubic.T + self._direct()

    def _direct(self) -> np.ndarray:
        """<a|V4 + C|b>."""
        total = np.zeros((len(self.states),) * 2)
        keys = np.array([self.basis.key(state) for state in self.states])
        order = np.argsort(keys)
        for row, state in enumerate(self.states):
            found, values, _ = self.basis.apply(self.quartic, state)
            at = np.minimum(np.searchsorted(found, keys[order]), len(found) - 1)
            total[row, order] += np.where(found[at] == keys[order], values[at], 0.0)
        for constant, zeta in zip(self.field.rotational, self.field.zeta, strict=True):
            if constant > 0:
                turned = self._matrix(self._angular_momentum(zeta))
                total += constant * (turned @ turned.T).toarray()
        return total

    def _angular_momentum(self, zeta: np.ndarray) -> Terms:
        """pi / i = sum zeta_ij q_i p_j sqrt(w_j / w_i)."""
        modes = np.argwhere(zeta != 0)
        i, j = modes.T
        omega = self.field.omega
        return Terms(((("q", "p"), modes, zeta[i, j] * np.sqrt(omega[j] / omega[i])),))

    def _matrix(self, terms: Terms, keys: np.ndarray | None = None) -> csr_array:
        """terms|state> for all states [states, keys]; of given keys alone, or of all."""
        parts = [self.basis.apply(terms, state)[:2] for state in self.states]
        if keys is None:
            keys = np.unique(np.concatenate([key for key, _ in parts]))
        rows, columns, values = [], [], []
        for row, (key, value) in enumerate(parts):
            at = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
            known = keys[at] == key
            rows.append(np.full(known.sum(), row))
            columns.append(at[known])
            values.append(value[known])
        where = np.concatenate(rows), np.concatenate(columns)
        return csr_array((np.concatenate(values), where), shape=(len(self.states), len(keys)))

    def hamiltonian(self) -> np.ndarray:
        """Over all states: energies to second order, Fermi and Darling-Dennison couplings."""
        _, bound, _, keys = self.rows
        own = np.array([self.basis.key(state) for state in self.states])
        at = np.minimum(np.searchsorted(keys, own), len(keys) - 1)
        fermi = bound[:, at].toarray() * (keys[at] == own)
        coupling = self._resonant_couplings()
        return np.diag(self.energies + np.diag(self.second_order)) + fermi + coupling

    def _resonant_couplings(self) -> np.ndarray:
        """Second-order couplings of states with as many quanta, or with one more or less by two Fermi resonances."""
        apart = self.energies[:, None] - self.energies
        kept = (np.abs(apart) < DARLING_WINDOW) & (np.abs(self.second_order) > DARLING_RATIO * np.abs(apart))
        np.fill_diagonal(kept, False)
        kept[0] = kept[:, 0] = False
        return np.where(kept, self.second_order, 0.0)

    def levels(self) -> Levels:
        matrix = self.hamiltonian()
        ground = matrix[0, 0]
        energies, vectors = np.linalg.eigh(matrix[1:, 1:])
        states = self.states[1:]
        leading = _assign(vectors**2)
        moments = np.array([self._moment(component) for component in range(len(self.field.first))])
        watson = -self.field.rotational.sum() / 4.0 if (self.field.rotational > 0).all() else 0.0
        return Levels(
            zero_point=float(ground + self.field.omega.sum() / 2.0 + watson),
            energy=energies - ground,
            states=tuple(states[i] for i in leading),
            share=(vectors**2)[leading, np.arange(len(energies))],
            weights=(vectors**2).T,
            basis=states,
            moments=moments.reshape(len(moments), len(self.states))[:, 1:] @ vectors,
            fermi=self.fermi,
        )

    def _moment(self, component: int) -> np.ndarray:
        """<0| exp(S) mu exp(-S) |b> for all states b, to second order for fundamentals, first for two quanta."""
        field = self.field
        _, _, over, keys = self.rows
        first = Terms.linear(field.first[component])
        second, third = Terms.quadratic(field.second[component]), Terms.semi_cubic(field.third[component])
        own = np.array([self.basis.key(state) for state in self.states])
        linear = self._matrix(first, own_sorted := np.sort(own)).toarray()[:, np.searchsorted(own_sorted, own)]
        quadratic, wide = self._matrix(second, keys), self._matrix(first, keys)
        cubic = dict(zip(*self.basis.apply(third, ())[:2], strict=True))
        ground = over[[0]]
        moment = linear[0].copy()
        direct = dict(zip(*self.basis.apply(second, ())[:2], strict=True))
        moment += np.array([direct.get(key, 0.0) + cubic.get(key, 0.0) for key in own])
        moment += (ground @ (quadratic + wide).T).toarray()[0]
        moment += self._from_ground(first, second, over, keys)
        return moment + self._second_order_moment(first, linear, over, keys)

    def _from_ground(self, first: Terms, second: Terms, over: csr_array, keys: np.ndarray) -> np.ndarray:
        """sum_c <0| mu1 + mu2 |c> S_bc."""
        total = np.zeros(len(keys))
        for terms in (first, second):
            found, values, _ = self.basis.apply(terms, ())
            at = np.minimum(np.searchsorted(keys, found), len(keys) - 1)
            known = keys[at] == found
            total[at[known]] += values[known]
        return over @ total

    def _second_order_moment(self, first: Terms, linear: np.ndarray, over: csr_array, keys: np.ndarray) -> np.ndarray:
        """([S2, mu1] + [S1, [S1, mu1]] / 2)_0b for fundamentals, by way of states of at most two quanta."""
        ones = np.array([len(state) == 1 for state in self.states])
        apart = self.energies[:, None] - self.energies
        kept = (self._resonant_couplings() == 0) & (np.abs(apart) > 0)
        again = np.divide(self.second_order, apart, out=np.zeros_like(apart), where=kept)
        overlap = (over @ over.T).toarray()
        total = again[0] @ linear + linear[0] @ again.T
        total -= 0.5 * (overlap[0] @ linear + linear[0] @ overlap)
        total += self._through(first, over, keys)
        return np.where(ones, total, 0.0)

    def _through(self, first: Terms, over: csr_array, keys: np.ndarray) -> np.ndarray:
        """sum_cd S_0c <c|mu1|d> S_bd: mu1 on the states that V3 couples to the ground state."""
        reached: dict[np.uint64, float] = {}
        ((_, modes, coefficients),) = first.groups
        mu = np.zeros(self.count)
        mu[modes[:, 0]] = coefficients
        ground = dict(zip(keys[over[[0]].indices], over[[0]].data, strict=True))
        for state, amplitude in self._cubic_states(ground):
            quanta = np.bincount(np.array(state, dtype=int), minlength=self.count)
            for sign in (1, -1):
                size = amplitude * mu * np.sqrt((quanta + (sign > 0)) / 2.0)
                moved = self.basis.key(state) + np.uint64(sign % 2**64) * self.basis.numbers
                for key, value in zip(moved[size != 0], size[size != 0], strict=True):
                    reached[key] = reached.get(key, 0.0) + value
        found = np.array(sorted(reached), dtype=np.uint64)
        at = np.minimum(np.searchsorted(keys, found), len(keys) - 1)
        known = keys[at] == found
        total = np.zeros(len(keys))
        total[at[known]] = np.array([reached[key] for key in found])[known]
        return over @ total

    def _cubic_states(self, amplitudes: dict[np.uint64, float]) -> Iterable[tuple[State, float]]:
        for size in (1, 3):
            for state in combinations_with_replacement(range(self.count), size):
                amplitude = amplitudes.get(self.basis.key(state))
                if amplitude:
                    yield state, amplitude


def _assign(weights: np.ndarray) -> np.ndarray:
    """For each level [columns], the basis state that leads it; each state once, the clearest first."""
    leading = np.full(weights.shape[1], -1)
    free_rows, free_columns = np.ones(len(weights), bool), np.ones(len(weights), bool)
    for flat in np.argsort(-weights, axis=None, kind="stable"):
        row, column = divmod(int(flat), weights.shape[1])
        if free_rows[row] and free_columns[column]:
            leading[column], free_rows[row], free_columns[column] = row, False, False
            if not free_rows.any():
                break
    return leading


def fermi_resonances(omega: np.ndarray, cubic: np.ndarray) -> tuple[tuple[State, State], ...]:
    """Pairs ((i, j), (k,)) of states that perturbation theory must not treat apart."""
    found: list[tuple[State, State]] = []
    modes = range(len(omega))
    for i, j in combinations_with_replacement(modes, 2):
        for k in modes:
            if k in (i, j):
                continue
            apart = abs(omega[i] + omega[j] - omega[k])
            size = 256.0 if i == j else 64.0
            if apart < FERMI_WINDOW and cubic[i, j, k] ** 4 > FERMI_ERROR * size * apart**3 and cubic[i, j, k] != 0:
                found.append(((i, j), (k,)))
    return tuple(found)


def compositions(levels: Levels, index: int, least: float = 0.1) -> Sequence[tuple[State, float]]:
    """Basis states of a level with a weight of at least `least`, largest first."""
    weights = levels.weights[index]
    return [(levels.basis[i], float(weights[i])) for i in np.argsort(-weights) if weights[i] >= least]
