"""The weights of a model as kernels on a GPU read them: feature dimensions padded with zeros to multiples of 16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from painn_fast import units
from painn_fast.kernels.radial.reference import Radial
from painn_fast.nn import Potential
from painn_fast.nn.fused import radial

MULTIPLE = 16
"""The smallest side of a product on a tensor core."""


@dataclass(frozen=True)
class Dense:
    """A layer: forward weight [in, out], bias [out] (None: it has none), backward weight [out, in]."""

    weight: Tensor
    bias: Tensor | None
    transposed: Tensor


@dataclass(frozen=True)
class Layer:
    """One message and the update after it."""

    filter: Tensor  # [K + 1, 3 F], the bias in the last row
    message: tuple[Dense, Dense]  # F -> F -> 3 F
    mix: Dense  # F -> 2 F
    update: tuple[Dense, Dense]  # 2 F -> F -> 3 F


@dataclass(frozen=True)
class GpuWeights:
    """Of a whole model, with an energy."""

    embedding: Tensor  # [max_z, F]
    first_x: Tensor  # [max_z, 3 F], the first message network of the embedding
    layers: list[Layer]
    radial: Radial
    readout: list[Dense]  # hidden layers of the energy, F -> H -> ...
    last: Tensor  # [H]
    last_bias: Tensor  # [1]
    reference: Tensor  # [max_z] float64, atomic reference and mean, model units
    epsilon: float
    unit: float  # length units of the model in an Å
    energy_unit: float  # eV in an energy unit of the model

    @property
    def features(self) -> int:
        """F, a multiple of 16."""
        return self.embedding.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of the network."""
        return self.embedding.dtype


@torch.no_grad()
def pack(potential: Potential, products: torch.dtype | None = None) -> GpuWeights:
    """Read the weights of a model; those of products are rounded to the dtype `products` if it is given."""
    network, config = potential.representation, potential.config.representation
    f = config.n_features
    known: dict[tuple[int, int, int], Dense] = {}

    def dense(module: nn.Linear, blocks_in: int, blocks_out: int) -> Dense:
        """A layer whose sides are blocks of F features, or one block of another width; read once if shared."""
        key = (id(module), blocks_in, blocks_out)
        if key not in known:
            weight = module.weight.T.unflatten(0, (blocks_in, -1)).unflatten(2, (blocks_out, -1))
            missing_in, missing_out = -weight.shape[1] % MULTIPLE, -weight.shape[3] % MULTIPLE
            padded = pad(weight, (0, missing_out, 0, 0, 0, missing_in)).flatten(2).flatten(0, 1)
            bias = None
            if module.bias is not None:
                bias = pad(module.bias.unflatten(0, (blocks_out, -1)), (0, missing_out)).flatten().clone()
            padded = padded.to(products or padded.dtype)
            known[key] = Dense(_copy(padded), bias, _copy(padded.T))
        return known[key]

    def mlp(module: Any, blocks_in: int) -> tuple[Dense, Dense]:
        return dense(module[0], blocks_in, 1), dense(module[2], 1, 3)

    energy: Any = potential.heads["energy"]
    *hidden, last = (module for module in energy.network if isinstance(module, nn.Linear))
    missing = -f % MULTIPLE
    rows = torch.cat([network.filter.weight.T, network.filter.bias[None]])  # [K + 1, filters * 3 F]
    filters = [
        _copy(pad(block.unflatten(1, (3, f)), (0, missing)).flatten(1))
        for block in rows.chunk(network.n_filters, dim=1)
    ]
    messages: list[Any] = list(network.message)
    updates: list[Any] = list(network.update)
    layers = [
        Layer(
            filter=filters[k % len(filters)],
            message=mlp(messages[k % len(messages)].context, 1),
            mix=dense(updates[k % len(updates)].channel_mix, 1, 2),
            update=mlp(updates[k % len(updates)].context, 2),
        )
        for k in range(config.n_layers)
    ]
    first_x = messages[0].context(network.embedding.weight).unflatten(1, (3, f))
    return GpuWeights(
        embedding=_copy(pad(network.embedding.weight, (0, missing))),
        first_x=_copy(pad(first_x, (0, missing)).flatten(1)),
        layers=layers,
        radial=radial(network),
        readout=[dense(module, 1, 1) for module in hidden],
        last=pad(last.weight[0], (0, -last.in_features % MULTIPLE)).clone(),
        last_bias=last.bias.clone(),
        reference=energy.atomic_reference + energy.mean,
        epsilon=config.epsilon,
        unit=1.0 / units.factor("length", potential.config.length_unit),
        energy_unit=units.factor("energy", potential.config.energy_unit),
    )


def _copy(tensor: Tensor) -> Tensor:
    """Memory of its own, row by row."""
    return tensor.clone(memory_format=torch.contiguous_format)
