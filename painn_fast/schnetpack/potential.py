"""A live SchNetPack model that takes energy, forces and stress from the CPU engine where no derivative is left to take.

In eval mode SchNetPack's `Forces` differentiates the energy and frees its graph: what the model returns then cannot be
differentiated again, so that nothing is lost if it never had a graph. The same holds without gradients.
"""

from __future__ import annotations

import importlib
import logging
import weakref
from dataclasses import dataclass
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from painn_fast.engine import CpuEngine
from painn_fast.errors import PaiNNFastError
from painn_fast.graph import AtomicBatch
from painn_fast.graph.batch import CLOSEST
from painn_fast.io.schnetpack_modules import Description
from painn_fast.io.schnetpack_weights import Weights, build
from painn_fast.kernels import threads
from painn_fast.nn import EnergyHead
from painn_fast.schnetpack import operation
from painn_fast.schnetpack.painn import Inputs, PaiNN, no_script

log = logging.getLogger("painn_fast.schnetpack")
HOME, NAME = "schnetpack.model.base", "NeuralNetworkPotential"
ATOMISTIC = "schnetpack.atomistic"
DISTANCES, STRAIN = f"{ATOMISTIC}.distances.PairwiseDistances", f"{ATOMISTIC}.response.Strain"
ATOMWISE, FORCES = f"{ATOMISTIC}.atomwise.Atomwise", f"{ATOMISTIC}.response.Forces"
OF_FEATURES = {ATOMWISE, f"{ATOMISTIC}.atomwise.DipoleMoment", f"{ATOMISTIC}.atomwise.Polarizability"}
"""Output modules that may follow, because they differentiate nothing."""
SETTINGS = (
    "activation", "aggregation_mode", "n_out", "output_key", "energy_key", "calc_stress", "training", "max_norm"
)  # fmt: skip
"""Attributes of modules that a plan depends on."""
GRAPH = ("_idx_i", "_idx_j", "_idx_m", "_atomic_numbers", "_offsets", "_cell")
"""What an engine's workspace depends on."""


class Accelerated(nn.Module):
    """What `accelerate` puts before SchNetPack's own class of a whole model."""

    __prepare_scriptable__ = no_script

    def forward(self, inputs: Inputs) -> Inputs:
        """Results of a batch, as SchNetPack's class gives them."""
        if self.training:
            with threads.ours():  # nearly all of a step is done in our operations
                outputs: Inputs = super().forward(inputs)
            threads.ours_in_backward(outputs.values())
            return outputs
        results = _by_engine(self, inputs)
        return super().forward(inputs) if results is None else results

    @property
    def path(self) -> str:
        """What runs in eval mode: "engine", or "modules: " and the reason, as far as the model decides."""
        reason = operation.plan(self.representation).reason or _plan(self).reason
        return "engine" if reason is None else f"modules: {reason}"


def accelerated(own: type[nn.Module]) -> type[nn.Module]:
    """The class of an accelerated model, made of its own."""
    if own not in _classes:
        _classes[own] = type(NAME, (Accelerated, own), {"__module__": __name__, "__qualname__": NAME})
    return _classes[own]


_classes: dict[type[nn.Module], type[nn.Module]] = {}


def __getattr__(name: str) -> Any:
    """The class by its name, for pickles."""
    if name != NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return accelerated(getattr(importlib.import_module(HOME), NAME))


class _Plan(NamedTuple):
    """What a model is made of, as far as the engine replaces it."""

    reason: str | None  # why not by the engine
    energy: Any
    forces: Any
    others: list[nn.Module]
    tensors: list[Tensor]  # beside those of the representation's own plan
    parts: list[nn.Module]
    watch: operation.Watch


class _Graph(NamedTuple):
    """A workspace, and what it was made for."""

    inputs: list[Tensor]
    threads: int
    work: Any


@dataclass
class _Kept:
    """An engine, and the values of the tensors that it was made of."""

    tensors: list[Tensor]
    values: operation.Values
    engine: CpuEngine | None  # None if there cannot be one
    graph: _Graph | None = None  # the last

    def refuse(self, error: PaiNNFastError) -> None:
        """Go on without the engine: its table does not resolve a filter, or a size is beyond its limits."""
        log.warning("an accelerated model runs its modules one by one: %s", error)
        self.engine = None


_plans: weakref.WeakKeyDictionary[nn.Module, _Plan] = weakref.WeakKeyDictionary()
_engines: weakref.WeakKeyDictionary[nn.Module, _Kept] = weakref.WeakKeyDictionary()
"""Beside the models, so that they are not pickled or copied with them."""


def _by_engine(model: Any, inputs: Inputs) -> Inputs | None:
    """What the model gives for a batch, or None where its modules have to run one by one."""
    inner = operation.plan(model.representation)
    if inner.reason or operation.transformed() or torch.jit.is_tracing():
        return None
    how, dtype = _plan(model), model.representation.filter_net.weight.dtype
    if how.reason or torch.is_grad_enabled() == (how.forces is None) or inputs["_positions"].dtype != dtype:
        return None
    model.initialize_derivatives(inputs)
    with torch.inference_mode(mode=False), torch.no_grad():
        filled = dict(inputs)
        for module in model.input_modules:
            filled = module(filled)
        r = filled["_Rij"]
        if len(r) and not bool(torch.linalg.vector_norm(r, dim=1).amin() >= CLOSEST):  # nor for NaN
            return None
        kept = _kept(model, [*inner.watch.tensors, *how.tensors], how)
        work = None if kept.engine is None else _workspace(kept, kept.engine, filled, r)
        if kept.engine is None or work is None:
            return None
        try:
            _evaluate(kept.engine, work, how, filled)
        except PaiNNFastError as error:
            kept.refuse(error)
            return None
    inputs.update(filled)
    results: Inputs = model.extract_outputs(model.postprocess(inputs))
    return results


def _evaluate(engine: CpuEngine, work: Any, how: _Plan, filled: Inputs) -> None:
    """Add the results of all output modules to the dictionary of a batch."""
    dtype, forces = engine.potential.dtype, how.forces
    names = ["energy", "energies"]
    if forces is not None:
        names += ["forces"] * forces.calc_forces + ["stress"] * forces.calc_stress
    results, s, v = engine.with_features(work, filled["_positions"].double(), names)
    filled["scalar_representation"], filled["vector_representation"] = s, v
    filled[how.energy.output_key] = results["energy"].to(dtype)
    if how.energy.per_atom_output_key is not None:
        filled[how.energy.per_atom_output_key] = results["energies"][:, None].to(dtype)
    if "forces" in results:
        filled[forces.force_key] = results["forces"].to(dtype)
    if "stress" in results:
        sign = torch.where(torch.linalg.det(filled["_cell"]) < 0, -1.0, 1.0)  # of SchNetPack's volume
        filled[forces.stress_key] = (results["stress"] * sign[:, None, None]).to(dtype)
    for module in how.others:
        module(filled)


def _plan(model: Any) -> _Plan:
    known = _plans.get(model)
    painn = model.representation
    parts = [painn, painn.embedding, *model.input_modules, *model.output_modules, *model.postprocessors]
    if known is None or known.parts != parts or known.watch.changed():
        energy: Any = next((module for module in model.output_modules if _kind(module) == ATOMWISE), None)
        forces = next((module for module in model.output_modules if _kind(module) == FORCES), None)
        others = [module for module in model.output_modules if module not in (energy, forces)]
        inner = [module for part in parts[1:] for module in part.modules()]
        modules = list(dict.fromkeys([painn, painn.filter_net, *inner]))
        reason = _strange(model, energy, forces, others) or operation.hooked(modules)
        tensors = [] if reason else [painn.embedding.weight, *energy.parameters()]
        known = _Plan(reason, energy, forces, others, tensors, parts, operation.Watch(modules, SETTINGS))
        _plans[model] = known
    return known


def _strange(model: Any, energy: Any, forces: Any, others: list[nn.Module]) -> str | None:
    """What the engine does not replace."""
    painn, inputs = model.representation, [_kind(module) for module in model.input_modules]
    if painn.filter_net.weight.dtype != torch.float32:
        return "float64, which is exact"  # the engine's filters come from a table
    if type(painn.embedding) is not nn.Embedding or painn.embedding.max_norm is not None:
        return f"an embedding {_kind(painn.embedding)} other than a table"
    if len(getattr(painn, "electronic_embeddings", ())):
        return "embeddings of charge or spin"
    if inputs not in ([DISTANCES], [STRAIN, DISTANCES]):
        return "input modules other than PairwiseDistances after Strain or nothing"
    strange = [module for module in model.postprocessors if not _kind(module).startswith("schnetpack.transform.")]
    return f"a postprocessor {_kind(strange[0])}" if strange else _strange_outputs(model, energy, forces, others)


def _strange_outputs(model: Any, energy: Any, forces: Any, others: list[nn.Module]) -> str | None:
    if any(_kind(module) not in OF_FEATURES for module in others):
        return "output modules other than Atomwise, Forces, DipoleMoment and Polarizability"
    if energy is None or energy.aggregation_mode != "sum" or energy.n_out != 1:
        return "no Atomwise that sums one number of each atom"
    if not _is_readout(model, energy):
        return "a readout other than Dense layers with the activation of the representation"
    if forces is not None and (forces.energy_key != energy.output_key or forces.training):
        return "Forces of another energy, or in training mode"
    return None if not _needs_strain(model, forces) else "stress without Strain"


def _needs_strain(model: Any, forces: Any) -> bool:
    return forces is not None and forces.calc_stress and _kind(model.input_modules[0]) != STRAIN


def _is_readout(model: Any, energy: Any) -> bool:
    *hidden, last = energy.outnet
    activation = operation.plan(model.representation).activation
    return (
        all(type(layer).__name__ == "Dense" and layer.bias is not None for layer in energy.outnet)
        and len(hidden) > 0
        and isinstance(last.activation, nn.Identity)
        and all(operation.activation_name(layer.activation) == activation for layer in hidden)
    )


def _kept(model: Any, tensors: list[Tensor], how: _Plan) -> _Kept:
    """The engine of a model, made again once a value of its tensors is another."""
    known = _engines.get(model)
    same = known is not None and len(tensors) == len(known.tensors) and all(map(is_, tensors, known.tensors))
    if known is None or not same or not known.values.same():
        known = _engines[model] = _Kept(tensors, operation.Values(tensors), None)
        try:
            known.engine = CpuEngine(_potential(model, model.representation, how))
        except PaiNNFastError as error:
            known.refuse(error)
    return known


def _potential(model: Any, painn: PaiNN, how: _Plan) -> Any:
    """The model as one of ours, without what SchNetPack adds after it."""
    head = f"output_modules.{list(model.output_modules).index(how.energy)}"
    plan = operation.plan(painn)
    weights = {f"representation.{name}": tensor for name, tensor in painn.state_dict().items()}
    weights |= {f"{head}.{name}": tensor for name, tensor in how.energy.state_dict().items()}
    own: Any = Description(
        activation=plan.activation,  # type: ignore[arg-type]
        epsilon=plan.epsilon, cutoff_function="cosine", heads={head: EnergyHead()},
    )  # fmt: skip
    return build(Weights(weights, NAME), own, {"energy_unit": "eV", "length_unit": "Ang"}, NAME, {})


def _workspace(kept: _Kept, engine: CpuEngine, filled: Inputs, r: Tensor) -> Any:
    """The engine's for a batch, kept while its lists are the same; None for a list that is not symmetric."""
    now, count, last = [filled[name] for name in GRAPH if name in filled], threads.count(), kept.graph
    if last is None or last.threads != count or not _equal(last.inputs, now):
        batch = _batch(filled, r)
        if batch is None:
            return None
        last = kept.graph = _Graph([tensor.clone() for tensor in now], count, engine.workspace(batch))
    return last.work


def _equal(kept: list[Tensor], now: list[Tensor]) -> bool:
    return len(kept) == len(now) and all(
        a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(kept, now, strict=True)
    )


def _batch(filled: Inputs, r: Tensor) -> AtomicBatch | None:
    numbers, molecule = filled["_atomic_numbers"].long(), filled["_idx_m"].long()
    receiver, sender, shift = filled["_idx_i"].long(), filled["_idx_j"].long(), filled["_offsets"].double()
    edges = operation.neighbor_list(r, receiver, sender, molecule, len(numbers))
    if edges is None or len(edges.n_atoms) != int(molecule[-1]) + 1:
        return None
    count = len(edges.n_atoms)
    cell = filled.get("_cell")
    return AtomicBatch(
        numbers=numbers,
        positions=filled["_positions"].double(),
        molecule=molecule,
        n_atoms=edges.n_atoms,
        receiver=receiver if edges.order is None else receiver[edges.order],
        sender=edges.sender,
        shift=shift if edges.order is None else shift[edges.order],
        row_ptr=edges.row_ptr,
        cell=shift.new_zeros(count, 3, 3) if cell is None else cell.double(),
        pbc=torch.zeros(count, 3, dtype=torch.bool),
        total_charge=shift.new_zeros(count),
        spin_multiplicity=shift.new_ones(count),
    ).knowing(edges.mirror)


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
