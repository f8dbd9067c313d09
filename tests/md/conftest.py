"""Small systems that dynamics is tested on, and runs that are whole, or half done."""

import math
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from ase import Atoms
from resumable_runs import go

from painn_fast.md.estimators import Estimators
from painn_fast.md.force_field import ForceField
from painn_fast.md.guards import Guards
from painn_fast.md.initial import maxwell_boltzmann, ring_positions
from painn_fast.md.integrators import RingPolymer
from painn_fast.md.simulation import Group, Simulation
from painn_fast.md.state import State, System


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@dataclass
class Toy:
    """A system of independent atoms, its integrator and its state, which `steps` changes in a `Simulation`."""

    system: System
    temperature: torch.Tensor
    integrator: RingPolymer
    estimators: Estimators
    state: State
    force_field: ForceField
    simulation: Simulation | None = None

    def steps(self, n: int) -> None:
        """Advance by n steps, without limits; the first call evaluates the forces at the start."""
        if self.simulation is None:
            group = Group(self.system, self.state, self.temperature, self.integrator, self.estimators)
            none = Guards(force=math.inf, move=math.inf, heating=math.inf)
            self.simulation = Simulation([group], self.force_field, none)
        for _ in range(n):
            self.simulation.step()
        assert self.simulation.exceeded == []


@pytest.fixture
def toy():
    """Builds a `Toy` of N atoms about the origin."""

    def build(
        force_field, *, N=3, S=2, P=4, ensemble="rpmd", dt=0.5, T=300.0, mass=None, tau=50.0, seed=1, start="free",
        trajectory=None,
    ):  # fmt: skip
        atoms = Atoms(numbers=[1] * N, positions=torch.zeros(N, 3).numpy())
        if mass is not None:
            atoms.set_masses([mass] * N)
        system = System.from_atoms(atoms)
        number = torch.arange(S) if trajectory is None else trajectory
        temperature = torch.full((len(number),), T, dtype=torch.float64)
        centre = torch.zeros(len(number), N, 3, dtype=torch.float64)
        positions = ring_positions(system, centre, P, temperature, start=start, seed=seed, trajectory=number)
        momenta = maxwell_boltzmann(system, P, temperature, seed=seed, trajectory=number)
        state = State.at(positions, momenta, number)
        field = force_field(system) if isinstance(force_field, type(lambda: 0)) else force_field
        integrator = RingPolymer(system, ensemble, P, temperature, dt, tau0=tau, seed=seed)
        state.take(*field(state.copies))
        return Toy(system, temperature, integrator, Estimators(system, P, temperature), state, field)

    return build


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run of 3 fs that is to go on to 6 fs."""
    folder = tmp_path_factory.mktemp("half") / "run"
    go(folder, duration="3 fs")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of 6 fs without a stop."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    go(folder)
    return folder


@pytest.fixture
def mine(half, tmp_path):
    """A copy of the run of 3 fs."""
    return shutil.copytree(half, tmp_path / "run")
