"""Ensembles against their exact averages. Errors are measured from thousands of independent oscillators."""

import math

import numpy as np
import pytest
import torch
from force_fields import Free, Harmonic
from scipy import stats

from painn_fast.md.initial import maxwell_boltzmann, remove_rotation, remove_translation
from painn_fast.md.normal_modes import mode_frequencies
from painn_fast.testing import assert_close
from painn_fast.units import AMU_A2_PER_FS2, HBAR, KB

T, MASS = 300.0, 1.5
BETA_HBAR = HBAR / (KB * T)  # fs
THERMAL = KB * T / (MASS * AMU_A2_PER_FS2)  # (Å/fs)^2, variance of a velocity


def oscillators(omega):
    return lambda system: Harmonic(system.masses, omega)


def average(toy, equilibrate, frames, every, measure):
    """Mean over time of measure(state) [n independent], and the standard error of its mean over all."""
    toy.steps(equilibrate)
    total = 0
    for _ in range(frames):
        toy.steps(every)
        total = total + measure(toy.state).flatten()
    values = total / frames
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def assert_within(got, error, expected, tightest, what):
    assert error < tightest * abs(expected), f"{what}: too noisy to tell, {error / expected:.2%}"
    assert abs(got - expected) < 4 * error, f"{what}: got {got:.6g} +- {error:.2g}, expected {expected:.6g}"


def squares(state):
    return state.positions[0].square().mean(0)  # bead average [N, 3]


def finite_bead_variance(P, omega):
    omega_k = mode_frequencies(P, torch.tensor([T], dtype=torch.float64))[0]
    return THERMAL * float((1.0 / (omega**2 + omega_k**2)).sum())


@pytest.mark.parametrize(("P", "deficit"), [(16, -0.0298), (32, -0.0077), (64, -0.0019)])
def test_finite_bead_formula_has_the_known_deficit(P, deficit):
    omega = 8.0 / BETA_HBAR
    exact = HBAR / (2 * MASS * AMU_A2_PER_FS2 * omega) / math.tanh(4.0)
    assert finite_bead_variance(P, omega) / exact - 1 == pytest.approx(deficit, abs=5e-5)


@pytest.mark.parametrize(
    ("P", "frames"),
    [(2, 40), (16, 20), pytest.param(32, 200, marks=pytest.mark.slow), pytest.param(64, 200, marks=pytest.mark.slow)],
)
def test_harmonic_oscillator_of_P_beads_has_the_exact_finite_P_variance(toy, P, frames):
    omega = 8.0 / BETA_HBAR
    run = toy(oscillators(omega), N=1000, S=1, P=P, ensemble="pile-l", dt=0.4, T=T, mass=MASS, tau=10.0)
    got, error = average(run, 120, frames, 15, squares)
    assert_within(got, error, finite_bead_variance(P, omega), 0.005 if frames < 100 else 0.001, "<x^2>")
    if P == 16:
        exact = HBAR / (2 * MASS * AMU_A2_PER_FS2 * omega) / math.tanh(4.0)
        assert got < exact - 4 * error, "the finite-P deficit of 3 % should be seen"


def test_the_finite_P_variance_is_exact_for_long_steps(toy):
    """At omega dt = 0.6, where a ring polymer that moves exactly has 1.6 % too much (Lyapunov equation of a step)."""
    omega = 8.0 / BETA_HBAR
    run = toy(oscillators(omega), N=2000, S=1, P=16, ensemble="pile-l", dt=2.0, T=T, mass=MASS, tau=10.0)
    got, error = average(run, 60, 60, 5, squares)
    assert_within(got, error, finite_bead_variance(16, omega), 0.003, "<x^2>")


@pytest.mark.parametrize("P", [1, 4, 16])
def test_harmonic_centroid_has_the_classical_variance(toy, P):
    omega = 0.2
    run = toy(oscillators(omega), N=1500, S=1, P=P, ensemble="pile-l", dt=0.5, T=T, mass=MASS, tau=5.0)
    got, error = average(run, 100, 30, 20, lambda state: state.positions[0].mean(0).square())
    assert_within(got, error, THERMAL / omega**2, 0.008, "centroid variance")


@pytest.mark.parametrize("start", ["free", "collapsed"])
def test_free_ring_polymer_has_the_exact_radius_of_gyration(toy, start):
    P = 8
    run = toy(Free(), N=2000, S=1, P=P, ensemble="pile-l", dt=1.0, T=T, mass=MASS, start=start)
    gyration = lambda state: state.positions[0].var(0, correction=0)  # noqa: E731
    got, error = average(run, 0 if start == "free" else 60, 20, 10, gyration)
    expected = BETA_HBAR * HBAR * (P**2 - 1) / (12 * MASS * AMU_A2_PER_FS2 * P**2)
    assert_within(got, error, expected, 0.01, "radius of gyration squared")


def test_quantum_kinetic_energy_estimators_agree_with_the_virial_theorem(toy):
    P, N, omega = 16, 800, 8.0 / BETA_HBAR
    run = toy(oscillators(omega), N=N, S=1, P=P, ensemble="pile-l", dt=0.4, T=T, mass=MASS, tau=10.0)
    run.steps(120)
    series = {"kinetic_virial": [], "kinetic_primitive": [], "potential": [], "kinetic": []}
    for _ in range(24):
        run.steps(15)
        estimates = run.estimators(run.state)
        for name, values in series.items():
            values.append(float(estimates[name][0]))
    expected = 1.5 * N * MASS * AMU_A2_PER_FS2 * omega**2 * finite_bead_variance(P, omega)
    tolerance = {"kinetic_virial": 0.01, "kinetic_primitive": 0.01, "potential": 0.01}
    for name, allowed in tolerance.items():
        assert np.mean(series[name]) == pytest.approx(expected, rel=allowed), name
    assert np.mean(series["kinetic"]) == pytest.approx(1.5 * N * KB * T, rel=0.01)


def test_langevin_shares_the_energy_equally(toy):
    masses = torch.tensor([1.0, 4.0, 16.0], dtype=torch.float64).repeat(800)
    run = toy(lambda system: Harmonic(masses, 0.1), N=2400, S=1, P=1, ensemble="langevin", dt=0.4, T=T, tau=10.0)
    run = with_masses(run, masses)
    run.steps(150)
    kinetic, potential = torch.zeros(2, 2400, 3, dtype=torch.float64)
    for _ in range(30):
        run.steps(40)
        kinetic += run.state.momenta[0, 0] ** 2 / masses[:, None] * AMU_A2_PER_FS2 / (KB * T) / 30
        potential += run.state.positions[0, 0] ** 2 * run.force_field.stiffness / (KB * T) / 30
    for mass in (1.0, 4.0, 16.0):
        for name, values in (("kinetic", kinetic[masses == mass]), ("potential", potential[masses == mass])):
            error = float(values.std() / values.numel() ** 0.5)
            assert_within(float(values.mean()), error, 1.0, 0.012, f"{name} energy of mass {mass} in kT/2")


def with_masses(run, masses):
    """The same run with other masses, momenta drawn anew."""
    from dataclasses import replace

    from painn_fast.md.integrators import RingPolymer

    run.system = replace(run.system, masses=masses)
    run.integrator = RingPolymer(run.system, "langevin", 1, run.temperature, 0.4, tau0=10.0, seed=5)
    run.state.momenta = maxwell_boltzmann(run.system, 1, run.temperature, seed=2, trajectory=torch.arange(1))
    return run


def test_kinetic_distribution_is_maxwell_boltzmann(toy):
    run = toy(oscillators(0.05), N=3000, S=1, P=1, ensemble="langevin", dt=0.2, T=T, mass=MASS, tau=5.0)
    run.state.momenta.zero_()  # all of it has to come from the thermostat
    run.steps(400)
    velocities = (run.state.momenta[0, 0] / MASS / THERMAL**0.5).flatten().numpy()
    assert stats.kstest(velocities, "norm").pvalue > 1e-3


def test_two_temperatures_have_the_ratio_of_their_boltzmann_factors(toy):
    """ln P(E, T1) / P(E, T2) is linear in E with slope beta2 - beta1 (Shirts, JCTC 9, 909 (2013))."""
    energies = {}
    for kelvin in (280.0, 330.0):
        run = toy(oscillators(0.2), N=6000, S=1, P=1, ensemble="langevin", dt=0.25, T=kelvin, mass=MASS, tau=10.0)
        run.steps(400)
        energies[kelvin] = 0.5 * (run.force_field.stiffness * run.state.positions[0, 0] ** 2).sum(1).numpy()
    low, high = energies[280.0], energies[330.0]
    pooled, label = np.concatenate([low, high]), np.repeat([1.0, 0.0], 6000)
    a = b = 0.0
    for _ in range(20):  # maximum likelihood by Newton
        p = 1 / (1 + np.exp(-(a + b * pooled)))
        w = p * (1 - p)
        gradient = np.array([(label - p).sum(), ((label - p) * pooled).sum()])
        information = np.array([[w.sum(), (w * pooled).sum()], [(w * pooled).sum(), (w * pooled**2).sum()]])
        a, b = np.array([a, b]) + np.linalg.solve(information, gradient)
    error = np.linalg.inv(information)[1, 1] ** 0.5
    expected = 1 / (KB * 330.0) - 1 / (KB * 280.0)
    assert abs(expected) > 5 * error, "too noisy to tell"
    assert abs(b - expected) < 3 * error, f"slope {b:.2f} +- {error:.2f}, expected {expected:.2f} per eV"


def test_start_has_no_translation_and_no_rotation_when_asked(toy):
    run = toy(Free(), N=6, S=3, P=4, mass=12.0)
    m = run.system.masses[:, None]
    positions = run.state.positions + torch.randn(6, 3, dtype=torch.float64)
    momenta = remove_rotation(remove_translation(run.state.momenta, run.system.masses), positions, run.system.masses)
    p, x = momenta.mean(1), positions.mean(1)
    scale = float(p.abs().max())
    assert float(p.sum(1).abs().max()) < 1e-12 * scale
    assert float(torch.linalg.cross(x, p).sum(1).abs().max()) < 1e-11 * scale
    modes = momenta - momenta.mean(1, keepdim=True)
    before = run.state.momenta - run.state.momenta.mean(1, keepdim=True)
    assert_close(modes, before, 1e-12, "internal modes keep their momenta")
    assert float((m * x).abs().sum()) > 0


def test_rotation_of_a_linear_molecule_is_removed_too(toy):
    run = toy(Free(), N=3, S=2, P=1, mass=12.0)
    line = torch.tensor([[0, 0, -1.2], [0, 0, 0], [0, 0, 1.2]], dtype=torch.float64)
    positions = line.expand(2, 1, 3, 3)
    momenta = remove_rotation(remove_translation(run.state.momenta, run.system.masses), positions, run.system.masses)
    assert torch.isfinite(momenta).all()
    assert float(torch.linalg.cross(positions, momenta).sum((1, 2)).abs().max()) < 1e-12
    assert_close(momenta[..., 2], remove_translation(run.state.momenta, run.system.masses)[..., 2], 1e-12)
