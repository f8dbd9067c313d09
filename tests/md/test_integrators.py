"""What one step, and many, must do exactly."""

import math

import numpy as np
import pytest
import torch
from force_fields import Free, Harmonic, Morse

from painn_fast.md.normal_modes import mode_frequencies, normal_mode_matrix
from painn_fast.testing import assert_close
from painn_fast.units import AMU_A2_PER_FS2, KB

OMEGA = 0.2  # 1/fs


def harmonic(system):
    return Harmonic(system.masses, OMEGA)


def mode_energies(toy):
    P = toy.state.positions.shape[1]
    C = normal_mode_matrix(P)
    q, p = C @ toy.state.positions.flatten(2), C @ toy.state.momenta.flatten(2)  # [S, P, 3 N]
    omega = mode_frequencies(P, toy.temperature)[:, :, None]
    m = toy.system.masses.repeat_interleave(3)
    return 0.5 * p**2 / m + 0.5 * m * omega**2 * q**2


@pytest.mark.parametrize("dt", [0.05, 1.0, 37.0, 1e4])
def test_free_ring_polymer_conserves_the_energy_of_every_mode(toy, dt):
    free = toy(Free(), P=16, dt=dt)
    free.state.momenta -= free.state.momenta.mean(
        1, keepdim=True
    )  # or 10 ps steps lead so far that x_j - x_k is rounded
    before = mode_energies(free)
    free.steps(20)
    assert_close(mode_energies(free), before, 1e-12, "mode energies")


@pytest.mark.parametrize("dt", [0.05, 1.0, 37.0])
def test_free_ring_polymer_is_reversible(toy, dt):
    free = toy(Free(), P=16, dt=dt)
    before = free.state.positions.clone()
    there_and_back(free)
    assert_close(free.state.positions, before, 1e-12, "positions")


@pytest.mark.parametrize("dt", [1e3, 1e4])
def test_shape_of_a_free_ring_polymer_is_reversible_for_any_time_step(toy, dt):
    """Its centroid goes as far as rounding of its velocity takes it in so long a time."""
    free = toy(Free(), P=16, dt=dt)
    free.state.momenta -= free.state.momenta.mean(1, keepdim=True)
    before = free.state.positions - centroid(free)[:, None]
    there_and_back(free)
    assert_close(free.state.positions - centroid(free)[:, None], before, 1e-12, "positions about the centroid")


def there_and_back(free):
    before = free.state.positions.clone()
    free.steps(20)
    assert float((free.state.positions - before).abs().max()) > 1e-3
    free.state.momenta.neg_()
    free.steps(20)


def test_one_bead_is_velocity_verlet_bit_for_bit(toy):
    morse = Morse()
    ring = toy(morse, N=5, P=1, ensemble="nve", dt=0.7)
    ring.state.positions += torch.randn(2, 1, 5, 3, dtype=torch.float64) * 2
    energy, forces = morse(ring.state.copies)
    x, p, m = ring.state.copies.clone(), ring.state.momenta[:, 0].clone(), ring.system.masses[:, None]
    ring.steps(100)
    for _ in range(100):
        p = p + forces * (0.5 * 0.7 / AMU_A2_PER_FS2)
        x = x + p * (0.7 / m)
        energy, forces = morse(x)
        p = p + forces * (0.5 * 0.7 / AMU_A2_PER_FS2)
    assert torch.equal(ring.state.positions[:, 0], x)
    assert torch.equal(ring.state.momenta[:, 0], p)
    assert torch.equal(ring.state.energy[:, 0], energy)


def test_one_bead_under_pile_is_langevin_bit_for_bit(toy):
    one, other = (toy(harmonic, P=1, ensemble=ensemble) for ensemble in ("pile-l", "langevin"))
    one.steps(50), other.steps(50)
    assert torch.equal(one.state.positions, other.state.positions)
    assert torch.equal(one.state.heat, other.state.heat)


def test_one_bead_under_trpmd_is_nve(toy):
    one, other = (toy(harmonic, P=1, ensemble=ensemble) for ensemble in ("t-rpmd", "nve"))
    one.steps(50), other.steps(50)
    assert_close(one.state.positions, other.state.positions, 1e-12)


@pytest.mark.parametrize("ensemble", ["rpmd", "t-rpmd", "pile-l", "pile-g"])
def test_a_trajectory_does_not_depend_on_its_batch(toy, ensemble):
    together = toy(harmonic, S=5, P=6, ensemble=ensemble)
    alone = toy(harmonic, P=6, ensemble=ensemble, trajectory=torch.tensor([3]))
    together.steps(50), alone.steps(50)
    assert torch.equal(alone.state.positions[0], together.state.positions[3])
    assert torch.equal(alone.state.momenta[0], together.state.momenta[3])


def centroid(toy):
    return toy.state.positions.mean(1)


def test_trpmd_centroid_of_a_harmonic_oscillator_feels_no_noise(toy):
    noisy = toy(harmonic, P=16, ensemble="t-rpmd")
    quiet = toy(harmonic, P=1, ensemble="t-rpmd")
    other = toy(harmonic, P=16, ensemble="t-rpmd", seed=99)
    for each in (quiet, other):
        each.state.positions.copy_(noisy.state.positions if each is other else centroid(noisy)[:, None])
        each.state.momenta.copy_(noisy.state.momenta if each is other else noisy.state.momenta.mean(1)[:, None])
    for each in (noisy, quiet, other):
        each.steps(400)
    assert not torch.allclose(other.state.positions, noisy.state.positions)
    assert_close(centroid(noisy), centroid(quiet), 1e-12, "centroid against the classical one")
    assert_close(centroid(noisy), centroid(other), 1e-12, "centroid under other noise")


def test_rpmd_centroid_of_a_harmonic_oscillator_moves_as_a_cosine(toy):
    """Its correlation function is then cos(omega t) / (beta m omega^2), whose variance test_sampling proves."""
    ring = toy(harmonic, P=8, ensemble="rpmd", dt=0.01)
    x0, p0 = centroid(ring), ring.state.momenta.mean(1)
    m = ring.system.masses[:, None]
    for _ in range(4):
        ring.steps(1000)
        t = ring.state.step * 0.01
        expected = math.cos(OMEGA * t) * x0 + math.sin(OMEGA * t) / (m * OMEGA) * p0
        assert_close(centroid(ring), expected, 5e-6, f"centroid after {t} fs")


def test_rpmd_correlation_of_the_harmonic_centroid(toy):
    """C(t) = cos(omega t) / (beta m omega^2): thousands of oscillators from the exact ensemble."""
    ring = toy(harmonic, N=2000, S=1, P=4, ensemble="rpmd", dt=0.25, mass=2.0)
    m, beta = 2.0, 1.0 / (KB * 300.0)
    scale = 1.0 / (beta * m * AMU_A2_PER_FS2 * OMEGA**2)
    ring.state.positions += scale**0.5 * torch.randn(1, 1, 2000, 3, dtype=torch.float64)
    x0 = centroid(ring)
    for _ in range(8):
        ring.steps(20)
        t = ring.state.step * 0.25
        got = float((x0 * centroid(ring)).mean())
        assert abs(got / scale - math.cos(OMEGA * t)) < 5 * (2.0 / 6000) ** 0.5, f"t = {t} fs"


EVERY = 4


def fluctuation(toy, dt, steps):
    run = toy(Morse(), N=4, S=3, P=4, ensemble="rpmd", dt=dt, start="collapsed", mass=12.0)
    square = torch.tensor([[0, 0, 0], [1.5, 0, 0], [0, 1.5, 0], [0, 0, 1.5]], dtype=torch.float64)
    run.state.positions += square
    energies = []
    for _ in range(steps // EVERY):
        run.steps(EVERY)
        energies.append(run.estimators(run.state)["conserved"])
    return torch.stack(energies)  # [T, S]


def test_energy_fluctuation_scales_as_the_square_of_the_time_step(toy):
    long, short = (float(fluctuation(toy, dt, round(200 / dt)).std(0).mean()) for dt in (1.0, 0.5))
    assert long / short == pytest.approx(4.0, rel=0.1), f"{long:.3e} and {short:.3e} eV"


def slopes(energies):
    picoseconds = np.arange(len(energies)) * 0.25 * EVERY / 1000
    return np.polyfit(picoseconds, energies, 1)[0] / 4  # eV/atom/ps


def test_energy_of_rpmd_has_no_slope(toy):
    slope = slopes(fluctuation(toy, 0.25, 8000).numpy())  # 2 ps
    assert np.abs(slope).max() < 1e-6, f"slopes {slope} eV/atom/ps"


@pytest.mark.slow
def test_energy_of_rpmd_has_no_slope_for_long(toy):
    slope = slopes(fluctuation(toy, 0.25, 200_000).numpy())  # 50 ps
    assert np.abs(slope).max() < 2e-8, f"slopes {slope} eV/atom/ps"


@pytest.mark.parametrize("ensemble", ["pile-l", "pile-g", "t-rpmd"])
def test_heat_from_the_thermostat_closes_the_energy_balance(toy, ensemble):
    run = toy(harmonic, N=20, P=8, ensemble=ensemble, dt=0.05, tau=20.0)
    before = run.estimators(run.state)
    run.steps(2000)
    after = run.estimators(run.state)
    exchanged = float(run.state.heat.abs().min())
    assert exchanged > 0.5, "the thermostat did nothing"
    assert_close(after["conserved"], before["conserved"], 1e-3, "conserved quantity")
