"""Perturbation theory against polynomials that are solved exactly in a basis."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import factorial, prod

import numpy as np
import pytest

from painn_fast.vibrations.perturbation import AnharmonicField, levels

MORSE = 3919.0, 85.0  # an O-H stretch: harmonic wavenumber and anharmonicity, cm-1


def morse_field(omega: float, anharmonicity: float) -> AnharmonicField:
    """V / omega = q^2 / 2 - a q^3 / 2 + 7 a^2 q^4 / 24 + ..., a = sqrt(2 x_e)."""
    a = np.sqrt(2.0 * anharmonicity / omega)
    return field([omega], cubic={(0, 0, 0): -3.0 * a * omega}, quartic={(0, 0, 0, 0): 7.0 * a**2 * omega})


def field(omega, cubic, quartic, first=None, second=None, third=None) -> AnharmonicField:
    """From constants by their sorted modes; moments of one component."""
    count = len(omega)
    phi3, phi4 = np.zeros((count,) * 3), np.zeros((count,) * 3)
    for modes, value in cubic.items():
        for order in itertools.permutations(modes):
            phi3[order] = value
    for i, j, k in itertools.product(range(count), repeat=3):
        phi4[i, j, k] = quartic.get(tuple(sorted((i, i, j, k))), 0.0)
    first = np.ones(count) if first is None else first
    second = np.zeros((count, count)) if second is None else second
    third = np.zeros((count, count)) if third is None else third
    zero = np.zeros(3)
    return AnharmonicField(
        np.array(omega, float), phi3, phi4, np.zeros((3, count, count)), zero, first[None], second[None], third[None]
    )


def random_field(omega, scale: float, seed: int = 0) -> AnharmonicField:
    """Cubic constants of the order of `scale`, quartic ones of its square."""
    rng, count = np.random.default_rng(seed), len(omega)
    cubic = {m: 100.0 * scale * rng.normal() for m in itertools.combinations_with_replacement(range(count), 3)}
    quartic = {
        m: scale**2 * (150.0 if len(set(m)) == 1 else 30.0 * rng.normal())
        for m in itertools.combinations_with_replacement(range(count), 4)
        if len(set(m)) <= 3
    }
    second = 0.1 * scale * rng.normal(size=(count, count))
    third = 0.02 * scale**2 * rng.normal(size=(count, count))
    return field(omega, cubic, quartic, 0.5 + rng.random(count), second + second.T, third)


def exact(field: AnharmonicField, quanta: int = 14) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Energies above the ground state, its energy, |moments|, and weights [states, levels] of the basis [states, K]."""
    count = len(field.omega)
    basis = np.array([s for s in itertools.product(range(quanta + 1), repeat=count) if sum(s) <= quanta])
    q = np.diag(np.sqrt(np.arange(1, quanta + 8) / 2.0), 1)
    powers = [np.linalg.matrix_power(q + q.T, m)[: quanta + 1, : quanta + 1] for m in range(5)]

    def operator(modes) -> np.ndarray:
        return prod(powers[list(modes).count(k)][np.ix_(basis[:, k], basis[:, k])] for k in range(count))

    matrix = np.diag((basis + 0.5) @ field.omega)
    for modes in itertools.combinations_with_replacement(range(count), 3):
        matrix += field.cubic[modes] / repeats(modes) * operator(modes)
    for modes in itertools.combinations_with_replacement(range(count), 4):
        twice = next((k for k in modes if modes.count(k) > 1), None)
        if twice is not None:
            rest = list(modes)
            rest.remove(twice), rest.remove(twice)
            matrix += field.quartic[twice, rest[0], rest[1]] / repeats(modes) * operator(modes)
    moment = sum(field.first[0, i] * operator([i]) for i in range(count))
    for i, j in itertools.product(range(count), repeat=2):
        moment = moment + field.second[0, i, j] / 2.0 * operator([i, j])
        moment = moment + field.third[0, i, j] / (6.0 if i == j else 2.0) * operator([i, i, j])
    energy, vectors = np.linalg.eigh(matrix)
    return energy, basis, np.abs(vectors.T @ moment @ vectors[:, 0]), vectors**2


def repeats(modes) -> int:
    return prod(factorial(modes.count(k)) for k in set(modes))


def errors(field: AnharmonicField) -> tuple[np.ndarray, np.ndarray, float]:
    """Of all levels in energy and |moment|, matched by their leading state; of the zero-point energy."""
    found = levels(field)
    energy, basis, moments, weights = exact(field)
    rows = [np.flatnonzero((basis == np.bincount(s, minlength=basis.shape[1])).all(axis=1))[0] for s in found.states]
    match = weights[rows].argmax(axis=1)
    off = np.abs(found.energy - (energy[match] - energy[0]))
    return off, np.abs(np.abs(found.moments[0]) - moments[match]), abs(found.zero_point - energy[0])


def test_morse_oscillator_is_exact() -> None:
    omega, anharmonicity = MORSE
    found = levels(morse_field(omega, anharmonicity))
    assert found.states == ((0,), (0, 0))
    np.testing.assert_allclose(found.energy, [omega - 2 * anharmonicity, 2 * omega - 6 * anharmonicity], atol=1e-8)
    assert found.zero_point == pytest.approx(omega / 2 - anharmonicity / 4, abs=1e-8)
    turning = replace(morse_field(omega, anharmonicity), rotational=np.array([0.0, 20.95, 20.95]))  # of HF, cm-1
    assert levels(turning).zero_point == pytest.approx(omega / 2 - anharmonicity / 4, abs=1e-8), "no term of Watson's"


def test_error_is_of_fourth_order_in_the_anharmonicity() -> None:
    """Half the cubic and a quarter of the quartic constants leave a sixteenth of the error, moments included."""
    omega = [1000.0, 1730.0, 3100.0]
    small, half = errors(random_field(omega, 0.2)), errors(random_field(omega, 0.1))
    fundamentals = [0, 1, 4]  # moments of two quanta are of lower order
    assert small[0].max() < 0.1
    assert half[0].max() < small[0].max() / 12
    assert half[1][fundamentals].max() < small[1][fundamentals].max() / 12
    assert half[1].max() < small[1].max() / 6
    assert half[2] < small[2] / 12


def test_fermi_resonance_is_solved_not_expanded() -> None:
    """2 w_0 is 5 cm-1 from w_1: without its matrix perturbation theory would be off by 25^2 / 5 = 125 cm-1."""
    resonant = field([700.0, 1405.0], {(0, 0, 1): 100.0, (1, 1, 1): 60.0}, {(0, 0, 0, 0): 10.0, (0, 0, 1, 1): 8.0})
    found = levels(resonant)
    assert found.fermi == (((0, 0), (1,)),)
    assert errors(resonant)[0][:4].max() < 1.0
    stretch = found.states.index((1,))
    assert 0.4 < found.share[stretch] < 0.75


def test_darling_dennison_resonance() -> None:
    """Overtones of two stretches that are nearly equal mix into local modes; the lines are apart by the coupling.

    Quartic constants as of Morse oscillators, whose errors of fourth order vanish: without them the levels of two
    quanta are off by 2.4 cm-1 of fourth order, which says nothing of the resonance.
    """
    local = field(
        [3000.0, 3010.0],
        {(0, 0, 0): -300.0, (1, 1, 1): -300.0},
        {(0, 0, 0, 0): 23.0, (1, 1, 1, 1): 23.0, (0, 0, 1, 1): 130.0},
    )
    assert errors(local)[0].max() < 2.0
    assert min(levels(local).share) < 0.8


@dataclass(frozen=True)
class Coupled:
    """Two Morse stretches and a bend of nearly the wavenumbers of water, cm-1.

    V = sum_i D_i (1 - exp(-a_i q_i))^2 + w_3 q_3^2 / 2 + sum_i (c_i q_i q_3^2 / 2 + d_i q_i^2 q_3^2 / 4)
    + e q_1^2 q_2^2 / 4
    """

    c: tuple[float, float]
    d: tuple[float, float] = (20.0, 15.0)
    e: float = 10.0
    omega: tuple[float, float, float] = (3780.0, 3930.0, 1450.0)

    def field(self) -> AnharmonicField:
        stretches = [morse_field(omega, MORSE[1]) for omega in self.omega[:2]]
        cubic = {(k, k, k): float(one.cubic[0, 0, 0]) for k, one in enumerate(stretches)}
        quartic = {(k, k, k, k): float(one.quartic[0, 0, 0]) for k, one in enumerate(stretches)}
        cubic |= {(k, 2, 2): self.c[k] for k in range(2)}
        quartic |= {(k, k, 2, 2): self.d[k] for k in range(2)} | {(0, 0, 1, 1): self.e}
        return field(self.omega, cubic, quartic)

    def exact(self, quanta: int) -> np.ndarray:
        """Levels above the ground state, in a basis of oscillators."""
        basis = np.array([s for s in itertools.product(range(quanta + 1), repeat=3) if sum(s) <= quanta])
        up = np.diag(np.sqrt(np.arange(1, 80) / 2.0), 1)
        points, vectors = np.linalg.eigh(up + up.T)

        def operator(*functions: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
            total = 1.0
            for k, function in enumerate(functions):
                matrix = ((vectors * function(points)) @ vectors.T)[: quanta + 1, : quanta + 1]
                total = total * matrix[np.ix_(basis[:, k], basis[:, k])]
            return total

        def power(n: int) -> Callable[[np.ndarray], np.ndarray]:
            return lambda q: q**n

        matrix = np.diag((basis + 0.5) @ np.array(self.omega))
        for k, omega in enumerate(self.omega[:2]):
            a = np.sqrt(2.0 * MORSE[1] / omega)

            def rest(q, a=a, omega=omega):
                return omega / (2.0 * a * a) * (1.0 - np.exp(-a * q)) ** 2 - 0.5 * omega * q**2

            order = 1 if k == 0 else -1
            matrix += operator(*(rest, power(0))[::order], power(0))
            matrix += self.c[k] / 2.0 * operator(*(power(1), power(0))[::order], power(2))
            matrix += self.d[k] / 4.0 * operator(*(power(2), power(0))[::order], power(2))
        matrix += self.e / 4.0 * operator(power(2), power(2), power(0))
        energy = np.linalg.eigvalsh(matrix)
        return energy[1:] - energy[0]


@pytest.mark.parametrize(
    ("model", "of_two_quanta"),
    [
        (Coupled((100.0, -70.0)), 8.0),
        (Coupled((150.0, 100.0)), 8.0),
        (Coupled((160.0, -110.0), (30.0, 20.0)), 10.0),
        (Coupled((300.0, -200.0)), 15.0),
    ],
)
def test_coupled_model_of_three_modes(model, of_two_quanta):
    """Fundamentals within 3 cm-1 at any of these couplings, however strong.

    An overtone of a stretch misses what perturbation theory of second order does: states of three quanta, two of them
    in the bend, push it by up to 15 cm-1 without being near enough for a resonance.
    """
    found = levels(model.field())
    true = model.exact(15)
    np.testing.assert_allclose(true[:9], model.exact(18)[:9], atol=0.1)
    apart = np.abs(true[:, None] - found.energy)
    off, quanta = apart.min(axis=0), np.array([len(state) for state in found.states])
    assert len(set(apart.argmin(axis=0))) == len(found.energy) == 9
    assert off[quanta == 1].max() < 3.0
    assert off[quanta == 2].max() < of_two_quanta
    harmonic = [sum(model.omega[k] for k in state) for state in found.states]
    assert min(found.energy - harmonic) < -300, "anharmonic by far more than the limit"
