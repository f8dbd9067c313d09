"""Steps of ring polymers: the compiled ones equal those of plain torch."""

import pytest
import torch

from painn_fast.kernels.ring import cpu, reference
from painn_fast.md.integrators import RingPolymer
from painn_fast.md.state import System
from painn_fast.testing import assert_close

S, N = 3, 4
MASSES = torch.tensor([1.0, 12.0, 16.0, 2.0], dtype=torch.float64)
SYSTEM = System(torch.ones(N, dtype=torch.int64), MASSES, torch.zeros(3, 3), torch.zeros(3, dtype=torch.bool))
KELVIN = torch.tensor([250.0, 300.0, 400.0], dtype=torch.float64)
FINE = torch.full((S,), 1e9, dtype=torch.float64)


def ring(ensemble, P, hold=()):
    steps = torch.tensor([0.5, 0.4, 0.3], dtype=torch.float64)
    seeds = torch.tensor([1, 2**40, 3])
    return RingPolymer(SYSTEM, ensemble, P, KELVIN, steps, tau0=20.0, seed=seeds, removed=3, hold=hold).ring


def bound(backend, made, P):
    torch.manual_seed(5)
    x, p, f = (torch.randn(S, P, N, 3, dtype=torch.float64) for _ in range(3))
    energy, heat = torch.zeros(S, P, dtype=torch.float64), torch.zeros(S, dtype=torch.float64)
    return backend.Steps(x, 0.05 * p, f, x.clone(), energy, heat, torch.tensor([7, 0, 2**31]), made)


@pytest.mark.parametrize("P", [1, 2, 5, 16])
@pytest.mark.parametrize("ensemble", ["rpmd", "t-rpmd", "pile-l", "pile-g"])
@pytest.mark.parametrize("hold", [(), ("translation",)])
def test_compiled_steps_equal_the_specification(ensemble, P, hold):
    made = ring(ensemble, P, hold)
    one, other = bound(reference, made, P), bound(cpu, made, P)
    for step in range(1, 6):
        energy = torch.randn(S * P, dtype=torch.float64)
        for each in (one, other):
            each.advance(step)
            forces = -each.beads[0].flatten(0, 1)
            assert each.close(energy, forces, FINE, 1e3, 1e3)
    for mine, theirs, what in zip(one.beads, other.beads, ("positions", "momenta", "forces", "before"), strict=True):
        assert_close(mine, theirs, 1e-12, what)
    assert_close(one.heat, other.heat, 1e-10, "heat")
    assert torch.equal(one.energy, other.energy)


@pytest.mark.parametrize("backend", [reference, cpu])
def test_a_look_at_the_step_sees_each_kind_of_trouble(backend):
    made = ring("nve", 2)

    def look(energy=0.0, force=1.0, move=0.1, hottest=1.0):
        steps = bound(backend, made, 2)
        x, p, _, before = steps.beads
        p.zero_()
        before.copy_(x)
        forces, energies = torch.zeros(S * 2, N, 3, dtype=torch.float64), torch.zeros(S * 2, dtype=torch.float64)
        x[2, 1, 3, 1] += move
        forces[5, 3, 0] = force
        energies[4] = energy
        limit = torch.tensor([1.0, 1.0, hottest], dtype=torch.float64)
        return steps.close(energies, forces, limit, 0.5, 10.0)

    assert look()
    nothing = float("nan")
    for trouble in ({"move": 0.6}, {"force": 11.0}, {"energy": float("inf")}, {"hottest": 1e-9}):
        assert not look(**trouble), trouble
    for name in ("move", "force", "energy"):
        assert not look(**{name: nothing}), name


def test_the_centre_of_mass_is_held_at_rest():
    steps = bound(cpu, ring("pile-l", 4, ("translation",)), 4)
    steps.beads[2].zero_()
    steps.beads[1].zero_()
    for step in range(1, 4):
        steps.advance(step)
    assert float(steps.beads[1].abs().min()) > 0
    assert float(steps.beads[1].mean(1).sum(1).abs().max()) < 1e-13
