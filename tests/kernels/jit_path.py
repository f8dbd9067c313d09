"""What a GPU would compile, and when: scenarios, on a driver that stands for an H200, a line of JSON each."""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from ase.build import molecule
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from standin_driver import Standin

import painn_fast.engine.gpu
import painn_fast.engine.select
import painn_fast.kernels.message.ops
import painn_fast.kernels.update.ops
import painn_fast.md.fragments
import painn_fast.md.integrators
import painn_fast.md.simulation
import painn_fast.nn.fused
import painn_fast.train.whole_step
from painn_fast.bench.problem import loss
from painn_fast.engine.gpu import GpuEngine
from painn_fast.graph import batch_atoms
from painn_fast.kernels.bonds import triton as bonds
from painn_fast.kernels.ring import triton as ring
from painn_fast.kernels.tools.tuning.subjects import _calls, molecules
from painn_fast.md import initial
from painn_fast.md.estimators import Estimators
from painn_fast.md.forces import ModelForces
from painn_fast.md.integrators import RingPolymer
from painn_fast.md.simulation import Group, Simulation
from painn_fast.md.state import State, System
from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential
from painn_fast.train.loop import read_data
from painn_fast.train.settings import TrainSettings
from painn_fast.train.training import Training
from painn_fast.train.whole_step import WholeStep

CPU = torch.device("cpu")
standin = Standin().install()
WAITS = {"_local_scalar_dense", "nonzero", "unique", "equal", "is_nonzero", "masked_select"}


class Operations(TorchDispatchMode):
    """torch operations that allocate results, and those that a CUDA graph cannot hold."""

    def __init__(self):
        super().__init__()
        self.allocated, self.waited, self.count = [], [], 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        name = operation.overloadpacket.__name__
        self.count += not operation.is_view and name != "detach"
        if name in WAITS:
            self.waited.append(name)
        known = {t.untyped_storage().data_ptr() for t in _tensors([args, kwargs or {}])}
        if any(t.numel() and t.untyped_storage().data_ptr() not in known for t in _tensors(made)):
            self.allocated.append(name)
        return made


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)


captures = []


def captured(run, device, warm_up=None):
    """As the graph of an engine: warmed up, then recorded; a replay is one launch."""
    for _ in range(2):
        (warm_up or run)()
    compiled, launched = len(standin.compiled), len(standin.launched)
    with Operations() as operations:
        run()
    captures.append(
        {
            "compiled": standin.compiled[compiled:], "launched": standin.launched[launched:],
            "allocated": operations.allocated, "waited": operations.waited, "operations": operations.count,
        }
    )  # fmt: skip
    return lambda: None


def potential(features=128, layers=3, **more):
    shape = RepresentationConfig(n_features=features, n_layers=layers)
    config = PotentialConfig(representation=shape, heads=(EnergyHead(**more),))
    return random_potential(config, dtype=torch.float32)


def sizes():
    """Kernels of training, at batch after batch of other sizes."""
    compiled = []
    for atoms in ([9], [1], [2, 3], [16], [9] * 10, [17] * 4, [9] * 64, [7] * 131):
        for call in _calls(molecules(atoms, CPU)).values():
            call()
        compiled.append(list(standin.compiled))
        standin.compiled.clear()
    return {"compiled": compiled}


def training():
    """Steps on energies and forces, through autograd, of batches of several sizes."""
    painn_fast.nn.fused.BY_OPERATION = {"cpu"}
    painn_fast.kernels.update.ops.KERNELS["cpu"] = painn_fast.kernels.update.ops.on_gpu
    model = potential().train()
    compiled = []
    for names in (["CH3CH2OH"] * 10, ["H2O"], ["CH4", "C6H6", "NH3"], ["H2O"] * 64, ["C2H2"] * 4):
        batch = batch_atoms([molecule(name) for name in names], model.cutoff)
        batch.mirror  # noqa: B018  part of the graph
        targets = {"energy": torch.zeros(batch.n_molecules), "forces": torch.zeros(batch.n_total, 3)}
        loss(model(batch, ("energy", "forces"), create_graph=True), targets).backward()
        compiled.append(list(standin.compiled))
        standin.compiled.clear()
    return {"compiled": compiled}


def whole_steps():
    """Steps of a training of 10 ethanol at a time: the first launch by launch, the second captured, others replayed."""
    painn_fast.nn.fused.BY_OPERATION = {"cpu"}
    painn_fast.kernels.update.ops.KERNELS["cpu"] = painn_fast.kernels.update.ops.on_gpu
    painn_fast.train.whole_step.captured = captured
    atoms, random = molecule("CH3CH2OH"), np.random.default_rng(0)
    positions = atoms.positions + random.normal(scale=0.05, size=(60, 9, 3))
    with tempfile.TemporaryDirectory() as folder:
        labels = {"E": random.normal(size=60), "F": random.normal(size=positions.shape)}
        units = {"energy_unit": "eV", "length_unit": "Ang"}
        np.savez(Path(folder) / "set.npz", R=positions, z=atoms.numbers, **labels, **units)
        network = {"n_features": 128, "n_layers": 3}
        settings = {"data": [{"file": "set.npz"}], "representation": network, "batch_size": 10}
        parsed = TrainSettings.parse(settings)
        training = Training(parsed, read_data(parsed, folder))
    training._direct = None  # which the model of a GPU has not
    training._whole = WholeStep.of(training._gradients, training._update, training.names, training.model)
    compiled = []
    for _ in range(4):
        training.run_step(training.next_rows())
        compiled.append(list(standin.compiled))
        standin.compiled.clear()
    sizes = [list(size) for size in training._whole._runs]
    return {"compiled": compiled, "captures": captures, "sizes": sizes}


def engine(precision, node):
    """Evaluations of two sizes of memory, and of other batches in it."""
    painn_fast.engine.gpu.captured = captured
    made = GpuEngine(potential(), precision, node)
    made.checked = True
    compiled = []
    for names in (["CH3CH2OH"], ["CH3CH2OH"] * 40, ["H2O"] * 3, ["H2O"] * 2, ["C6H6"] * 25):
        batch = batch_atoms([molecule(name) for name in names], made.potential.cutoff)
        work = made.workspace(batch)
        for wanted in (("energy",), ("energy", "forces")):
            made(work, batch.positions, wanted, finite=False)
        compiled.append(list(standin.compiled))
        standin.compiled.clear()
    return {"compiled": compiled, "captures": captures}


def dynamics(names, ensemble, copies, beads):
    """Steps of ring polymers of molecules, the second of them captured."""
    painn_fast.md.simulation.captured = captured
    painn_fast.md.integrators.steps = ring.Steps
    painn_fast.md.fragments.update_bonds = bonds.update_bonds
    made = GpuEngine(potential(32, 2))
    made.checked = True
    painn_fast.engine.select.engine_for = lambda *_: made
    structures, groups = [molecule(name) for name in names.split("+")], []
    for k, atoms in enumerate(structures):
        system = System.from_atoms(atoms, "cpu")
        kelvin = torch.full((int(copies),), 300.0, dtype=torch.float64)
        number = torch.arange(int(copies)) + k * int(copies)
        centre = torch.tensor(atoms.positions).expand(int(copies), -1, -1)
        noise = {"seed": 0, "trajectory": number}
        x = initial.ring_positions(system, centre, int(beads), kelvin, start="free", **noise)
        p = initial.maxwell_boltzmann(system, int(beads), kelvin, **noise)
        integrator = RingPolymer(system, ensemble, int(beads), kelvin, 0.25)
        state = State.at(x, p, number)
        groups.append(Group(system, state, kelvin, integrator, Estimators(system, int(beads), kelvin)))
    simulation = Simulation(groups, ModelForces(made.potential, structures if len(structures) > 1 else structures[0]))
    simulation.check_every = 10**9
    with Operations() as operations:
        for _ in range(3):
            simulation.step()
    return {"captures": captures, "waited": operations.waited}


SCENARIOS = {"sizes": sizes, "training": training, "whole_steps": whole_steps, "engine": engine, "dynamics": dynamics}


def in_a_process(words):
    """A scenario, by a child with caches of its own."""
    standin.compiles = words[0] == "--compile"
    scenario, *words = [word for word in words if word != "--compile"]
    print(json.dumps(SCENARIOS[scenario](*words)), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for words in sys.argv[1:]:
        child = os.fork()
        if child == 0:
            in_a_process(words.split())
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"{words} fails")
