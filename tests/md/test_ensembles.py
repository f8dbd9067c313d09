"""Ensembles by physical_validation (Merz, Shirts, PLOS ONE 13, e0202764 (2018)): deviations in units of their error."""

import numpy as np
import physical_validation as pv
import pytest
import torch
from force_fields import Harmonic

from painn_fast.md.force_field import ForceField
from painn_fast.md.normal_modes import normal_mode_matrix
from painn_fast.units import AMU_A2_PER_FS2, KB

N, MASS, OMEGA, TRAJECTORIES = 5, 2.0, 0.2, 400
UNITS = pv.data.UnitData(
    kb=KB, energy_str="eV", energy_conversion=96.485, length_str="Ang", length_conversion=0.1,
    volume_str="Ang^3", volume_conversion=1e-3, temperature_str="K", temperature_conversion=1.0, pressure_str="bar",
    pressure_conversion=1.0, time_str="fs", time_conversion=1e-3,
)  # fmt: skip


class Coupled(ForceField):
    """Oscillators of several frequencies with quartic springs between neighbours: one factor for all momenta is ergodic
    here, as it is not for equal oscillators on their own."""

    def __call__(self, positions):
        stiffness = torch.linspace(1.0, 3.0, positions.shape[1], dtype=torch.float64)[:, None]
        apart = positions - positions.roll(-1, dims=1)
        square = apart.square().sum(-1, keepdim=True)
        energy = 0.5 * (stiffness * positions.square()).sum((1, 2)) + 10.0 * square.square().sum((1, 2))
        push = -40.0 * square * apart
        return energy, push - push.roll(1, dims=1) - stiffness * positions


def sampled(toy, ensemble, P, T, frames, measure):
    """measure(state), a row for each trajectory and frame, after nearly all energy has come from the thermostat."""
    field = Coupled() if ensemble == "pile-g" else (lambda system: Harmonic(system.masses, OMEGA))
    run = toy(field, N=N, S=TRAJECTORIES, P=P, ensemble=ensemble, dt=0.5, T=T, mass=MASS, tau=10.0, seed=int(T))
    run.state.momenta *= 0.3
    run.steps(900 if ensemble == "pile-g" else 300)  # one factor for all takes longer to settle
    rows = []
    for _ in range(frames):
        run.steps(60)
        rows.append(measure(run.state))
    return torch.cat(rows)


def centroid_energies(state):
    """Kinetic energy of the centroids, at T for any P, and the harmonic potential there, also at T if V is harmonic."""
    p, x = state.momenta.mean(1), state.positions.mean(1)
    kinetic = p.square().sum((1, 2)) / (2 * MASS) * AMU_A2_PER_FS2
    harmonic = x.square().sum((1, 2)) * 0.5 * MASS * OMEGA**2 * AMU_A2_PER_FS2
    return torch.stack([kinetic, harmonic], dim=1)


def classical_energies(state):
    """Kinetic and potential energy of one bead."""
    return torch.stack([centroid_energies(state)[:, 0], state.energy[:, 0]], dim=1)


def data(energies, T):
    kinetic, potential = energies.numpy().T
    system = pv.data.SystemData(
        natoms=N, nconstraints=0, ndof_reduction_tra=0, ndof_reduction_rot=0, mass=np.full(N, MASS)
    )
    ensemble = pv.data.EnsembleData("NVT", natoms=N, volume=1.0, temperature=T)
    seen = pv.data.ObservableData(
        kinetic_energy=kinetic,
        potential_energy=potential,
        total_energy=kinetic + potential,
        volume=np.ones(len(kinetic)),
    )
    return pv.data.SimulationData(units=UNITS, ensemble=ensemble, system=system, observables=seen)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("ensemble", "P"),
    [
        *(("langevin", 1), ("pile-g", 1), ("pile-l", 4)),
        *(pytest.param(name, P, marks=pytest.mark.slow) for name, P in (("pile-g", 4), ("pile-l", 16), ("pile-g", 16))),
    ],
)
def test_ensembles_pass_physical_validation_within_3_sigma(toy, ensemble, P):
    measure = classical_energies if P == 1 else centroid_energies
    frames = 8 if P == 1 else 6
    low, high = (data(sampled(toy, ensemble, P, T, frames, measure), T) for T in (280.0, 340.0))
    for run, kelvin in ((low, 280.0), (high, 340.0)):
        deviations = pv.kinetic_energy.distribution(run, verbosity=0, bootstrap_seed=1, data_is_uncorrelated=True)
        assert max(np.abs(deviations)) < 3, f"mean and width of the kinetic energy at {kelvin} K: {deviations} sigma"
    if ensemble == "pile-g" and P > 1:
        return  # centroids of an anharmonic potential have no Boltzmann factor of their own to compare with
    for total in (False, True):
        (slope,) = pv.ensemble.check(low, high, total_energy=total, verbosity=0, data_is_uncorrelated=True)
        assert abs(slope) < 3, f"two temperatures: {slope} sigma"


@pytest.mark.parametrize("ensemble", ["pile-l", "pile-g"])
def test_every_mode_of_the_ring_has_its_share_of_the_kinetic_energy(toy, ensemble):
    P = 6

    def shares(state):
        modes = normal_mode_matrix(P) @ state.momenta.flatten(2)  # [S, P, 3 N]
        return modes.square().sum(2) / MASS * AMU_A2_PER_FS2 / (3 * N * P * KB * 300.0)

    values = sampled(toy, ensemble, P, 300.0, 6, shares)
    error = values.std(0) / len(values) ** 0.5
    assert float(error.max()) < 0.01
    assert float(((values.mean(0) - 1.0) / error).abs().max()) < 3.5, values.mean(0)
