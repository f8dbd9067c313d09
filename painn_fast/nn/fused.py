"""All dispatch of `nn`: the representation in compiled operations where they exist, equal to `nn/painn.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from painn_fast.graph import AtomicBatch
from painn_fast.kernels.message.ops import BACKENDS, GpuEdges, edges, message
from painn_fast.kernels.network.ops import blocks, readable
from painn_fast.kernels.network.ops import supports as blocks_run
from painn_fast.kernels.network.reference import Readout, Weights
from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.update.ops import gate, norm
from painn_fast.nn.layers import linears
from painn_fast.nn.painn import PaiNN
from painn_fast.nn.radial import SincBasis

FUSABLE = {"none", "no_scalar_product"}
"""Ablations whose message has all its parts."""


def available(network: PaiNN) -> bool:
    """Whether messages can go through the fused operation: with all parts of phi, on a device that has it."""
    return network.config.ablation in FUSABLE and network.filter.weight.device.type in BACKENDS


def features(
    network: PaiNN, batch: AtomicBatch, r_ij: Tensor, read_by: nn.Module | None = None, *, once: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Features of every atom, and what a network of two layers reads out of s.

    On a CPU that is one operation where it can be, for training; else each message and each update is one.

    Args:
        network: for which `available` holds.
        batch: graph and atomic numbers.
        r_ij: edge vectors [E, 3], opposite for opposite edges; the model's length unit, the dtype of the parameters.
        read_by: the network from s to a number.
        once: forces will be taken, and differentiated in the parameters, but nothing twice in r_ij.

    Returns:
        s [N, F], v [N, 3, F] and the number [N], or None if this path does not compute it.
    """
    config = network.config
    whole = config.ablation == "none" and config.activation == "silu"
    if not whole or BACKENDS.get(r_ij.device.type) is GpuEdges or not blocks_run(r_ij, config.n_features):
        return *_block_by_block(network, batch, r_ij, once=once), None
    layers = range(config.n_layers)
    weights = []
    for layer in layers:
        message: Any = network.message[layer % len(network.message)]
        update: Any = network.update[layer % len(network.update)]
        tensors = [*linears(message.context), update.channel_mix.weight, *linears(update.context)]
        weights.append(Weights(*tensors))
    filters = _filter_weights(network)
    ends = linears(read_by) if isinstance(read_by, nn.Sequential) else []
    readout = Readout(*ends) if len(ends) == 4 and readable(ends[0]) else None
    s, v, read = blocks(
        network.embed(batch), r_ij, radial(network), [filters[layer % len(filters)] for layer in layers], weights,
        readout, config.epsilon, batch.row_ptr, batch.sender, batch.mirror, batch.n_atoms, edges_once=once,
    )  # fmt: skip
    return s, v, read if readout else None


def radial(network: PaiNN) -> Radial:
    """What the filters are made of, for the operations that make them on the way."""
    basis, config = network.radial_basis, network.config
    first = basis.frequencies if isinstance(basis, SincBasis) else basis.offsets
    widths = torch.ones_like(first) if isinstance(basis, SincBasis) else basis.widths
    return Radial(config.radial_basis, first, widths, config.cutoff_function, config.cutoff, config.switch_on or 0.0)


def _block_by_block(network: PaiNN, batch: AtomicBatch, r_ij: Tensor, *, once: bool) -> tuple[Tensor, Tensor]:
    """A message is one pass over the edges, and an update two passes over the atoms beside its matrix products."""
    graph = edges(r_ij, radial(network), batch.row_ptr, batch.sender, batch.mirror, once=once)
    filters = _filter_weights(network)
    s, v = network.embed(batch), r_ij.new_zeros(batch.n_total, 3, network.config.n_features)
    for layer in range(network.config.n_layers):
        block: Any = network.message[layer % len(network.message)]
        update: Any = network.update[layer % len(network.update)]
        ds, dv = message(block.context(s), v, filters[layer % len(filters)], graph)
        s, v = s + ds, v + dv
        if update.gates == 3:
            vw = update.channel_mix(v)
            context, dot = norm(s, vw, update.epsilon)
            s, v = gate(s, v, update.context(context), vw, dot)
        else:
            s, v = update(s, v)
    return s, v


def _filter_weights(network: PaiNN) -> tuple[Tensor, ...]:
    """Of each layer [K + 1, 3 F], the bias in the last row."""
    return torch.cat([network.filter.weight.T, network.filter.bias[None]]).chunk(network.n_filters, dim=-1)
