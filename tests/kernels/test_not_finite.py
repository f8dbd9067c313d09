"""What is not finite stays so: only a distance that reaches the cut-off takes a pair out of a sum."""

import math
import os

import numpy as np
import pytest
import torch
from ase.build import molecule

from painn_fast.graph import batch_atoms
from painn_fast.kernels.message import ops
from painn_fast.kernels.message.pairs_cpu import message_bwd, message_fwd, pair_geometry
from painn_fast.kernels.neighbors import cpu, reference, triton
from painn_fast.kernels.radial.reference import Radial, cutoff_function
from painn_fast.kernels.radial.slopes import filter_basis_and_slope
from painn_fast.kernels.radial.table import tabulate
from painn_fast.kernels.simd import LANES
from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig, fused
from painn_fast.testing import random_potential

pytest.importorskip("triton")

from painn_fast.kernels.message import triton as kernels
from painn_fast.kernels.message import triton_adjoint, triton_second

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{warning}:RuntimeWarning") for warning in ("invalid value", "divide by zero")
]
"""Of NumPy, in which Triton's interpreter computes."""
DEVICE = os.environ["KERNELS_ON"]
NEIGHBORS = {"reference": (reference, "cpu"), "numba": (cpu, "cpu"), "triton": (triton, DEVICE)}
REACH, FEATURES = 2.6, 16
CUTOFFS = ("cosine", "mollifier", "switch")
BAD = {"coincide": 0.0, "NaN": math.nan}
"""What a component of the vector between two atoms is, if all are the same."""


def radial(basis="sinc", cutoff="cosine", dtype=torch.float64):
    first = torch.arange(1, 5, dtype=dtype) * (math.pi / REACH) if basis == "sinc" else torch.linspace(0.3, 2.6, 4)
    return Radial(basis, first.to(DEVICE, dtype), torch.full((4,), 0.5, dtype=dtype).to(DEVICE), cutoff, REACH, 0.8)


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("basis", ["sinc", "gaussian"])
def test_cutoff_functions_of_no_distance_are_no_number(basis, cutoff):
    d = torch.tensor([1.0, math.nan, REACH, 1e6], dtype=torch.float64)
    given = Radial(basis, radial(basis).first.cpu(), radial(basis).widths.cpu(), cutoff, REACH, 0.8)
    fc = cutoff_function(d, given)
    assert fc[0] > 0
    assert fc[1].isnan()
    assert fc[2:].tolist() == [0.0, 0.0]
    for values in filter_basis_and_slope(d, given):
        assert values[1].isnan().all()
        assert values[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("cutoff", [3.2, math.inf])
@pytest.mark.parametrize("backend", NEIGHBORS)
def test_an_atom_without_a_position_keeps_its_neighbours_and_the_list_its_symmetry(backend, cutoff, bad):
    if backend == "triton" and math.isinf(cutoff):
        pytest.skip("a list with a cut-off")
    module, device = NEIGHBORS[backend]
    positions = torch.tensor(np.concatenate([molecule("H2O").positions, molecule("CH4").positions]))
    positions[1, 2] = bad
    atom_ptr = torch.tensor([0, 3, 8])
    row_ptr, sender, mirror = (t.cpu() for t in module.neighbors(positions.to(device), atom_ptr.to(device), cutoff))
    receiver = torch.repeat_interleave(torch.arange(8), row_ptr.diff())
    assert sender[receiver == 1].tolist() == [0, 2]
    assert torch.equal(receiver[mirror], sender)
    assert torch.equal(sender[mirror], receiver)
    assert len(sender) == 3 * 2 + 5 * 4


def problem(value, dtype=torch.float64):
    """Water, with a vector that is not finite, and hydrogen; x, v, r, weight, gs, gv and tangents of the first."""
    batch = batch_atoms([molecule("H2O"), molecule("H2")], 5.0)
    generator = torch.Generator().manual_seed(0)
    n, e, f = batch.n_total, len(batch.sender), FEATURES

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype)

    r = batch.edge_vectors().to(DEVICE, dtype)
    edge = 0
    r[edge] = r[batch.mirror[edge]] = value
    x, v, weight, gs, gv = random(n, 3 * f), random(n, 3, f), random(5, 3 * f), random(n, f), random(n, 3, f)
    tangents = random(n, 3 * f), random(n, 3, f), random(e, 3), random(5, 3 * f)
    graph = [t.to(DEVICE) for t in (batch.row_ptr, batch.sender, batch.mirror)]
    return batch, (x, v, r, weight), (gs, gv), tangents, graph


@pytest.mark.parametrize(("basis", "cutoff"), [("sinc", "cosine"), ("gaussian", "mollifier"), ("sinc", "switch")])
@pytest.mark.parametrize("bad", BAD)
def test_messages_of_a_gpu_and_all_their_adjoints_keep_such_an_edge(bad, basis, cutoff):
    batch, inputs, adjoints, tangents, (row_ptr, sender, mirror) = problem(BAD[bad])
    x, v, r, _ = inputs
    graph = radial(basis, cutoff), row_ptr, sender
    i, j = int(batch.receiver[0]), int(batch.sender[0])
    atoms = {
        "dv": kernels.message_fwd(*inputs, *graph)[1],
        "force": kernels.message_force_bwd(*adjoints, *inputs, *graph)[2],
        "gx": triton_adjoint.message_bwd(*adjoints, *inputs, *graph, mirror)[0],
        "tdv": triton_second.message_tangent(*inputs, *tangents, *graph)[1],
        "hx": triton_second.message_bwd_tangent(*adjoints, *inputs, *tangents, *graph, mirror)[0],
    }
    hydrogen = slice(3, 5)
    for name, values in atoms.items():
        for atom in (i, j):
            assert values[atom].isnan().any(), f"{name} of atom {atom}"
        assert values[hydrogen].isfinite().all(), name
    gr = triton_adjoint.message_bwd(*adjoints, *inputs, *graph, mirror)[2]
    assert gr[0].isnan().all()
    assert triton_adjoint.message_weight_bwd(*adjoints, x, v, r, *graph).isnan().any()
    assert triton_second.message_weight_bwd_tangent(*adjoints, x, v, r, *tangents[:3], *graph).isnan().any()


@pytest.mark.parametrize("bad", BAD)
def test_messages_keep_it_as_an_operation_of_torch(bad):
    batch, (x, v, r, weight), _, _, graph = problem(BAD[bad])
    leaf = r.clone().requires_grad_()
    ds, dv = ops.message(x, v, weight, ops.Edges(leaf, radial(), *graph))
    (gr,) = torch.autograd.grad(ds.sum() + dv.sum(), leaf)
    assert dv[int(batch.receiver[0])].isnan().any()
    assert gr[0].isnan().all()
    assert dv[3:].isfinite().all()


@pytest.mark.parametrize("activation", ["silu", "shifted_softplus"])
@pytest.mark.parametrize("bad", BAD)
def test_a_network_on_a_cpu_keeps_it(bad, activation):
    representation = RepresentationConfig(n_features=LANES, n_layers=2, n_rbf=4, activation=activation)
    potential = random_potential(PotentialConfig(representation=representation, heads=(EnergyHead(),)))
    batch = batch_atoms([molecule("H2O"), molecule("H2")], 5.0)
    r = batch.edge_vectors()
    r[0] = r[batch.mirror[0]] = BAD[bad]
    leaf = r.clone().requires_grad_()
    s, v, _ = fused.features(potential.representation, batch, leaf)
    (gr,) = torch.autograd.grad(s.sum() + v.sum(), leaf)
    assert s[:3].isnan().any()
    assert gr[0].isnan().all()
    assert s[3:].isfinite().all()


def test_features_that_are_not_finite_do_not_pass_the_cutoff():
    _, (x, v, r, weight), (gs, gv), _, (row_ptr, sender, _) = problem(1.9)  # 3.3 from each other are atoms 0 and 1
    x[1] = math.nan
    graph = radial(), row_ptr, sender
    ds, _ = kernels.message_fwd(x, v, r, weight, *graph)
    force = kernels.message_force_bwd(gs, gv, x, v, r, weight, *graph)[2]
    for values in (ds, force):
        assert values[0].isfinite().all()
        assert values[2].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("position", [[0.0, 0.0, 0.0], [math.nan, 0.0, 0.0], [math.inf, 0.0, 0.0], [1e200, 0.0, 0.0]])
def test_pairs_of_the_cpu_engine_answer_with_nan_and_without_an_exception(position, dtype):
    positions = np.array([[0.0, 0.0, 0.0], position, [0.0, 0.0, 1.1], [0.0, 0.0, 9.0]])
    receiver, sender = np.array([0, 0, 0]), np.array([1, 2, 3])
    shift, features = np.zeros((3, 3)), LANES
    table = tabulate(radial(dtype=torch.float64), torch.ones(5, 3 * features, dtype=torch.float64), dtype=dtype)
    kind = table.rows.numpy().dtype
    direction, distance, spline = np.zeros((3, 3), kind), np.zeros(3, kind), np.zeros((3, 12), kind)
    knot = np.zeros(3, np.int64)
    pair_geometry(
        positions, receiver, sender, shift, 1.0, table.start, table.spacing, table.cutoff, direction, distance, knot,
        spline,
    )  # fmt: skip
    assert knot.tolist() == [0, knot[1], -1]
    assert 0 < knot[1] < len(table.rows) - 1
    assert np.isnan(direction[0]).any() or np.isnan(spline[0]).all()
    assert np.isfinite(direction[1:]).all()
    x, v, gs, gv = (np.ones((4, k * features), kind) for k in (3, 3, 1, 3))
    ds, dv = np.zeros((4, features), kind), np.zeros((4, 3 * features), kind)
    rows = table.rows.numpy()
    message_fwd(x, v, rows, receiver, sender, direction, knot, spline, True, ds, dv)
    assert np.isnan(dv[:2]).any(axis=1).all()
    assert np.isfinite(dv[2:]).all()
    gx, gv_out, pull = np.zeros_like(x), np.zeros_like(v), np.zeros((3, 3))
    filters = np.empty((2, rows.shape[1]), rows.dtype)
    message_bwd(
        x, v, gs, gv, rows, table.spacing, receiver, sender, direction, distance, knot, spline, True, filters, gx,
        gv_out, pull,
    )  # fmt: skip
    assert np.isnan(pull[0]).any()
    assert np.isfinite(pull[1:]).all()
