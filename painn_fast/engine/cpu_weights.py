"""The weights of a model as the passes on a CPU read them: feature dimensions padded with zeros to whole vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from painn_fast import units
from painn_fast.engine.passes_cpu import EngineWeights
from painn_fast.kernels.dense.cpu import aligned, pack
from painn_fast.kernels.network.packing import arrays, pack_layers, padded
from painn_fast.kernels.radial.table import tabulate
from painn_fast.kernels.simd import LANES
from painn_fast.nn import Potential
from painn_fast.nn.fused import filter_weights, radial, weights
from painn_fast.nn.layers import linears


@torch.no_grad()
def pack_weights(potential: Potential) -> EngineWeights:
    """Read the weights of a model. Filters are a table in float32, and exact in float64, where digits count."""
    network, config = potential.representation, potential.config.representation
    f = config.n_features
    missing = -f % LANES
    hidden, last, offset = _readout(potential)
    wide = [-len(bias) % LANES for _, bias in hidden]
    readout = [
        pad(weight.T, (0, out, 0, before)).numpy()
        for (weight, _), out, before in zip(hidden, wide, [missing, *wide[:-1]], strict=True)
    ]

    def all_parts(t: Tensor) -> Tensor:
        """[..., 3 F], zeros for the parts of the message that an ablation leaves out."""
        return pad(pad(t, (0, 3 * f - t.shape[-1])).unflatten(-1, (3, f)), (0, missing)).flatten(-2)

    functions, filters = radial(network), filter_weights(network)
    if potential.dtype == torch.float64:
        start, spacing, table = 0.0, 1.0, np.zeros((len(filters), 0, 3 * (f + missing)))
        exact = np.stack([pack(all_parts(weight).contiguous().numpy()) for weight in filters])
    else:
        tables = [tabulate(functions, weight, dtype=potential.dtype) for weight in filters]
        start, spacing, rows = tables[0].start, tables[0].spacing, [all_parts(t.rows).numpy() for t in tables]
        table = np.stack(rows, out=aligned((len(rows), *rows[0].shape), rows[0].dtype))
        exact = np.zeros((len(filters), 0, 0, 0), table.dtype)
    message: Any = network.message[0]
    widest = max(weight.shape[1] for weight in readout)
    return EngineWeights(
        layers=pack_layers(arrays(padded(weights(network))), config.epsilon, config.activation, widest=widest),
        embedding=pad(network.embedding.weight, (0, missing)).numpy().copy(),
        first_x=all_parts(message.context(network.embedding.weight)).numpy(),
        table=table,
        filter=exact,
        table_start=start,
        spacing=spacing,
        cutoff=functions.cutoff,
        unit=1.0 / units.factor("length", potential.config.length_unit),
        readout=tuple(pack(weight) for weight in readout),
        readout_bias=tuple(pad(bias, (0, out)).numpy().copy() for (_, bias), out in zip(hidden, wide, strict=True)),
        readout_t=tuple(pack(weight.T) for weight in readout),
        readout_last=pad(last, (0, wide[-1])).numpy().copy(),
        readout_offset=offset.numpy(),
    )


def _readout(potential: Potential) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
    """Of the energy: weights and biases of hidden layers, the last weight [H], and the rest by element [max_z] float64.

    The passes have at least one hidden layer. For a readout y without one it is y and -y, since f(y) - f(-y) = y for
    silu and shifted softplus; for a model without an energy zeros.
    """
    embedding = potential.representation.embedding.weight
    if "energy" not in potential.heads:
        zeros = embedding.new_zeros(LANES, embedding.shape[1])
        return [(zeros, zeros[:, 0])], zeros[:, 0], embedding.new_zeros(len(embedding), dtype=torch.float64)
    energy: Any = potential.heads["energy"]
    tensors = linears(energy.network)
    *hidden, (last, bias) = zip(tensors[::2], tensors[1::2], strict=True)
    offset = energy.atomic_reference + energy.mean + bias.double()
    if hidden:
        return hidden, last[0], offset
    return [(torch.cat([last, -last]), bias.new_zeros(2))], bias.new_tensor([1.0, -1.0]), offset
