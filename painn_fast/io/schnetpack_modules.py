"""A pickled SchNetPack model as the restricted reader gives it, translated into our configuration.

Every module is checked: a class, option or activation that is not understood is an error that names it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from painn_fast.errors import PaiNNFastError
from painn_fast.io.foreign_pickle import Name, Record
from painn_fast.io.torch_archive import TensorRecord
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, ScalarHead
from painn_fast.nn.config import Head, head_name

Activation = Literal["silu", "shifted_softplus"]
Plain = str | int | float | Name | None

ACTIVATIONS: dict[str, Activation] = {
    "torch.nn.functional.silu": "silu",
    "torch._C._nn.silu": "silu",
    "torch.nn.modules.activation.SiLU": "silu",
    "schnetpack.nn.activations.shifted_softplus": "shifted_softplus",
}
NO_ACTIVATION = "torch.nn.modules.linear.Identity"
ENERGIES = ("energy", "energy_U0", "total_energy")
"""Names of an atomwise sum that is an energy although no module takes its gradient."""
UNKNOWN_UNIT = "as trained"
MAX_MODULES = 10_000
MAX_NAMES = 200_000
"""Names of modules and weights that are visited; a file may refer to one module many times."""
MAX_NAME = 200
"""Characters of one of them."""
MAX_PATH = 1_000
"""Characters of the whole name of a module within the model."""
MAX_HEADS = 100


@dataclass
class Description:
    """What a SchNetPack model is, apart from its weights."""

    activation: Activation = "silu"
    epsilon: float = 1e-8
    cutoff_function: Literal["cosine", "mollifier", "switch"] | None = None
    embedding_activation: Activation = "shifted_softplus"
    embeddings: tuple[str, ...] = ()
    """"charge", "spin", in order."""
    heads: dict[str, Head] = field(default_factory=dict)
    """By SchNetPack's module name; layer widths still missing."""
    offsets: dict[str, str] = field(default_factory=dict)
    """Module name of the offsets by name of the head that they belong to."""
    offset_flags: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    """Whether mean and atomic references are added, by name of the head."""
    version: str = "2.0"
    assumed: str = ""
    """What the file does not contain and was assumed."""


class Module:
    """A pickled torch module.

    Args:
        record: as the restricted reader gives it.
        path: its name within the model, for messages.
        where: the file.
    """

    def __init__(self, record: Any, path: str, where: str, visited: Counter[str] | None = None) -> None:
        self.path, self.where = path[:MAX_PATH], where
        self._visited = Counter() if visited is None else visited
        self._count(1)
        if len(path) > MAX_PATH:
            raise self.strange("modules too deep inside each other", f"a name of {len(path)} characters", MAX_PATH)
        state = record.state if isinstance(record, Record) else None
        inside = ("_modules", "_parameters", "_buffers")
        if not isinstance(state, dict) or not all(isinstance(state.get(key, {}), dict) for key in inside):
            raise PaiNNFastError("not a pickled module", where=self._name(), got=type(record).__name__)
        self.kind, self.state = str(record.kind), state
        for hooks in ("_forward_hooks", "_forward_pre_hooks"):
            if state.get(hooks):
                raise self.strange("a module with hooks, which would change its output", hooks)

    def inside(self, kind: str) -> dict[str, Any]:
        """Entries of a module of torch in `_modules`, `_parameters` or `_buffers`, by name."""
        inside = self.state.get(kind, {})
        self._count(len(inside))
        if not all(isinstance(name, str) and len(name) <= MAX_NAME for name in inside):
            raise self.strange("a name that is not one of a module or weight", kind, f"at most {MAX_NAME} characters")
        return {name: value for name, value in inside.items() if value is not None}

    def _count(self, names: int) -> None:
        """Count names visited in the whole model: a small file can describe a model of exponentially many parts."""
        self._visited["names"] += names
        if self._visited["names"] > MAX_NAMES:
            raise PaiNNFastError("a model with too many modules", where=self.where, expected=f"at most {MAX_NAMES}")

    @property
    def short(self) -> str:
        """Name of the class without its package."""
        return self.kind.rsplit(".", 1)[1]

    @property
    def children(self) -> dict[str, Module]:
        """Modules inside, in order."""
        return {name: self._inner(name, record) for name, record in self.inside("_modules").items()}

    def _inner(self, name: str, record: Any) -> Module:
        return Module(record, f"{self.path}.{name}".lstrip("."), self.where, self._visited)

    def child(self, name: str, *, named: bool = True) -> Module:
        """A module inside; `named`: its name counts in those of the weights.

        Raises:
            PaiNNFastError: if it is missing.
        """
        record = self.state.get("_modules", {}).get(name)
        if record is None:
            raise self.strange("a part of the model is missing", name)
        return self._inner(name, record) if named else Module(record, self.path, self.where, self._visited)

    def get(self, name: str, default: Plain = None) -> Any:
        """A plain attribute; `default` where an older version had none.

        Raises:
            PaiNNFastError: if it is something else, of which only the type is printed.
        """
        value = self.state.get(name, default)
        if value is not None and not isinstance(value, str | int | float | Name):
            raise self.strange("an attribute that is not understood", f"{name}, a {type(value).__name__}")
        return value

    def expect(self, *classes: str) -> Module:
        """Itself, if it is of one of these classes of SchNetPack or torch.

        Raises:
            PaiNNFastError: naming the class otherwise.
        """
        home = self.kind.startswith(("schnetpack.", "painn_fast.schnetpack.", "torch.nn.modules."))
        if not home or self.short not in classes:
            raise self.strange("a module that is not understood", self.kind, " | ".join(classes))
        return self

    def strange(self, what: str, got: Any, expected: Any = None) -> PaiNNFastError:
        """An error about this module."""
        return PaiNNFastError(what, where=self._name(), got=str(got)[:200], expected=expected)

    def _name(self) -> str:
        return f"{self.where}, {self.path}" if self.path else self.where

    def activation(self) -> str:
        """Full name of the activation function, a plain attribute or a module inside."""
        return self.function("activation") or "none"

    def function(self, name: str) -> str | None:
        """Full name of a function that is a plain attribute or a module inside; None if there is none."""
        inner = self.state.get("_modules", {}).get(name)
        given = inner.kind if isinstance(inner, Record) else self.get(name)
        return None if given is None else str(given)


def tensors(module: Module) -> dict[str, TensorRecord]:
    """The state dict of a pickled module: parameters and persistent buffers by their full names."""
    found: dict[str, TensorRecord] = {}
    waiting, visited = [module], 0
    while waiting:
        current, visited = waiting.pop(), visited + 1
        if visited + len(waiting) > MAX_MODULES:
            raise PaiNNFastError("a model with too many modules", where=module.where, expected=f"at most {MAX_MODULES}")
        fleeting = current.state.get("_non_persistent_buffers_set")
        for name, value in {**current.inside("_parameters"), **current.inside("_buffers")}.items():
            if isinstance(fleeting, set) and name in fleeting:
                continue
            if not isinstance(value, TensorRecord):
                raise current.strange("a weight that is not a tensor", name)
            found[f"{current.path}.{name}".lstrip(".")] = value
        waiting += current.children.values()
    return found


def describe_model(model: Module) -> Description:
    """Translate a pickled `NeuralNetworkPotential`.

    Raises:
        PaiNNFastError: naming the module, class or option that is not understood.
    """
    model.expect("NeuralNetworkPotential")
    description = Description(version=str(model.get("spk_version", "2.0"))[:20])
    known = {"representation", "input_modules", "output_modules", "postprocessors"}
    for name in model.children.keys() - known:
        raise model.strange("a part of the model that is not understood", name, ", ".join(sorted(known)))
    for module in model.child("input_modules").children.values():
        module.expect("PairwiseDistances", "Strain")
    _representation(model.child("representation"), description)
    energies = _heads(model.child("output_modules"), description)
    if model.get("do_postprocessing", True):
        _postprocessors(model.child("postprocessors"), description, energies)
    return description


def _representation(painn: Module, description: Description) -> None:
    painn.expect("PaiNN")
    painn.child("radial_basis").expect("GaussianRBF", "GaussianRBFCentered", "BesselRBF")
    cutoff = painn.child("cutoff_fn").expect("CosineCutoff", "MollifierCutoff", "SwitchFunction")
    kinds = {"CosineCutoff": "cosine", "MollifierCutoff": "mollifier", "SwitchFunction": "switch"}
    description.cutoff_function = cast(Literal["cosine", "mollifier", "switch"], kinds[cutoff.short])
    embedding = painn.child("embedding").expect("Embedding", "NuclearEmbedding")
    if embedding.get("max_norm") is not None:
        raise embedding.strange("an embedding with a largest norm", embedding.get("max_norm"))
    painn.child("filter_net").expect("Dense")
    blocks = [*painn.child("interactions").children.values(), *painn.child("mixing").children.values()]
    networks, epsilons = [], set()
    for block in blocks:
        block.expect("PaiNNInteraction", "PaiNNMixing")
        kind = "interatomic" if block.short == "PaiNNInteraction" else "intraatomic"
        networks.append(block.child(f"{kind}_context_net"))
        if kind == "intraatomic":
            epsilons.add(block.get("epsilon", 1e-8))
    if len(epsilons) != 1:
        raise painn.strange("blocks with different epsilons", sorted(epsilons))
    description.epsilon = epsilons.pop()
    activations = {_mlp_activation(network) for network in networks}
    if len(activations) != 1:
        raise painn.strange("blocks with different activations", sorted(activations))
    description.activation = activations.pop()
    _electronic(painn, description)


def _electronic(painn: Module, description: Description) -> None:
    if "electronic_embeddings" not in painn.children:  # before 2.1
        return
    names, activations = [], set()
    for module in painn.child("electronic_embeddings").children.values():
        module.expect("ElectronicEmbedding")
        sort = (module.get("property_key"), module.get("is_charged"))
        if sort not in {("total_charge", True), ("spin_multiplicity", False)}:
            raise module.strange("an embedding of something else", sort, "total_charge (signed) | spin_multiplicity")
        names.append("charge" if sort[1] else "spin")
        activations.add(module.child("resblock").activation())
    if names not in ([], ["charge"], ["spin"], ["charge", "spin"]):
        raise painn.strange("electronic embeddings in another order", ", ".join(names), "charge, spin")
    if len(activations) > 1 or not activations <= ACTIVATIONS.keys():
        raise painn.strange("activations that are not understood", sorted(activations), " | ".join(ACTIVATIONS))
    description.embeddings = tuple(names)
    if activations:
        description.embedding_activation = ACTIVATIONS[activations.pop()]


def _mlp_activation(network: Module) -> Activation:
    """The activation between the layers of a network, which must not have one at its end."""
    layers = [layer.expect("Dense") for layer in network.expect("Sequential").children.values()]
    given = [layer.activation() for layer in layers]
    if not given or given[-1] != NO_ACTIVATION:
        raise network.strange("an activation after the last layer", given[-1] if given else "no layers")
    between = set(given[:-1])
    if len(between) > 1 or not between <= ACTIVATIONS.keys():
        known = " | ".join(ACTIVATIONS)
        raise network.strange("activations that are not understood", ", ".join(sorted(between)), known)
    return ACTIVATIONS[between.pop()] if between else "silu"


def _check_network(network: Module, activation: Activation) -> None:
    """A head's network, dense or gated: it has the representation's activation throughout."""
    blocks = list(network.expect("Sequential").children.values())
    gated = bool(blocks) and blocks[0].short == "GatedEquivariantBlock"
    inner = [block.expect("GatedEquivariantBlock").child("scalar_net") for block in blocks] if gated else [network]
    for part in inner:
        found = _mlp_activation(part)
        if found != activation and len(part.children) > 1:
            raise part.strange("another activation than in the representation", found, activation)
    for k, block in enumerate(blocks if gated else ()):
        given, last = block.function("sactivation"), k == len(blocks) - 1
        if (last and given is not None) or (not last and ACTIVATIONS.get(str(given)) != activation):
            raise block.strange(
                "an activation of scalars that is not understood", given, "none" if last else activation
            )


def _heads(modules: Module, description: Description) -> dict[str, str]:
    """Heads into `description.heads`; returns the head's name for the name of each atomwise result."""
    children = modules.children
    gradient_of = {_response(module) for module in children.values() if module.short in ("Forces", "Response")}
    results: dict[str, str] = {}
    for module in children.values():
        match module.expect("Atomwise", "DipoleMoment", "Polarizability", "Forces", "Response").short:
            case "Atomwise":
                key = str(module.get("output_key"))
                head = _atomwise(module, key, key in gradient_of or (not gradient_of and key in ENERGIES))
                results[key] = head_name(head)
            case "DipoleMoment":
                head = DipoleHead(
                    atomic_dipoles=bool(module.get("use_vector_representation")),
                    correct_charges=bool(module.get("correct_charges")),
                    magnitude=bool(module.get("predict_magnitude")),
                )
            case "Polarizability":
                head = PolarizabilityHead()
            case _:
                continue
        _check_network(module.child("outnet"), description.activation)
        if head_name(head) in {head_name(other) for other in description.heads.values()}:
            raise module.strange("a second head for one property", head_name(head))
        description.heads[module.path] = head
        if len(description.heads) > MAX_HEADS:
            raise modules.strange("too many heads", len(children), f"at most {MAX_HEADS}")
    for key in gradient_of - results.keys():
        raise modules.strange("forces of an energy that no module gives", key, ", ".join(results))
    return results


def _response(module: Module) -> str:
    """Name of the energy that a `Forces` or `Response` module takes the gradient of."""
    if module.short == "Response":
        derivatives = module.state.get("derivative_instructions")
        wanted = {str(name) for name, on in derivatives.items() if on} if isinstance(derivatives, dict) else {"unknown"}
        if not wanted <= {"dEdR", "dEds", "d2EdR2"}:
            got = ", ".join(sorted(wanted))
            raise module.strange("derivatives that are not understood", got, "of positions and strain")
    return str(module.get("energy_key"))


def _atomwise(module: Module, key: str, energy: bool) -> Head:
    aggregation = module.get("aggregation_mode")
    if module.get("n_out", 1) != 1 or aggregation not in ("sum", "avg"):
        got = f"n_out={module.get('n_out')}, {aggregation}"
        raise module.strange("an atomwise head that is not understood", got, "one output, sum or avg")
    if energy and aggregation != "sum":
        raise module.strange("an energy that is not a sum", aggregation, "sum")
    if energy:
        return EnergyHead()
    try:
        return ScalarHead(name=key, unit=UNKNOWN_UNIT, aggregation="sum" if aggregation == "sum" else "mean")
    except ValueError:
        raise module.strange("a result whose name is not a name", repr(key), "letters, digits and _") from None


def _postprocessors(modules: Module, description: Description, results: dict[str, str]) -> None:
    """What is added back to the heads' sums."""
    for module in modules.children.values():
        if module.expect("CastTo64", "CastTo32", "CastMap", "AddOffsets").short != "AddOffsets":
            continue
        key, flags = str(module.get("_property")), (bool(module.get("add_mean")), bool(module.get("add_atomrefs")))
        if not any(flags):
            continue
        name = results.get(key)
        if name is None:
            raise module.strange("offsets of something that is no atomwise result", key, ", ".join(results))
        head = next(head for head in description.heads.values() if head_name(head) == name)
        summed = isinstance(head, EnergyHead) or (isinstance(head, ScalarHead) and head.aggregation == "sum")
        if bool(module.get("is_extensive", True)) != summed:
            raise module.strange("offsets per atom for a mean, or per molecule for a sum", key)
        if name in description.offsets:
            raise module.strange("a second set of offsets", key)
        description.offsets[name], description.offset_flags[name] = module.path, flags
