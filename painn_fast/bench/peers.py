"""Other programs, where they are installed: SchNetPack with our weights, PyTorch Geometric's DimeNet++ with its own."""

from __future__ import annotations

import copy
import importlib
import typing
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import dataloader

from painn_fast.bench.cases import PROPERTIES, SIMULATOR, TRAINING
from painn_fast.bench.problem import ALL, Numbers, Problem, Work
from painn_fast.bench.sides import Side, by_calculator, optimizer_step, read_numbers
from painn_fast.errors import PaiNNFastError
from painn_fast.io.schnetpack_names import head_pairs, representation_pairs, to_schnetpack_state_dict
from painn_fast.label.methods import How
from painn_fast.nn import Potential
from painn_fast.schnetpack import accelerate

SHELL, SHORTEST = 2.0, 1e-9
"""Å, of SchNetPack's neighbour list, and fs."""
LEVELS = {"ethanol-1": "PBE0/def2-SVPD", "aspirin-1": "PBE/def2-SVP"}
"""Of the labels that the bundled models learned."""
STEP = 1e-5
"""Å, of the central difference that DimeNet++'s forces are held against."""
SLOPE_TOLERANCE = 1e-6
"""Relative, between that difference and the forces in float64."""


class SchNetPack(Side):
    """SchNetPack's own PaiNN with the weights of ours; forces through its own module."""

    name, title = "schnetpack", "SchNetPack"

    def supports(self, problem: Problem) -> bool:
        """Beads are copies of one molecule."""
        if problem.mode == PROPERTIES:
            return False
        return problem.mode != SIMULATOR or len({tuple(atoms.numbers) for atoms in problem.structures}) == 1

    def prepare(self, problem: Problem) -> Work:
        spk = import_schnetpack()
        model = self.model(spk, problem)
        if problem.mode == "evaluate":
            return self._end_to_end(spk, model, problem)
        if problem.mode == "calculator":
            return by_calculator(problem, lambda: schnetpack_calculator(spk, model, problem.potential))
        if problem.mode == SIMULATOR:
            return _simulator_step(spk, model, problem)
        inputs = _schnetpack_inputs(spk.properties, problem)
        if problem.mode in TRAINING:
            names = _pairs(problem.potential)

            def parameters() -> list[Tensor]:
                return [model.get_parameter(names[name]) for name, _ in problem.potential.named_parameters()]

            return optimizer_step(model.train(), lambda: model(dict(inputs)), problem.targets, parameters)
        with_forces = problem.mode == "energy_forces"

        def call() -> Any:
            with torch.set_grad_enabled(with_forces):
                return model(dict(inputs))

        return Work(call, read_numbers)

    def model(self, spk: Any, problem: Problem) -> Any:
        """SchNetPack's model with the weights of ours."""
        return schnetpack_model(spk, problem.potential, with_forces="forces" in problem.properties)

    def _end_to_end(self, spk: Any, model: Any, problem: Problem) -> Work:
        """From a list of Atoms through its converter, and back to NumPy."""
        neighbors = spk.transform.MatScipyNeighborList(cutoff=problem.potential.cutoff)
        convert = spk.interfaces.AtomsConverter(neighbors, device=problem.potential.device, dtype=torch.float32)

        def call() -> dict[str, Any]:
            results = model(convert(problem.structures))
            return {name: results[name].detach().cpu().numpy() for name in ("energy", "forces")}

        return Work(call, lambda result: {name: torch.from_numpy(value).double() for name, value in result.items()})


class Accelerated(SchNetPack):
    """The same SchNetPack model after `painn_fast.accelerate`."""

    name, title = "accelerate", "accelerated SchNetPack"

    def model(self, spk: Any, problem: Problem) -> Any:
        """With our representation inside."""
        return accelerate(super().model(spk, problem))


def import_schnetpack() -> Any:
    """Version 2.1, the newest that pip installs on Python 3.11, takes type variables from torch that are gone."""
    for name in ("T_co", "T"):
        if not hasattr(dataloader, name):
            setattr(dataloader, name, typing.TypeVar(name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in ("atomistic", "interfaces", "model", "nn", "properties", "representation", "transform"):
            importlib.import_module(f"schnetpack.{module}")
    return importlib.import_module("schnetpack")


def schnetpack_model(spk: Any, potential: Potential, *, with_forces: bool) -> Any:
    """Its model with the weights of `potential`, whose only head is the energy; without energies of atoms."""
    config = potential.config.representation
    radial_basis = {"sinc": spk.nn.BesselRBF, "gaussian": spk.nn.GaussianRBF}[config.radial_basis]
    representation = spk.representation.PaiNN(
        n_atom_basis=config.n_features,
        n_interactions=config.n_layers,
        radial_basis=radial_basis(config.n_rbf, config.cutoff),
        cutoff_fn=spk.nn.CosineCutoff(config.cutoff),
        activation=torch.nn.functional.silu,
        epsilon=config.epsilon,
    )
    energy = spk.atomistic.Atomwise(n_in=config.n_features, activation=torch.nn.functional.silu, output_key="energy")
    model = spk.model.NeuralNetworkPotential(
        representation=representation,
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[energy, spk.atomistic.Forces()] if with_forces else [energy],
    )
    state = to_schnetpack_state_dict(potential)
    model.load_state_dict({name: value for name, value in state.items() if not name.startswith("postprocessors.")})
    return model.eval().to(potential.device)


def schnetpack_calculator(spk: Any, model: Any, potential: Potential) -> Any:
    """Its calculator, of its model with the weights of `potential`, which need not be loaded."""

    class Calculator(spk.interfaces.SpkCalculator):
        def _load_model(self, model_file: Any, *_: Any) -> Any:  # 2.2 gives device and dtype too
            return model_file

    neighbors = spk.transform.MatScipyNeighborList(cutoff=potential.cutoff)
    unit = potential.config.energy_unit
    return Calculator(model, neighbors, energy_unit=unit, device=potential.device)


def _simulator_step(spk: Any, model: Any, problem: Problem) -> Work:
    """A step of its simulator without hooks, so short that all beads stay where they are: the work is the same."""
    md, calculators = (importlib.import_module(f"schnetpack.md{name}") for name in ("", ".calculators"))

    class Calculator(calculators.SchNetPackCalculator):  # type: ignore[name-defined]
        def _load_model(self, model_file: Any, *_: Any) -> Any:  # 2.2 gives device and dtype too
            return model_file

    structures, cutoff = problem.structures, problem.potential.cutoff
    system = md.System()
    system.load_molecules([structures[0]], n_replicas=len(structures), position_unit_input="Angstrom")
    positions = torch.tensor([atoms.positions.tolist() for atoms in structures])  # [P, n, 3] Å
    system.positions = positions * spk.units.unit2internal("Angstrom")
    neighbors = md.neighborlist_md.NeighborListMD(cutoff, SHELL, spk.transform.MatScipyNeighborList)
    calculator = Calculator(model, "forces", "eV", "Angstrom", neighbors, energy_key="energy")
    integrator = md.integrators.RingPolymer(SHORTEST, len(structures), 300.0)
    simulator = md.Simulator(system, integrator, calculator, progress=False).to(problem.potential.device)
    simulator = simulator.to(torch.float32)
    simulator.simulate(0)

    def call() -> Any:
        integrator.half_step(system)
        integrator.main_step(system)
        calculator.calculate(system)
        integrator.half_step(system)
        return calculator.results

    return Work(call, read_numbers)


def _pairs(potential: Potential) -> dict[str, str]:
    """Our names of parameters to SchNetPack's."""
    (head,) = potential.config.heads
    return dict([*representation_pairs(potential.config.representation), *head_pairs(head, "output_modules.0")])


def _schnetpack_inputs(keys: Any, problem: Problem) -> dict[str, Tensor]:
    batch = problem.batch
    return {
        keys.Z: batch.numbers,
        keys.R: batch.positions.float(),
        keys.cell: batch.cell.float(),
        keys.pbc: batch.pbc,
        keys.n_atoms: batch.n_atoms,
        keys.idx_m: batch.molecule,
        keys.idx_i: batch.receiver,
        keys.idx_j: batch.sender,
        keys.offsets: batch.shift.float(),
    }


class PySCF(Side):
    """Electronic structure at the level of the bundled models, as `painn-fast label` computes it, on one thread."""

    name, title, once = "pyscf", "PySCF", True

    def supports(self, problem: Problem) -> bool:
        """One molecule: a batch takes as long as its molecules one by one."""
        return problem.mode == PROPERTIES and problem.case.name in LEVELS

    def prepare(self, problem: Problem) -> Work:
        (atoms,) = problem.structures
        label = How("pyscf", LEVELS[problem.case.name]).make()
        return Work(lambda: label(atoms, True), self._read)

    @staticmethod
    def _read(labels: dict[str, Any]) -> Numbers:
        return {name: torch.as_tensor(labels[name], dtype=torch.float64) for name in ALL}


class DimeNet(Side):
    """DimeNet++ of PyTorch Geometric in its published size: another model, held against itself in float64."""

    name, title = "dimenet", "DimeNet++"

    def supports(self, problem: Problem) -> bool:
        return problem.case.name == "qm9-50" and problem.mode in ("forward", "energy_forces")

    def prepare(self, problem: Problem) -> Work:
        module, original = _dimenet(problem.potential.cutoff)
        model = copy.deepcopy(original).to(problem.potential.device)
        triplets = _triplets(problem)
        with_forces = problem.mode == "energy_forces"

        def evaluate(network: Any, positions: Tensor) -> Numbers:
            positions = positions.detach().requires_grad_(with_forces)
            with torch.set_grad_enabled(with_forces), _graph(module, triplets):
                energy = network(problem.batch.numbers, positions, problem.batch.molecule)[:, 0]
                if not with_forces:
                    return {"energy": energy}
                (gradient,) = torch.autograd.grad(energy.sum(), positions)
            return {"energy": energy.detach(), "forces": -gradient}

        double, positions = copy.deepcopy(model).double(), problem.batch.positions
        expected = evaluate(double, positions)
        if with_forces:
            _check_slope(lambda moved: float(evaluate(double, moved)["energy"].sum()), positions, expected["forces"])
        single = positions.float()
        return Work(lambda: evaluate(model, single), read_numbers, read_numbers(expected))


@lru_cache(maxsize=1)
def _dimenet(cutoff: float) -> tuple[Any, Any]:
    """Its module and a model with random weights; making one takes long, its bases are derived by computer algebra."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module("torch_geometric.nn.models.dimenet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = module.DimeNetPlusPlus(
            hidden_channels=128, out_channels=1, num_blocks=4, int_emb_size=64, basis_emb_size=8, out_emb_channels=256,
            num_spherical=7, num_radial=6, cutoff=cutoff, output_initializer="glorot_orthogonal",
        )  # fmt: skip
    return module, model.eval()


def _triplets(problem: Problem) -> tuple[Tensor, ...]:
    """Receiver, sender, and for each path k -> j -> i with k other than i: i, j, k, edge k -> j, edge j -> i."""
    i, j, start = problem.batch.receiver, problem.batch.sender, problem.batch.row_ptr
    degree = start.diff()[j]  # [E] edges that arrive where this one begins
    ji = torch.arange(len(i), device=i.device).repeat_interleave(degree)
    nth = torch.arange(len(ji), device=i.device) - (degree.cumsum(0) - degree).repeat_interleave(degree)
    kj = start[j[ji]] + nth
    other = j[kj] != i[ji]
    ji, kj = ji[other], kj[other]
    return i, j, i[ji], j[ji], j[kj], kj, ji


@contextmanager
def _graph(module: Any, triplets: tuple[Tensor, ...]) -> Iterator[None]:
    """Give the model its graph: searching is not timed for others either, and its search needs compiled extensions."""
    kept = module.radius_graph, module.triplets
    module.radius_graph, module.triplets = (lambda *_, **__: None), (lambda *_, **__: triplets)
    try:
        yield
    finally:
        module.radius_graph, module.triplets = kept


def _check_slope(energy: Any, positions: Tensor, forces: Tensor) -> None:
    direction = torch.randn(positions.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction = direction.to(positions.device)
    difference = (energy(positions - STEP * direction) - energy(positions + STEP * direction)) / (2 * STEP)
    slope = float((forces * direction).sum())
    error = abs(difference - slope) / max(float((forces * direction).abs().sum()), 1e-12)
    if not error <= SLOPE_TOLERANCE:
        raise PaiNNFastError(
            "forces are not the slope of the energy", got=f"{error:.1e} apart", expected=SLOPE_TOLERANCE
        )
