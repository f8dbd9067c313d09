"""The engine's message kernels equal their reference and its derivatives, for pairs and filters of a table."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from painn_fast.graph import batch_atoms
from painn_fast.kernels.message.pairs_cpu import message_bwd, message_fwd, pair_geometry
from painn_fast.kernels.message.reference import message_of_filter
from painn_fast.kernels.radial.reference import Radial, filter_basis
from painn_fast.kernels.radial.table import tabulate
from painn_fast.kernels.simd import LANES
from painn_fast.testing import assert_close

CUTOFF = 3.2
CRYSTAL = bulk("MgO", "rocksalt", a=3.6)
CRYSTAL.rattle(0.1, seed=0)  # at a symmetric site messages cancel
STRUCTURES = {
    "one atom": [Atoms("H")],
    "beyond the cut-off": [Atoms("H2", [[0, 0, 0], [0, 0, 9.0]])],
    "molecules": [molecule("CH3CH2OH"), Atoms("H"), molecule("H2O")],
    "crystal, atoms that neighbour their own images": [CRYSTAL],
}


RADIAL = Radial("sinc", torch.arange(1, 7) * torch.pi / CUTOFF, torch.ones(6), "cosine", CUTOFF)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-5)])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("vectors", [True, False])
def test_messages_and_what_they_pull_equal_autograd(structure, vectors, dtype, tolerance):
    features = 3 * LANES
    batch = batch_atoms(STRUCTURES[structure], CUTOFF)
    generator = torch.Generator().manual_seed(0)
    n = batch.n_total

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight = random(7, 3 * features)
    table = tabulate(RADIAL, weight, dtype=dtype)
    x, gs, gv = random(n, 3 * features).requires_grad_(), random(n, features), random(n, 3, features)
    v = (random(n, 3, features) * vectors).requires_grad_()
    r = batch.edge_vectors().requires_grad_()
    d = torch.linalg.vector_norm(r, dim=1)
    expected = message_of_filter(x, v, filter_basis(d, RADIAL) @ weight, r / d[:, None], batch.receiver, batch.sender)
    gx, g_v, gr = torch.autograd.grad(expected, (x, v, r), (gs, gv), allow_unused=True, materialize_grads=True)

    pairs = torch.nonzero(torch.arange(len(r)) < batch.mirror)[:, 0]
    receiver, sender, shift = (t[pairs].numpy() for t in (batch.receiver, batch.sender, batch.shift))
    given = [t.detach().to(dtype).flatten(1).numpy() for t in (x, v, gs, gv)]
    kind, p = given[0].dtype, len(pairs)
    direction, distance, spline = np.zeros((p, 3), kind), np.zeros(p, kind), np.zeros((p, 12), kind)
    knot, rows = np.zeros(p, np.int64), table.rows.numpy()
    pair_geometry(
        batch.positions.numpy(), receiver, sender, shift, 1.0, table.start, table.spacing, table.cutoff, direction,
        distance, knot, spline,
    )  # fmt: skip
    ds, dv = np.zeros((n, features), kind), np.zeros((n, 3 * features), kind)
    message_fwd(given[0], given[1], rows, receiver, sender, direction, knot, spline, vectors, ds, dv)
    assert_close(ds, expected[0].detach(), tolerance, "ds")
    assert_close(dv, expected[1].detach().flatten(1), tolerance, "dv")

    to_x, to_v, pull = np.zeros_like(given[0]), np.zeros_like(given[1]), np.zeros((p, 3))
    filters = np.empty((2, rows.shape[1]), rows.dtype)
    message_bwd(
        *given, rows, table.spacing, receiver, sender, direction, distance, knot, spline, vectors, filters, to_x, to_v,
        pull,
    )  # fmt: skip
    if p:
        assert_close(pull, -(gr - gr[batch.mirror])[pairs], 100 * tolerance, "pull")
    if vectors:
        assert_close(to_x, gx, tolerance, "gx")
        assert_close(to_v, g_v.flatten(1), tolerance, "gv")
