"""The fused operations one by one beside plain torch: `pytest bench/test_operations.py`.

Each of forward, backward and double backward is held against plain torch in float64 before it is timed.
"""

import math
from dataclasses import replace

import pytest
import torch

from painn_fast.bench.cases import CASES
from painn_fast.graph import batch_atoms
from painn_fast.kernels.message.ops import Edges, message
from painn_fast.kernels.message.reference import message as plain_message
from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.update import ops as update
from painn_fast.testing import assert_close

F, N_RBF, CUTOFF, EPSILON = 128, 20, 5.0, 1e-8
TOLERANCE = {"forward": 1e-4, "backward": 1e-4, "double backward": 1e-3}
"""Of float32, relative to the largest value."""


class Message:
    """(x, v, r, weight) to (ds, dv) on the graph of a batch."""

    def __init__(self, batch, device):
        self.batch = batch.to(device)
        first = torch.arange(1, N_RBF + 1, dtype=torch.float64, device=device) * (math.pi / CUTOFF)
        self.radial = Radial("sinc", first, torch.ones_like(first), "cosine", CUTOFF)

    def inputs(self, random):
        n = self.batch.n_total
        r = self.batch.edge_vectors()
        return [random(n, 3 * F), random(n, 3, F), r, random(N_RBF + 1, 3 * F) / math.sqrt(N_RBF)]

    def _radial(self, dtype):
        return replace(self.radial, first=self.radial.first.to(dtype), widths=self.radial.widths.to(dtype))

    def reference(self, x, v, r, weight):
        return plain_message(x, v, r, weight, self._radial(x.dtype), self.batch.receiver, self.batch.sender)

    def fused(self):
        radial, graph = self._radial(torch.float32), (self.batch.row_ptr, self.batch.sender, self.batch.mirror)
        return lambda x, v, r, weight: message(x, v, weight, Edges(r, radial, *graph))


class Norm:
    """(s, [V, W]) to ([s, |V|], <V, W>)."""

    def __init__(self, batch, device):
        self.atoms = batch.n_total

    def inputs(self, random):
        return [random(self.atoms, F), random(self.atoms, 3, 2 * F)]

    def reference(self, s, vw):
        V, W = vw.chunk(2, dim=-1)
        return torch.cat([s, torch.sqrt((V**2).sum(1) + EPSILON)], dim=-1), (V * W).sum(1)

    def fused(self):
        return lambda s, vw: update.norm(s, vw, EPSILON)


class Gate:
    """(s, v, (A, B, G), [V, W], <V, W>) to (s + A + G <V, W>, v + B W)."""

    def __init__(self, batch, device):
        self.atoms = batch.n_total

    def inputs(self, random):
        n = self.atoms
        return [random(n, F), random(n, 3, F), random(n, 3 * F), random(n, 3, 2 * F), random(n, F)]

    def reference(self, s, v, y, vw, dot):
        A, B, G = y.chunk(3, dim=-1)
        return s + A + G * dot, v + B[:, None] * vw[..., F:]

    def fused(self):
        return update.gate


def derivative(operation, inputs, order):
    """Results of an operation, of the gradient of half their square, or of the gradient of half the square of that."""
    values = operation(*inputs)
    for _ in range(ORDERS.index(order)):
        scalar = 0.5 * sum(value.square().sum() for value in values)
        values = torch.autograd.grad(scalar, inputs, create_graph=order == "double backward", materialize_grads=True)
    return values


ORDERS = tuple(TOLERANCE)
OPERATIONS = {"message": Message, "norm": Norm, "gate": Gate}


@pytest.mark.parametrize("case", ["ethanol-64", "water-216"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_operation(benchmark, timed, device, name, order, backend, case):
    if backend == "fused" and device == "cpu":
        pytest.skip("on a CPU the whole network is one operation")
    batch = batch_atoms(CASES[case].structures(), CUTOFF, neighbors="list")
    subject = OPERATIONS[name](batch, device)
    generator = torch.Generator().manual_seed(0)
    exact = subject.inputs(lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64).to(device))
    inputs = [value.float() for value in exact]
    for value in (*exact, *inputs):
        value.requires_grad_(order != "forward")
    operation = subject.fused() if backend == "fused" else subject.reference
    expected = derivative(subject.reference, exact, order)
    for got, right in zip(derivative(operation, inputs, order), expected, strict=True):
        assert_close(got.detach().cpu(), right.detach().cpu(), TOLERANCE[order], f"{name}, {order}")
    benchmark.group = f"{name}, {order}, {case}"
    timed(lambda: derivative(operation, inputs, order), atoms=batch.n_total, edges=len(batch.receiver))
