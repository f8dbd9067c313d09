"""The names of our parameters beside SchNetPack's, in one table, and a model's weights under the latter."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.nn import EnergyHead, Potential, PotentialConfig, RepresentationConfig, ScalarHead, SpatialExtentHead
from painn_fast.nn.config import DipoleHead, Head, PolarizabilityHead, head_name

Pairs = Iterator[tuple[str, str]]
"""(our name, SchNetPack's name)."""

MODULES = "schnetpack_modules"
"""Key of the provenance: the SchNetPack modules from which the heads of a converted model came."""
MOLLIFIER_EPSILON = 1e-7
BASES = {"sinc": [("frequencies", "freqs")], "gaussian": [("offsets", "offsets"), ("widths", "widths")]}


def representation_pairs(config: RepresentationConfig) -> Pairs:
    """Names within the representation. Layers that share a block give our name once for each of theirs."""
    ours = theirs = "representation"
    yield f"{ours}.embedding.weight", f"{theirs}.embedding.weight"
    for basis in BASES[config.radial_basis]:
        yield f"{ours}.radial_basis.{basis[0]}", f"{theirs}.radial_basis.{basis[1]}"
    if config.cutoff_function == "switch":
        yield f"{ours}.cutoff_function.switch_on", f"{theirs}.cutoff_fn.switch_on"
        yield f"{ours}.cutoff_function.cutoff", f"{theirs}.cutoff_fn.switch_off"
    else:
        yield f"{ours}.cutoff_function.cutoff", f"{theirs}.cutoff_fn.cutoff"
    yield from _layer(f"{ours}.filter", f"{theirs}.filter_net")
    for k in range(config.n_layers):
        block = 0 if config.shared_interactions else k
        message, interaction = f"{ours}.message.{block}", f"{theirs}.interactions.{k}"
        update, mixing = f"{ours}.update.{block}", f"{theirs}.mixing.{k}"
        for i in (0, 1):
            yield from _layer(f"{message}.context.{2 * i}", f"{interaction}.interatomic_context_net.{i}")
            yield from _layer(f"{update}.context.{2 * i}", f"{mixing}.intraatomic_context_net.{i}")
        yield f"{update}.channel_mix.weight", f"{mixing}.mu_channel_mix.weight"
    embeddings = [("charge", config.charge_embedding), ("spin", config.spin_embedding)]
    present = [(name, embedding) for name, embedding in embeddings if embedding is not None]
    for k, (name, embedding) in enumerate(present):
        yield from _electronic(f"{ours}.electronic.{name}", f"{theirs}.electronic_embeddings.{k}", embedding.n_residual)


def _electronic(ours: str, theirs: str, n_residual: int) -> Pairs:
    yield from _layer(f"{ours}.query", f"{theirs}.linear_q")
    yield f"{ours}.key.weight", f"{theirs}.linear_k.weight"
    yield f"{ours}.value.weight", f"{theirs}.linear_v.weight"
    for k in range(n_residual):
        block, stack = f"{ours}.residual.{k}.network", f"{theirs}.resblock.residual.stack.{k}"
        yield f"{block}.1.weight", f"{stack}.linear1.weight"
        yield f"{block}.3.weight", f"{stack}.linear2.weight"
    yield f"{ours}.out.weight", f"{theirs}.resblock.linear.weight"


def head_pairs(head: Head, theirs: str) -> Pairs:
    """Names within the network of a head, whose module is called `theirs` in SchNetPack."""
    ours = f"heads.{head_name(head)}.network"
    n_layers = head.n_layers if head.hidden is None else len(head.hidden) + 1
    gated = isinstance(head, PolarizabilityHead) or (isinstance(head, DipoleHead) and head.atomic_dipoles)
    for k in range(n_layers):
        if not gated:
            yield from _layer(f"{ours}.{2 * k}", f"{theirs}.outnet.{k}")
            continue
        yield f"{ours}.blocks.{k}.channel_mix.weight", f"{theirs}.outnet.{k}.mix_vectors.weight"
        for i in (0, 1):
            yield from _layer(f"{ours}.blocks.{k}.context.{2 * i}", f"{theirs}.outnet.{k}.scalar_net.{i}")


def offset_pairs(head: Head, theirs: str) -> Pairs:
    """Names of what is added back to a head's sum, whose module is called `theirs` in SchNetPack."""
    yield f"heads.{head_name(head)}.mean", f"{theirs}.mean"
    yield f"heads.{head_name(head)}.atomic_reference", f"{theirs}.atomref"


def _layer(ours: str, theirs: str) -> Pairs:
    for name in ("weight", "bias"):
        yield f"{ours}.{name}", f"{theirs}.{name}"


def modules_text(modules: dict[str, str]) -> str:
    """Modules of heads, and of their offsets ("energy offsets"), as text for the provenance."""
    return ", ".join(f"{name}: {module}" for name, module in modules.items())


def modules_of(config: PotentialConfig) -> dict[str, str]:
    """SchNetPack's modules of the heads of a converted model; empty for a model of our own."""
    text = config.provenance.get(MODULES, "")
    return dict(part.split(": ", 1) for part in text.split(", ")) if text else {}


def to_schnetpack_state_dict(potential: Potential) -> dict[str, Tensor]:
    """The weights by the names of SchNetPack's `NeuralNetworkPotential`, for its `load_state_dict`.

    The model to load them into has one output module for each head, in the order of the heads (a `Forces` after them
    holds nothing), and, if energies have a mean or atomic references, the postprocessors `CastTo64` and `AddOffsets`
    with both flags set. A model that came from SchNetPack gets the module numbers that it had there.

    Args:
        potential: the model.

    Returns:
        Name to tensor, copies on the CPU in the model's dtype and in the units that its weights work in.

    Raises:
        PaiNNFastError: for what SchNetPack has no counterpart of (ablations, the spatial extent).

    Example:
        >>> import painn_fast as pf
        >>> from painn_fast.schnetpack import to_schnetpack_state_dict
        >>> state = to_schnetpack_state_dict(pf.load("ethanol"))
        >>> state["representation.embedding.weight"].shape
        torch.Size([100, 64])
    """
    config = potential.config
    if config.representation.ablation != "none":
        raise PaiNNFastError("SchNetPack has no ablated PaiNN", got=config.representation.ablation, expected="none")
    own, modules = potential.state_dict(), modules_of(config)
    pairs = list(representation_pairs(config.representation))
    post = 1
    for k, head in enumerate(config.heads):
        name = head_name(head)
        if isinstance(head, SpatialExtentHead):
            raise PaiNNFastError("SchNetPack has no head for the spatial extent", where=f"model '{config.name}'")
        pairs += head_pairs(head, modules.get(name, f"output_modules.{k}"))
        if not isinstance(head, EnergyHead | ScalarHead):
            continue
        offsets = any(bool(own[ours].any()) for ours, _ in offset_pairs(head, ""))
        if offsets or f"{name} offsets" in modules:
            pairs += offset_pairs(head, modules.get(f"{name} offsets", f"postprocessors.{post}"))
            post += 1
    state = {theirs: own[ours].detach().cpu().clone() for ours, theirs in pairs}
    if config.representation.cutoff_function == "mollifier":
        state["representation.cutoff_fn.eps"] = torch.tensor([MOLLIFIER_EPSILON])
    return {name: value.reshape(1) if value.ndim == 0 else value for name, value in state.items()}
