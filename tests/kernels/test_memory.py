"""Nothing of size E x F: every allocation of training and of the engine, on a graph with very many edges an atom."""

import gc
import os
import tracemalloc
from contextlib import contextmanager
from dataclasses import dataclass

import ase
import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from painn_fast.bench.measure import peak_memory
from painn_fast.engine import engine_for
from painn_fast.evaluate import evaluate
from painn_fast.graph import batch_atoms
from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig, fused
from painn_fast.testing import random_potential

F, K = 128, 4
DEVICE = os.environ["KERNELS_ON"]
CPU = torch.device("cpu")


def cluster(sides, spacing):
    """Hydrogen on a cubic lattice, not quite."""
    atoms = ase.Atoms(f"H{np.prod(sides)}", spacing * np.indices(sides).reshape(3, -1).T)
    atoms.rattle(0.05, seed=0)
    return atoms


DENSE, SPARSE = cluster((5, 5, 4), 0.9), cluster((5, 5, 4), 4.0)
BATCH, FEW = (batch_atoms([atoms], 5.0, neighbors="list") for atoms in (DENSE, SPARSE))
N, E = BATCH.n_total, len(BATCH.receiver)
EDGES_BY_FEATURES = 4 * E * F
"""Bytes of float32."""
MOST = EDGES_BY_FEATURES // 3
"""Bytes that no tensor of N x 9 F or E x (K + 9) exceeds, the basis padded to whole vectors of 16."""


def potential(backend):
    config = RepresentationConfig(n_features=F, n_layers=2, n_rbf=K)
    model = random_potential(PotentialConfig(representation=config, heads=(EnergyHead(),)), dtype=torch.float32)
    model.backend = backend
    return model


@dataclass
class Allocated:
    """Bytes of the largest tensor, and those that NumPy's arrays had together when they had most."""

    tensor: int = 0
    arrays: int = 0


@contextmanager
def watch():
    """Whatever torch takes from its allocator, inside operations too, and whatever NumPy takes."""
    seen = Allocated()
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        try:
            yield seen
            seen.arrays = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
    events = profiled.profiler.kineto_results.events()
    seen.tensor = max((event.nbytes() for event in events if event.name() == "[memory]"), default=0)


def check(work, many, few):
    """No tensor of E x F, and none of NumPy's arrays: as much of these with many edges as with few."""
    for graph in (many, many, few):  # numba compiles, also what a second call takes; the engine checks itself
        work(graph)
    seen = []
    for graph in (many, few):
        with watch() as one:
            work(graph)
        seen.append(one)
    assert seen[0].tensor < MOST, f"a tensor of {seen[0].tensor / EDGES_BY_FEATURES:.2f} E x F"
    grown = seen[0].arrays - seen[1].arrays
    assert grown < MOST, f"arrays of {grown / EDGES_BY_FEATURES:.2f} E x F"


def train(model, batch):
    """Energies, forces, and gradients of a loss of both."""
    results = model(batch, ("energy", "forces"), create_graph=True)
    (results["energy"].sum() + results["forces"].square().sum()).backward()


def test_the_graph_tells_edges_from_atoms():
    assert MOST > 4 * 9 * N * F
    assert MOST > 4 * E * (K + 9)
    assert MOST > 4 * E * 2 * 16  # the basis and its tangent
    assert EDGES_BY_FEATURES > 4e6
    assert len(FEW.receiver) < E / 10


def test_the_watcher_sees_torch_and_numpy_and_inside_of_operations():
    with watch() as seen:
        pass
    assert max(seen.tensor, seen.arrays) < 1e5
    with watch() as seen:
        torch.empty(300_000).view(2, -1)
    assert 1.2e6 <= seen.tensor < 1.3e6
    with watch() as seen:
        np.zeros(400_000)
    assert 3.2e6 <= seen.arrays < 3.3e6

    @torch.library.custom_op("test_memory::inside", mutates_args=())
    def inside(x: torch.Tensor) -> torch.Tensor:
        return x.new_empty(600_000)[:1].clone()

    with watch() as seen:
        inside(torch.zeros(1))
    assert 2.4e6 <= seen.tensor < 2.5e6


def test_a_training_step_allocates_nothing_of_edges_by_features():
    model = potential("fused")
    check(lambda batch: train(model, batch), BATCH, FEW)


def test_the_reference_does():
    with watch() as seen:
        train(potential("reference"), BATCH)
    assert seen.tensor >= 3 * EDGES_BY_FEATURES


def test_a_training_step_on_a_gpu_allocates_nothing_of_edges_by_features(monkeypatch):
    """Without its kernels, whose results do not matter here."""
    pytest.importorskip("triton")
    from painn_fast.kernels.message import triton, triton_adjoint, triton_second

    launched = []
    for module in (triton, triton_adjoint, triton_second):
        monkeypatch.setattr(module, "launch", lambda name, *_, **__: launched.append(name))
    monkeypatch.setattr(fused, "BY_OPERATION", {"cpu"})
    model = potential("fused")
    check(lambda batch: train(model, batch), BATCH, FEW)
    names = {"fwd", "bwd", "weight_bwd", "tangent", "bwd_tangent", "weight_bwd_tangent"}
    assert set(launched) == {f"message_{name}" for name in names}


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_peak_memory_of_training_on_a_gpu_grows_with_edges_by_features_in_the_reference_alone(backend):
    model, peaks, edges = potential(backend).cuda(), [], []
    for batch in (FEW, BATCH):
        assert len(batch.mirror)
        batch = batch.to("cuda")
        train(model, batch)
        peaks.append(peak_memory(lambda: lambda: train(model, batch), torch.device("cuda")))  # noqa: B023 - called now
        edges.append(len(batch.receiver))
    grown = (peaks[1] - peaks[0]) / (4 * F * (edges[1] - edges[0]))
    assert grown > 10 if backend == "reference" else grown < 3, f"{grown:.1f} E x F"


def test_evaluating_with_the_engine_allocates_nothing_of_edges_by_features():
    model = potential("auto")
    check(lambda atoms: evaluate(model, [atoms], backend="fused"), DENSE, SPARSE)
    with watch() as seen:
        evaluate(model, [DENSE], backend="reference")
    assert seen.tensor >= 3 * EDGES_BY_FEATURES


def peak_of_process(model, batch, backend):
    """Bytes, numba's and the BLAS's included."""
    if backend == "fused":
        engine = engine_for(model, "fused")
        work = engine.workspace(batch)
        peak = peak_memory(lambda: lambda: engine(work, batch.positions), CPU)
    else:
        with model.reference():
            peak = peak_memory(lambda: lambda: model(batch), CPU)
    if peak is None:
        pytest.skip("this system does not report it")
    return peak


@pytest.mark.slow
def test_peak_memory_of_the_engine_does_not_grow_with_edges_by_features():
    model = potential("auto")
    edges, grown = 4 * F * (E - len(FEW.receiver)), {}
    for backend in ("fused", "reference"):
        peaks = []
        for batch in (FEW, BATCH):
            peak_of_process(model, batch, backend)  # compiles
            peaks.append(min(peak_of_process(model, batch, backend) for _ in range(3)))
        grown[backend] = (peaks[1] - peaks[0]) / edges
    assert grown["reference"] > 5, grown
    assert grown["fused"] < 0.5, grown
