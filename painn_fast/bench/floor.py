"""The floor, what no PaiNN can do without: its matrix products over atoms alone, in preallocated memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from painn_fast.bench.problem import Problem
from painn_fast.nn.config import RepresentationConfig


def shapes(atoms: int, config: RepresentationConfig) -> Iterator[tuple[int, int, int]]:
    """(rows, in, out) of every product of a forward pass: message MLP, channel mix, update MLP, readout."""
    f = config.n_features
    for _ in range(config.n_layers):
        yield atoms, f, f
        yield atoms, f, 3 * f
        yield 3 * atoms, f, 2 * f
        yield atoms, 2 * f, f
        yield atoms, f, 3 * f
    yield atoms, f, f // 2
    yield atoms, f // 2, 1


PRODUCTS = {"forward": (1, 0, 0), "training_energy": (1, 1, 1), "training_step": (2, 2, 2)}
"""Of each mode, where the forward pass has one: for outputs, inputs and weights."""


def floor(problem: Problem) -> Callable[[], None]:
    """The products of one evaluation in the problem's mode.

    Forward: Y = X W^T. With forces also gX = gY W. Training on energies also gW = gY^T X: three products where the
    forward pass has one. Training on forces differentiates forward and backward pass, for the second ggY = ggX W^T and
    gW = gY^T ggX: six.
    """
    device, config = problem.potential.device, problem.potential.config.representation
    products = [_Product(*shape, str(device)) for shape in shapes(problem.batch.n_total, config)]
    forward, inputs, weights = PRODUCTS.get(problem.mode, (1, 1, 0))

    def call() -> None:
        for product in products:
            for _ in range(forward):
                torch.mm(product.x, product.weight.T, out=product.y)
            for _ in range(inputs):
                torch.mm(product.y, product.weight, out=product.gx)
            for _ in range(weights):
                torch.mm(product.y.T, product.x, out=product.gw)

    return call


class _Product:
    """x [rows, in], weight [out, in], y [rows, out] and the memory of the gradients, float32."""

    def __init__(self, rows: int, n_in: int, n_out: int, device: str) -> None:
        def random(*shape: int) -> Tensor:
            generator = torch.Generator().manual_seed(0)
            return torch.randn(shape, generator=generator).to(device) / n_in**0.5

        self.x, self.weight = random(rows, n_in), random(n_out, n_in)
        self.y, self.gx, self.gw = random(rows, n_out), torch.empty_like(self.x), torch.empty_like(self.weight)
