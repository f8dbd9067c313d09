"""Edge vectors, and forces and virials from their adjoint: Triton, or its interpreter, equals plain torch."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from painn_fast.graph import batch_atoms
from painn_fast.testing import assert_close

pytest.importorskip("triton")

from painn_fast.kernels.edges import reference, triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GRAPHS = {
    "no edges": [Atoms("H")],
    "molecules": [molecule("CH3CH2OH"), Atoms("H"), molecule("H2O")],
    "more than a program": [bulk("Cu", cubic=True)],
}


@pytest.fixture(params=GRAPHS)
def batch(request):
    return batch_atoms(GRAPHS[request.param], 5.0).to(DEVICE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_edge_vectors(batch, dtype):
    r = torch.full((len(batch.sender), 3), float("nan"), dtype=dtype, device=DEVICE)
    far = batch.positions + 1000.0  # cancels before it is rounded
    triton.edge_vectors(far, batch.receiver, batch.sender, batch.shift, 1.1, r)
    expected = reference.edge_vectors(far, batch.receiver, batch.sender, batch.shift, 1.1)
    assert_close(r.cpu(), expected.cpu(), 1e-12 if dtype == torch.float64 else 1e-7)


def test_forces_and_virials(batch):
    r = batch.edge_vectors()
    gr = torch.sin(3 * r)
    gr += 0.1 * torch.cos(torch.arange(len(gr), device=DEVICE))[:, None]  # edge and mirror differ
    force = torch.full_like(batch.positions, float("nan"))
    virial = torch.full((batch.n_total, 3, 3), float("nan"), dtype=torch.float64, device=DEVICE)
    triton.edge_forces(gr.float(), r.float(), batch.row_ptr, batch.mirror, force, virial)
    expected = reference.edge_forces(gr.float(), r.float(), batch.receiver, batch.sender, batch.n_total)
    assert_close(force.cpu(), expected[0].cpu(), 1e-12, "force")
    assert_close(virial.cpu(), expected[1].cpu(), 1e-12, "virial")
