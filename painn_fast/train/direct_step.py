"""Gradients of a training step on a CPU without autograd: weights are read, and gradients left, where they are kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from painn_fast import units
from painn_fast.graph import AtomicBatch
from painn_fast.kernels import threads
from painn_fast.kernels.network.loss_cpu import add_filters, add_parts, join_filters
from painn_fast.kernels.network.loss_gradient import Labels, LossGradient, Structures
from painn_fast.kernels.network.packing import fill_from, network_panels
from painn_fast.kernels.network.reference import Weights
from painn_fast.nn import Potential
from painn_fast.nn.fused import radial, reason_for_autograd
from painn_fast.nn.layers import linears
from painn_fast.train.optimizer import FlatParameters

PROPERTIES = {"energy", "forces"}
"""Labels that it knows."""
SHARES = 4
"""Of a gradient, which threads add up."""


class DirectStep:
    """The joint loss of energies and forces and its gradient, equal to those of autograd but for rounding.

    Args:
        model: one that it `takes`.
        parameters: of the model; their gradient is left in `parameters.gradient`.
        weights: of the terms of the loss.
        energy_per_atom: divide the square of the energy's error by the number of atoms.
    """

    def __init__(
        self, model: Potential, parameters: FlatParameters, weights: Mapping[str, float], *, energy_per_atom: bool
    ) -> None:
        self.model, self.weights, self.energy_per_atom = model, weights, energy_per_atom
        self._head: Any = model.heads["energy"]
        self._flat = _FlatWeights(model, parameters)
        self._loss = LossGradient(self._flat.panels, self._flat.shapes, radial(model.representation))

    @classmethod
    def of(
        cls, model: Potential, parameters: FlatParameters, weights: Mapping[str, float], *, energy_per_atom: bool
    ) -> DirectStep | None:
        """For a model that learns the labels of these weights; None if the step is not for it."""
        return cls(model, parameters, weights, energy_per_atom=energy_per_atom) if takes(model, weights) else None

    def __call__(self, batch: AtomicBatch, labels: Mapping[str, Tensor], counts: Mapping[str, Any]) -> Tensor:
        """The loss of a batch and its labels, with means over `counts`."""
        with threads.ours():
            wait = threads.beside(self._flat.pack)
            length = units.factor("length", self.model.config.length_unit)
            r = (batch.edge_vectors() / length).to(self.model.dtype)
            network: Any = self.model.representation
            with torch.set_grad_enabled(bool(network.electronic)):
                s = network.embed(batch)
            given = Structures(s.detach(), r, batch.n_atoms, batch.row_ptr, batch.sender, batch.mirror)
            result = self._loss(given, self._labels(batch, labels, counts), wait)
            self._flat.collect(result.weights)
            if s.requires_grad:
                torch.autograd.backward(s, torch.from_numpy(result.s))
            else:  # it is an embedding of the elements alone
                network.embedding.weight.grad.index_add_(0, batch.numbers, torch.from_numpy(result.s))
        return torch.tensor(result.loss, dtype=torch.float64)

    def _labels(self, batch: AtomicBatch, labels: Mapping[str, Tensor], counts: Mapping[str, Any]) -> Labels:
        """In the units of the network, and without what is added to its readout."""
        energy_unit = units.factor("energy", self.model.config.energy_unit)
        force_unit = energy_unit / units.factor("length", self.model.config.length_unit)
        energy, of_energy = np.full(batch.n_molecules, np.nan), np.zeros(batch.n_molecules)
        if "energy" in labels:
            constant, _ = self._head(None, batch, torch.zeros(batch.n_total))
            energy = (labels["energy"] / energy_unit - constant).numpy()
            of_energy[:] = self.weights["energy"] * energy_unit**2 / counts["energy"]
            if self.energy_per_atom:
                of_energy /= batch.n_atoms.numpy()
        if "forces" not in labels:
            return Labels(energy, of_energy)
        of_forces = self.weights["forces"] * force_unit**2 / counts["forces"]
        return Labels(energy, of_energy, (labels["forces"].double() / force_unit).numpy(), of_forces)


def takes(model: Potential, names: Collection[str]) -> bool:
    """Whether it learns these labels of a model, all of whose parameters are trained."""
    if model.device.type != "cpu" or not model.fused or "energy" not in model.heads or not set(names) <= PROPERTIES:
        return False
    network: Any = model.heads["energy"].network
    trained = all(parameter.requires_grad for parameter in model.parameters())
    return trained and reason_for_autograd(model.representation, network) is None


class _FlatWeights:
    """Weights of a network and their gradients in the memory of `FlatParameters`, by layers."""

    def __init__(self, model: Potential, parameters: FlatParameters) -> None:
        network: Any = model.representation
        readout: Any = model.heads["energy"].network
        config, starts = network.config, parameters.starts()
        filters = network.filter.weight, network.filter.bias
        message, update = (
            zip(*(linears(block.context) for block in blocks), strict=True)
            for blocks in (network.message, network.update)
        )
        mix = [block.channel_mix.weight for block in network.update]
        by_layer = [*map(list, message), mix, *map(list, update)]
        last = linears(readout)
        own: list[Any] = [parameter for each in (*by_layer, last) for parameter in each]
        self._others: list[Any] = [
            one for one in parameters.parameters if not any(one is known for known in (*own, *filters))
        ]
        shape = config.n_layers, 3 * config.n_features
        self._filters = _array(filters[0]).reshape(*shape, -1), _array(filters[1]).reshape(shape)
        self._g_filters = _array(filters[0].grad).reshape(*shape, -1), _array(filters[1].grad).reshape(shape)
        self._whole_filters = np.empty((config.n_layers, config.n_rbf + 1, shape[1]), self._filters[0].dtype)
        read: list[Any] = [_array(parameter) for parameter in last]
        stacks: list[Any] = [[_array(parameter) for parameter in each] for each in by_layer]
        shapes: list[Any] = [self._whole_filters, *map(_shaped, stacks), *read]
        self.shapes = Weights(*shapes)
        self.panels = network_panels(self.shapes, config.epsilon, config.activation)
        self._gradient = _array(parameters.gradient)
        self._sizes = np.array([parameter.numel() for parameter in own])
        self._source = self._whole_filters.size + np.append(0, np.cumsum(self._sizes[:-1]))
        self._target = np.array([starts[id(parameter)] for parameter in own])
        self._values = _array(parameters.values)
        cuts = np.searchsorted(np.cumsum(self._sizes), np.linspace(0, self._sizes.sum(), SHARES + 1)[1:-1])
        self._shares = [None, *(slice(*pair) for pair in pairwise([0, *cuts.tolist(), len(own)]))]

    def pack(self) -> None:
        """Have the weights of now in `panels`."""
        join_filters(*self._filters, self._whole_filters)
        n = len(self._whole_filters)
        by_layer, readout = self._target[: 9 * n].reshape(9, n), self._target[9 * n]
        fill_from(self.panels, self._whole_filters, self._values, by_layer, readout)

    def collect(self, parts: np.ndarray) -> None:
        """Have the sum of the gradients of all parts in that of the parameters, and zero where a network has none."""

        def add(share: slice | None, _: int) -> None:
            if share is None:
                add_filters(parts, *self._g_filters)
            else:
                add_parts(parts, self._source[share], self._target[share], self._sizes[share], self._gradient)

        threads.run(add, self._shares)
        for parameter in self._others:
            parameter.grad.zero_()


def _array(tensor: Any) -> np.ndarray:
    array: np.ndarray = tensor.detach().numpy()
    return array


def _shaped(arrays: list[np.ndarray]) -> np.ndarray:
    """An array, without memory, in the shape of all of these."""
    return np.broadcast_to(arrays[0][:0].sum(), (len(arrays), *arrays[0].shape))
