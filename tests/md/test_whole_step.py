"""A step in one CUDA graph does what its parts do one by one; without a GPU, interpreted and without the graph.

Most tests take springs as the force field: that the engine gives in a graph what it gives otherwise is a test of the
engine's, and interpreted it takes nearly all of the time.
"""

import pytest
import torch
from ase.build import molecule

from painn_fast.md import ForceField, initial
from painn_fast.md.estimators import Estimators
from painn_fast.md.forces import ModelForces
from painn_fast.md.fragments import Fragments
from painn_fast.md.guards import Guards
from painn_fast.md.integrators import RingPolymer
from painn_fast.md.simulation import CHECK_EVERY, Group, Simulation
from painn_fast.md.state import State, System
from painn_fast.nn import DipoleHead, EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential

pytest.importorskip("triton")

from painn_fast.engine.gpu import GpuEngine
from painn_fast.kernels.bonds import triton as bonds
from painn_fast.kernels.ring import triton as ring

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
S, P, KELVIN = 3, 2, 300.0


@pytest.fixture(autouse=True)
def on_a_gpu(monkeypatch):
    """Engines and ring steps are those for GPUs, here too."""
    monkeypatch.setattr("painn_fast.engine.select.engine_for", lambda potential, backend: GpuEngine(potential))
    monkeypatch.setattr("painn_fast.md.integrators.steps", ring.Steps)
    monkeypatch.setattr("painn_fast.md.fragments.update_bonds", bonds.update_bonds)


@pytest.fixture(scope="module")
def potential():
    shape = RepresentationConfig(n_features=16, n_layers=1, n_rbf=3, cutoff=4.0)
    config = PotentialConfig(representation=shape, heads=(EnergyHead(), DipoleHead()), name="small")
    return random_potential(config, dtype=torch.float32).to(DEVICE)


class Springs(ForceField):
    """Ties atoms to their structure, for any number of molecules; work on a GPU alone, as a CUDA graph needs."""

    def __init__(self, molecules):
        self.rest = [torch.tensor(atoms.positions, device=DEVICE) for atoms in molecules]

    def together(self, positions, properties=()):
        apart = [x - rest for x, rest in zip(positions, self.rest, strict=True)]
        observed = [{"dipole": x.sum(1)} if properties else {} for x in positions]
        return [(5.0 * r.square().sum((1, 2)), -10.0 * r, seen) for r, seen in zip(apart, observed, strict=True)]

    def launches(self, positions):
        return lambda: [evaluation[:2] for evaluation in self.together(positions)]


def group(name, ensemble, first):
    atoms = molecule(name)
    system = System.from_atoms(atoms, DEVICE)
    temperature = torch.full((S,), KELVIN, dtype=torch.float64, device=DEVICE)
    number = torch.arange(first, first + S, device=DEVICE)
    centre = torch.tensor(atoms.positions, device=DEVICE).expand(S, -1, -1)
    noise = {"seed": 0, "trajectory": number}
    x = initial.ring_positions(system, centre, P, temperature, start="free", **noise)
    p = initial.maxwell_boltzmann(system, P, temperature, **noise)
    integrator = RingPolymer(system, ensemble, P, temperature, 0.2)
    return Group(system, State.at(x, p, number), temperature, integrator, Estimators(system, P, temperature)), atoms


def simulation(names=("H2O",), ensemble="pile-l", *, whole, guards=None, potential=None):
    groups, atoms = zip(*(group(name, ensemble, S * k) for k, name in enumerate(names)), strict=True)
    field = Springs(atoms) if potential is None else ModelForces(potential, list(atoms))
    if not whole:
        field.launches = lambda positions: None
    made = Simulation(groups, field, guards)
    made.check_every = CHECK_EVERY if whole else 1
    return made


def assert_equal(one, other):
    for a, b in zip(one.groups, other.groups, strict=True):
        assert a.state.step == b.state.step
        for name, value in a.state.tensors().items():
            assert torch.equal(value, b.state.tensors()[name]), name


def assert_whole_steps_equal_their_parts(names, ensemble, steps, potential=None):
    one, other = (simulation(names, ensemble, whole=whole, potential=potential) for whole in (True, False))
    for step in range(steps):
        properties = ("dipole",) if step == steps // 2 else ()
        seen = [each.step(properties) for each in (one, other)]
        if properties:
            assert torch.equal(seen[0][0]["dipole"], seen[1][0]["dipole"])
    assert one._whole.run is not None
    assert other._whole.run is None
    assert_equal(one, other)


CASES = [(("H2O",), "pile-l"), (("H2O", "CO"), "t-rpmd"), (("CO",), "rpmd"), (("CO",), "pile-g")]


@pytest.mark.parametrize(("names", "ensemble"), CASES)
def test_whole_steps_equal_their_parts(names, ensemble):
    assert_whole_steps_equal_their_parts(names, ensemble, 6)


@pytest.mark.parametrize(
    ("names", "ensemble", "steps"),
    [(("CO",), "pile-l", 4), *(pytest.param(*case, 6, marks=pytest.mark.slow) for case in CASES)],
)
def test_whole_steps_of_a_model_equal_their_parts(potential, names, ensemble, steps):
    assert_whole_steps_equal_their_parts(names, ensemble, steps, potential)


def test_a_limit_exceeded_between_checks_is_described_as_if_each_step_were_checked():
    runs = []
    for whole in (True, False):
        run = simulation(whole=whole, guards=Guards(move=0.3))
        run.step()
        run.step()
        run.groups[0].state.momenta[1, 0, 2, 0] = 2.0  # amu Å/fs: 0.4 Å in the next step
        for _ in range(3):
            run.step()
        runs.append(run)
    one, other = runs
    assert [event.step for event in other.exceeded] == [3]
    assert one.exceeded == []
    one.check_limits()
    assert one.exceeded == other.exceeded
    assert "move in one step" in str(one.exceeded[0])
    assert one.groups[0].state.alive.tolist() == [True, False, True]
    for run in runs:
        run.step()
    one.check_limits()
    assert_equal(one, other)
    assert len(one.exceeded) == 1


@pytest.mark.parametrize("mode", ["stop", "note"])
def test_a_bond_that_breaks_between_checks_is_reported_as_if_each_step_were_checked(mode):
    runs = []
    for whole in (True, False):
        run = simulation(whole=whole, guards=Guards(heating=1e9, move=5.0))
        group = run.groups[0]
        x = group.state.positions
        group.fragments = Fragments(group.system, x.mean(1), mode, 2.0)
        assert group.fragments.every == 2
        run.step()
        run.step()
        group.state.momenta[1, :, 2] += 5.0  # amu Å/fs: some 1.7 Å in a step, of a hydrogen
        for _ in range(3):
            run.step()
        runs.append(run)
    one, other = runs
    seen = "exceeded" if mode == "stop" else "notes"
    assert [event.step for event in getattr(other, seen)] == [4]
    assert getattr(one, seen) == []
    one.check_limits()
    assert getattr(one, seen) == getattr(other, seen)
    assert "bond O0-H2 broke" in str(getattr(one, seen)[0])
    assert one.groups[0].state.alive.tolist() == [True, mode == "note", True]
    assert_equal(one, other)


def test_all_trajectories_stopped():
    run = simulation(whole=True, guards=Guards(move=1e-6))
    for _ in range(3):
        run.step()
    assert run.alive
    run.check_limits()
    assert not run.alive
    assert [event.step for event in run.exceeded] == [1, 1, 1]


@pytest.mark.skipif(CUDA, reason="a test of CPUs")
def test_a_cpu_checks_every_step(monkeypatch):
    monkeypatch.undo()
    made, atoms = group("H2O", "pile-l", 0)
    assert Simulation([made], Springs([atoms])).check_every == 1
