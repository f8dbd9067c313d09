"""A step of dynamics of ethanol, classical or of rings of 16 beads (PILE-L): `pytest bench/test_dynamics.py`."""

import importlib
import importlib.util

import pytest
import torch

from painn_fast.bench.cases import CASES, paper_model
from painn_fast.bench.peers import import_schnetpack, schnetpack_model
from painn_fast.md import initial
from painn_fast.md.estimators import Estimators
from painn_fast.md.forces import ModelForces
from painn_fast.md.integrators import RingPolymer
from painn_fast.md.simulation import Group, Simulation
from painn_fast.md.state import State, System

KELVIN, STEP = 300.0, 0.25


@pytest.fixture
def potential(device):
    """With forces so small that atoms fly on: random ones would heat them until a guard stops them."""
    model = paper_model(device)
    with torch.no_grad():
        model.heads["energy"].network[-1].weight.mul_(0.01)
    return model


def simulation(potential, atoms, trajectories, P):
    """S ring polymers of P beads of ethanol, beads spread as those of free particles."""
    system = System.from_atoms(atoms, potential.device)
    temperature = torch.full((trajectories,), KELVIN, dtype=torch.float64, device=potential.device)
    number = torch.arange(trajectories, device=potential.device)
    centre = torch.tensor(atoms.positions, device=potential.device).expand(trajectories, -1, -1)
    noise = {"seed": 0, "trajectory": number}
    x = 0.3 * initial.ring_positions(system, centre, P, temperature, start="free", **noise) + 0.7 * centre[:, None]
    p = initial.maxwell_boltzmann(system, P, temperature, **noise)
    integrator = RingPolymer(system, "pile-l", P, temperature, STEP)
    group = Group(system, State.at(x, p), temperature, integrator, Estimators(system, P, temperature))
    return Simulation([group], ModelForces(potential, atoms))


def engine(potential, atoms, trajectories, P):
    """Energies and forces alone."""
    run = simulation(potential, atoms, trajectories, P)
    return lambda: run.force_field.together([run.groups[0].state.copies])


def painn_fast(potential, atoms, trajectories, P):
    run = simulation(potential, atoms, trajectories, P)

    def step():
        run.step()
        assert not run.exceeded

    return step


def schnetpack(potential, atoms, trajectories, P, dtype=torch.float32):
    """SchNetPack's simulator with the same weights, beads and thermostat."""
    spk = import_schnetpack()
    for module in (
        "md",
        "md.calculators",
        "md.integrators",
        "md.simulator",
        "md.simulation_hooks",
        "md.neighborlist_md",
    ):
        importlib.import_module(f"schnetpack.{module}")
    model = schnetpack_model(spk, potential, with_forces=True).to(dtype)

    class Calculator(spk.md.calculators.SchNetPackCalculator):
        def _prepare_model(self, model_file):
            return model

    neighbors = spk.md.neighborlist_md.NeighborListMD(potential.cutoff, 2.0, spk.transform.MatScipyNeighborList)
    calculator = Calculator("", "forces", "eV", "Angstrom", neighbors, energy_key="energy")
    system = spk.md.System()
    system.load_molecules([atoms] * trajectories, n_replicas=P)
    run = simulation(potential, atoms, trajectories, P)
    length = spk.units.unit2internal("Angstrom")
    x = run.groups[0].state.positions  # [S, P, N, 3]
    system.positions = x.transpose(0, 1).reshape(P, -1, 3).float() * length
    system.to(dtype)
    calculator.calculate(system)
    ours = run.groups[0].state.forces.transpose(0, 1).reshape(P, -1, 3)
    theirs = system.forces.double() * (length / spk.units.unit2internal("eV"))
    assert float((theirs - ours).abs().max()) < 1e-3 * float(ours.abs().max()), "forces differ"
    spk.md.initial_conditions.MaxwellBoltzmannInit(KELVIN).initialize_system(system)
    thermostat = spk.md.simulation_hooks.PILELocalThermostat(KELVIN, 100.0)
    integrator = spk.md.integrators.RingPolymer(STEP, P, KELVIN)
    simulator = spk.md.simulator.Simulator(system, integrator, calculator, [thermostat], progress=False).to(dtype)
    simulator.simulate(1)

    def steps():
        for hook in simulator.simulator_hooks:
            hook.on_step_begin(simulator)
        simulator.integrator.half_step(system)
        simulator.integrator.main_step(system)
        calculator.calculate(system)
        simulator.integrator.half_step(system)
        for hook in simulator.simulator_hooks:
            hook.on_step_end(simulator)

    return steps


def schnetpack_float64(potential, atoms, trajectories, P):
    """As its calculator loads models."""
    return schnetpack(potential, atoms, trajectories, P, torch.float64)


@pytest.mark.filterwarnings("ignore")  # of SchNetPack
@pytest.mark.parametrize("side", [engine, painn_fast, schnetpack, schnetpack_float64], ids=lambda side: side.__name__)
@pytest.mark.parametrize(("trajectories", "beads"), [(1, 1), (1, 16), (16, 16), (256, 16)])
def test_step(timed, benchmark, potential, side, trajectories, beads):
    if side.__name__.startswith("schnetpack"):
        if importlib.util.find_spec("schnetpack") is None:
            pytest.skip("SchNetPack is not installed")
        if trajectories * (1 + (side is schnetpack_float64)) > 32:
            pytest.skip("it needs all edges' features at once: more than 10 GB")
    (atoms,) = CASES["ethanol-1"].structures()
    step = side(potential, atoms, trajectories, beads)
    benchmark.group = f"{trajectories} x {beads} beads of ethanol"
    timed(step, trajectories=trajectories, beads=beads)
