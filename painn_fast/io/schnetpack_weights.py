"""From SchNetPack's weights and a description of its model to a `Potential`.

All sizes come from the tensors themselves, never from statements in the file.
"""

from __future__ import annotations

import re
from collections import UserDict
from collections.abc import Sequence
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.io.model_file import check, fill, outline, realised
from painn_fast.io.schnetpack_modules import Activation, Description
from painn_fast.io.schnetpack_names import (
    MODULES,
    MOLLIFIER_EPSILON,
    head_pairs,
    modules_text,
    offset_pairs,
    representation_pairs,
)
from painn_fast.nn import ElectronicConfig, EnergyHead, Potential, PotentialConfig, RepresentationConfig, ScalarHead
from painn_fast.nn.config import Head, head_name
from painn_fast.nn.heads import widths

NUMBER = r"(\d{1,6})"
"""Of a layer or module; a longer one is none, and Python does not read integers of any length."""
OUTPUT_MODULE = re.compile(rf"output_modules\.{NUMBER}(?=\.)")
OFFSETS = re.compile(r"(postprocessors\.\d+)\.(mean|atomref)$")
"""Weights of SchNetPack's `AddOffsets`."""


class Weights(UserDict[str, Tensor]):
    """A state dict of SchNetPack that names an entry that is missing or odd, and records which were used.

    Args:
        tensors: by SchNetPack's names.
        where: the file, for messages.
    """

    def __init__(self, tensors: dict[str, Tensor], where: str) -> None:
        super().__init__(tensors)
        self.where, self.used = where, set[str]()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.data:
            raise self.strange("missing key", name)
        self.used.add(name)
        return self.data[name]

    def strange(self, what: str, name: str, got: Any = None, expected: Any = None) -> PaiNNFastError:
        """An error about one entry."""
        return PaiNNFastError(what, where=f"{self.where}, '{name}'", got=got, expected=expected)

    def matrix(self, name: str) -> Tensor:
        """A matrix [n_out, n_in], both at least one."""
        value = self[name]
        if value.ndim != 2 or 0 in value.shape:
            raise self.strange("wrong shape", name, tuple(value.shape), "a matrix")
        return value

    def number(self, name: str) -> float:
        """The one number of an entry."""
        value = self[name]
        if value.numel() != 1 or not bool(torch.isfinite(value).all()):
            raise self.strange("wrong shape", name, tuple(value.shape), "one finite number")
        return float(value)

    def count(self, pattern: str) -> int:
        """How many different numbers stand for the `#` of a pattern of names; they must be 0, 1, 2 ..."""
        expression = re.compile(re.escape(pattern).replace(r"\#", NUMBER) + r"(\.|$)")
        found = {int(match[1]) for name in self.data if (match := expression.match(name))}
        if found != set(range(len(found))):
            raise self.strange("layers are not numbered from 0", pattern, sorted(found))
        return len(found)


def build(
    weights: Weights, description: Description, units: dict[str, str], name: str, provenance: dict[str, str]
) -> Potential:
    """The model behind SchNetPack's weights.

    Raises:
        PaiNNFastError: naming the entry that is missing, superfluous or odd.
    """
    _fold_nuclear_embedding(weights)
    representation = _representation(weights, description)
    heads = [_with_widths(weights, module, head, representation) for module, head in description.heads.items()]
    modules = {head_name(head): module for module, head in zip(description.heads, heads, strict=True)}
    modules |= {f"{name} offsets": module for name, module in description.offsets.items()}
    config = PotentialConfig.parse(
        {
            "representation": representation.model_dump(),
            "heads": [head.model_dump() for head in heads],
            "elements": _elements(weights, description),
            "name": name,
            "provenance": {**provenance, MODULES: modules_text(modules)},
            **units,
        },
        where=weights.where,
    )
    outlined = outline(config, weights.where)
    found = _ours(weights, description, outlined)
    check(outlined, found, weights.where)  # before memory is taken
    potential = realised(outlined)
    fill(potential, found)
    for left in sorted(weights.data.keys() - weights.used):
        if not OFFSETS.match(left):  # those of a module that is switched off
            raise weights.strange("unexpected key", left, expected="the weights of PaiNN and its heads")
    return potential.eval()


def _representation(weights: Weights, description: Description) -> RepresentationConfig:
    base = "representation"
    max_z, n_features = weights.matrix(f"{base}.embedding.weight").shape
    n_layers = weights.count(f"{base}.interactions.#")
    sinc = f"{base}.radial_basis.freqs" in weights
    basis = weights[f"{base}.radial_basis.{'freqs' if sinc else 'offsets'}"]
    rows = weights.matrix(f"{base}.filter_net.weight").shape[0]
    if n_layers == 0 or rows not in (3 * n_features, 3 * n_features * n_layers):
        got = f"{rows} rows for {n_layers} layers of {n_features} features"
        raise weights.strange("wrong shape", f"{base}.filter_net.weight", got)
    values: dict[str, Any] = {
        "n_features": n_features,
        "n_layers": n_layers,
        "n_rbf": basis.numel(),
        "radial_basis": "sinc" if sinc else "gaussian",
        "gaussian_start": 0.0 if sinc or not basis.numel() else float(basis.reshape(-1)[0]),
        "max_z": max_z,
        "shared_filters": rows == 3 * n_features and n_layers > 1,
        "shared_interactions": n_layers > 1 and _shared(weights, n_layers),
        "activation": description.activation,
        "epsilon": description.epsilon,
        **_cutoff(weights, description),
        **_embeddings(weights, description),
    }
    return RepresentationConfig.parse(values, where=weights.where)


def _cutoff(weights: Weights, description: Description) -> dict[str, Any]:
    base = "representation.cutoff_fn"
    kind = description.cutoff_function
    if kind is None:  # a plain state dict: the functions differ in their buffers
        kind = "switch" if f"{base}.switch_on" in weights else "mollifier" if f"{base}.eps" in weights else "cosine"
    if kind == "switch":
        return {
            "cutoff_function": kind,
            "cutoff": weights.number(f"{base}.switch_off"),
            "switch_on": weights.number(f"{base}.switch_on"),
        }
    if kind == "mollifier":
        epsilon = weights.number(f"{base}.eps")
        if abs(epsilon - MOLLIFIER_EPSILON) > 1e-3 * MOLLIFIER_EPSILON:
            raise weights.strange("a mollifier with another epsilon", f"{base}.eps", epsilon, MOLLIFIER_EPSILON)
    return {"cutoff_function": kind, "cutoff": weights.number(f"{base}.cutoff")}


def _embeddings(weights: Weights, description: Description) -> dict[str, Any]:
    """Charge and spin embeddings; in a plain state dict they differ in the width of their keys."""
    base = "representation.electronic_embeddings"
    names = description.embeddings
    if not names:
        keys = [weights.matrix(f"{base}.{k}.linear_k.weight") for k in range(weights.count(f"{base}.#"))]
        names = tuple({2: "charge", 1: "spin"}.get(key.shape[1], "unknown") for key in keys)
    if names not in ((), ("charge",), ("spin",), ("charge", "spin")):
        raise weights.strange("electronic embeddings that are not understood", base, ", ".join(names), "charge, spin")
    return {
        f"{name}_embedding": ElectronicConfig(
            n_residual=weights.count(f"{base}.{k}.resblock.residual.stack.#"),
            activation=description.embedding_activation,
        ).model_dump()
        for k, name in enumerate(names)
    }


def _shared(weights: Weights, n_layers: int) -> bool:
    """Whether all layers hold the same numbers, as SchNetPack writes shared interactions."""
    blocks = [name for name in weights if re.match(r"representation\.(interactions|mixing)\.0\.", name)]
    return bool(blocks) and all(
        torch.equal(weights[name], weights[re.sub(r"\.0\.", f".{k}.", name, count=1)])
        for name in blocks
        for k in range(1, n_layers)
    )


def _fold_nuclear_embedding(weights: Weights) -> None:
    """SchNetPack's `NuclearEmbedding`, a table plus a linear map of the electron configuration, is a table as well."""
    base = "representation.embedding"
    if f"{base}.element_embedding" in weights:
        table, linear = weights.matrix(f"{base}.element_embedding"), weights.matrix(f"{base}.config_linear.weight")
        electrons = weights.matrix(f"{base}.electron_config")
        if (len(table), len(linear), linear.shape[1]) != (len(electrons), table.shape[1], electrons.shape[1]):
            raise weights.strange("wrong shape", f"{base}.element_embedding", tuple(table.shape))
        weights.data[f"{base}.weight"] = table + torch.nn.functional.linear(electrons, linear)


def _with_widths(weights: Weights, module: str, head: Head, representation: RepresentationConfig) -> Head:
    """The head with the widths of its layers."""
    n_layers = weights.count(f"{module}.outnet.#")
    if n_layers == 0:
        raise weights.strange("missing key", f"{module}.outnet.0")
    gated = f"{module}.outnet.0.mix_vectors.weight" in weights
    last = "mix_vectors.weight" if gated else "weight"
    outs = [weights.matrix(f"{module}.outnet.{k}.{last}").shape[0] // (1 + gated) for k in range(n_layers)]
    halving = head.model_copy(update={"n_layers": n_layers, "hidden": None})
    if widths(halving, representation.n_features)[1:] == tuple(outs):
        return halving
    return head.model_copy(update={"hidden": tuple(outs[:-1])})


def _elements(weights: Weights, description: Description) -> list[int] | None:
    """Elements with an atomic reference energy; without references the file does not state them."""
    if not description.offset_flags.get("energy", (False, False))[1]:
        return None
    reference = weights[f"{description.offsets['energy']}.atomref"].reshape(-1)
    return torch.nonzero(reference[: len(chemical_symbols)]).reshape(-1).tolist() or None


def _ours(weights: Weights, description: Description, potential: Potential) -> dict[str, Tensor]:
    """Tensors by our names, every parameter of `potential` once."""
    config, own = potential.config, potential.state_dict()
    pairs = list(representation_pairs(config.representation))
    for module, head in zip(description.heads, config.heads, strict=True):
        pairs += head_pairs(head, module)
    found: dict[str, Tensor] = {}
    for ours, theirs in pairs:
        value = weights[theirs]  # also where a layer shares the block of an earlier one: each name must exist
        scalar = ours in own and own[ours].ndim == 0 and value.numel() == 1
        found.setdefault(ours, value.reshape(()) if scalar else value)
    for head in config.heads:
        found |= _offsets(weights, description, head, own)
    return found


def _offsets(weights: Weights, description: Description, head: Head, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean and atomic references of a head, float64; zero where the model adds none."""
    name = head_name(head)
    (mean, _), (reference, _) = offset_pairs(head, "")
    if mean not in own:
        return {}
    found = {key: torch.zeros(own[key].shape, dtype=own[key].dtype) for key in (mean, reference)}
    module, flags = description.offsets.get(name), description.offset_flags.get(name, (False, False))
    if module is not None and flags[0]:
        found[mean] = torch.tensor(weights.number(f"{module}.mean"), dtype=torch.float64)
    if module is not None and flags[1]:
        given = weights[f"{module}.atomref"].double().reshape(-1)
        n = min(len(given), len(found[reference]))
        if given[n:].any():
            raise weights.strange(
                "references of elements that the embedding does not have", f"{module}.atomref", len(given), n
            )
        found[reference][:n] = given[:n]
    return found


def describe_weights(
    weights: Weights, heads: Sequence[Head] | None, *, epsilon: float | None = None, activation: Activation = "silu",
    embedding_activation: Activation = "shifted_softplus",
) -> Description:  # fmt: skip
    """A description of a plain state dict, which has shapes but no functions.

    Args:
        weights: with SchNetPack's names, `representation.` and so on.
        heads: what the output modules with weights are, in order; None if the only one is the energy.
        epsilon: in the norm of the update block; None for SchNetPack's own.
        activation: of the network.
        embedding_activation: in embeddings of charge and spin.

    Raises:
        PaiNNFastError: if the kinds of its heads are not known.
    """
    matches = [match for name in weights if (match := OUTPUT_MODULE.match(name))]
    modules = sorted({match[0] for match in matches}, key=_number)
    if heads is None:
        if len(modules) != 1 or f"{modules[0]}.outnet.0.weight" not in weights:
            raise PaiNNFastError(
                "the state dict does not name its output modules",
                where=weights.where,
                got=", ".join(modules) or "none",
                expected="heads, one for each of them" if modules else "a model with output modules",
                fix="load best_model or the .ckpt instead, or name them: load(..., heads=[EnergyHead(), ...])",
            )
        heads = [EnergyHead()]
    if len(heads) != len(modules):
        got, expected = f"{len(heads)} heads", ", ".join(modules)
        raise PaiNNFastError("not one head for each output module", where=weights.where, got=got, expected=expected)
    description = Description(heads=dict(zip(modules, heads, strict=True)), version="state dict")
    electronic = any("electronic_embeddings" in name for name in weights)
    embeddings = f", {embedding_activation.replace('_', ' ')} in embeddings" if electronic else ""
    description.epsilon = description.epsilon if epsilon is None else epsilon
    names = ", ".join(head_name(head) for head in heads)
    description.activation, description.embedding_activation = activation, embedding_activation
    description.assumed = f"{activation}{embeddings}, epsilon {description.epsilon:g}, heads: {names}"
    offsets = sorted({match[1] for name in weights if (match := OFFSETS.match(name))})
    sums = [head_name(head) for head in heads if isinstance(head, EnergyHead | ScalarHead)]
    if len(offsets) > 1 or (offsets and "energy" not in sums and len(sums) != 1):
        got = f"{', '.join(offsets)} for {', '.join(sums) or 'none'}"
        raise PaiNNFastError("the head of the offsets of the state dict is unknown", where=weights.where, got=got)
    for module in offsets:
        name = "energy" if "energy" in sums else sums[0]
        description.offsets[name] = module
        description.offset_flags[name] = (f"{module}.mean" in weights, f"{module}.atomref" in weights)
    return description


def _number(name: str) -> int:
    return int(name.rsplit(".", 1)[1])
