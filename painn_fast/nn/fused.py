"""All dispatch of `nn`: the representation in compiled operations where they exist, equal to `nn/painn.py`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from painn_fast.graph import AtomicBatch
from painn_fast.kernels.message.ops import Edges, message
from painn_fast.kernels.network.ops import DTYPES
from painn_fast.kernels.network.ops import network as whole_network
from painn_fast.kernels.network.reference import Weights
from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.simd import LANES
from painn_fast.kernels.update.ops import gate, norm
from painn_fast.nn.layers import linears
from painn_fast.nn.painn import PaiNN
from painn_fast.nn.radial import SincBasis

BY_OPERATION = {"cuda"} if find_spec("triton") else set()
"""Types of devices where each message and each update is an operation; on a CPU the whole network is one."""
ALL_MESSAGES = {"none", "no_scalar_product"}
"""Ablations whose message has all its parts, which the operation for messages needs."""


def available(network: PaiNN) -> bool:
    """Whether compiled operations run this network, with its dtype on its device; not inside of `torch.compile`."""
    kind = network.filter.weight.device.type
    if kind not in BY_OPERATION and (kind != "cpu" or torch.compiler.is_compiling()):
        return False
    return reason_for_reference(network, kind) is None


def reason_for_reference(network: PaiNN, device: str) -> str | None:
    """Why plain PyTorch runs this network on a type of device, "cpu" or "cuda" with Triton; None if operations do."""
    if device == "cpu":
        given = network.filter.weight.dtype
        return None if given in DTYPES else f"no compiled operations for {str(given).removeprefix('torch.')}"
    ablation = network.config.ablation
    return None if ablation in ALL_MESSAGES else f"no operation for the messages of ablation '{ablation}'"


def reason_for_autograd(network: PaiNN, readout: nn.Module) -> str | None:
    """Why a training on energies and forces on a CPU takes autograd; None if it does without.

    Args:
        network: which compiled operations run on a CPU.
        readout: the network of the energy.
    """
    config, ends = network.config, linears(readout) if isinstance(readout, nn.Sequential) else []
    if config.ablation != "none":
        return f"ablation '{config.ablation}'"
    if config.shared_filters or config.shared_interactions:
        return "layers share weights"
    if len(ends) != 4:
        return f"{len(ends) // 2} layers of the readout, not 2"
    if config.n_features % LANES or len(ends[0]) % LANES:
        return f"{config.n_features} features and {len(ends[0])} of the readout, not multiples of {LANES}"
    return None


def features(
    network: PaiNN, batch: AtomicBatch, r_ij: Tensor, readout: nn.Module | None = None, *, once: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Features of every atom, and what a readout of two layers gives for them.

    Args:
        network: for which `available` holds.
        batch: graph and atomic numbers.
        r_ij: edge vectors [E, 3], opposite for opposite edges; the model's length unit, the dtype of the parameters.
        readout: the network from s to a number.
        once: forces will be taken, and differentiated in the parameters, but nothing twice in r_ij.

    Returns:
        s [N, F], v [N, 3, F] and the number [N], or None if this path does not compute it.
    """
    if r_ij.device.type in BY_OPERATION:
        return *_by_operation(network, batch, r_ij), None
    config = network.config
    ends = linears(readout) if isinstance(readout, nn.Sequential) else []
    read_out = len(ends) == 4
    s, v, read = whole_network(
        network.embed(batch), r_ij, radial(network), weights(network, ends if read_out else ()), config.activation,
        config.epsilon, batch.row_ptr, batch.sender, batch.mirror, batch.n_atoms, edges_once=once,
    )  # fmt: skip
    return s, v, read if read_out else None


def radial(network: PaiNN) -> Radial:
    """The functions of the filters, for operations that compute them inside."""
    basis, config = network.radial_basis, network.config
    first = basis.frequencies if isinstance(basis, SincBasis) else basis.offsets
    widths = torch.ones_like(first) if isinstance(basis, SincBasis) else basis.widths
    return Radial(config.radial_basis, first, widths, config.cutoff_function, config.cutoff, config.switch_on or 0.0)


def weights(network: PaiNN, readout: Sequence[Tensor] = ()) -> Weights:
    """Parameters of all layers with all parts of phi and a: those that an ablation leaves out are zeros.

    Args:
        network: any.
        readout: weight and bias of the two layers of a readout; without them it has none.
    """
    f, count = network.config.n_features, range(network.config.n_layers)
    messages: list[Any] = [network.message[k % len(network.message)] for k in count]
    updates: list[Any] = [network.update[k % len(network.update)] for k in count]
    filters = filter_weights(network)
    m1, m1_bias, m2, m2_bias = _stacked([linears(message.context) for message in messages])
    u1, u1_bias, u2, u2_bias = _stacked([linears(update.context) for update in updates])
    if updates[0].gates > 1:
        mix = torch.stack([update.channel_mix.weight for update in updates])
    else:  # no vector features
        mix = m1.new_zeros(len(count), 2 * f, f)
    if not readout:
        readout = m1.new_zeros(0, f), m1.new_zeros(0), m1.new_zeros(1, 0), m1.new_zeros(1)
    return Weights(
        _widened(torch.stack([filters[k % len(filters)] for k in count]), 3 * f), m1, m1_bias,
        _widened(m2.mT, 3 * f).mT, _widened(m2_bias, 3 * f), mix, _widened(u1, 2 * f), u1_bias,
        _widened(u2.mT, 3 * f).mT, _widened(u2_bias, 3 * f), *readout,
    )  # fmt: skip


def filter_weights(network: PaiNN) -> tuple[Tensor, ...]:
    """Of each filter [K + 1, 3 F], the bias in the last row."""
    return torch.cat([network.filter.weight.T, network.filter.bias[None]]).chunk(network.n_filters, dim=-1)


def _stacked(layers: list[list[Tensor]]) -> list[Tensor]:
    """Each kind of parameter of all layers, [L, ...]."""
    return [torch.stack(tensors) for tensors in zip(*layers, strict=True)]


def _widened(tensor: Tensor, columns: int) -> Tensor:
    """With zeros in the columns that it does not have."""
    return pad(tensor, (0, columns - tensor.shape[-1])) if tensor.shape[-1] < columns else tensor


def _by_operation(network: PaiNN, batch: AtomicBatch, r_ij: Tensor) -> tuple[Tensor, Tensor]:
    """A message is one pass over the edges, and an update two passes over the atoms beside its matrix products."""
    edges = Edges(r_ij, radial(network), batch.row_ptr, batch.sender, batch.mirror)
    filters = filter_weights(network)
    s, v = network.embed(batch), r_ij.new_zeros(batch.n_total, 3, network.config.n_features)
    for layer in range(network.config.n_layers):
        block: Any = network.message[layer % len(network.message)]
        update: Any = network.update[layer % len(network.update)]
        ds, dv = message(block.context(s), v, filters[layer % len(filters)], edges)
        s, v = s + ds, v + dv
        if update.gates == 3:
            vw = update.channel_mix(v)
            context, dot = norm(s, vw, update.epsilon)
            s, v = gate(s, v, update.context(context), vw, dot)
        else:
            s, v = update(s, v)
    return s, v
