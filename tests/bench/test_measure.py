"""Times, memory, the floor, and the graph that peers are given."""

import sys
from types import SimpleNamespace

import pytest
import torch
from ase.build import molecule
from torch.utils.flop_counter import FlopCounterMode

from painn_fast.bench.cases import CASES, paper_model
from painn_fast.bench.floor import floor, shapes
from painn_fast.bench.measure import AT_LEAST, calls_per_sample, interleaved, peak_memory
from painn_fast.bench.peers import DimeNet, _check_slope, _triplets
from painn_fast.bench.problem import Problem, complaint, disagreement
from painn_fast.errors import PaiNNFastError
from painn_fast.graph import batch_atoms


def test_sides_take_turns():
    order, ticks = [], iter(range(100))
    works = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    times, last = interleaved(works, {"a": 1, "b": 2}, 3, lambda: float(next(ticks)))
    assert "".join(order) == "abb" * 3
    assert times == {"a": [1.0] * 3, "b": [0.5] * 3}, "a time is that of one call"
    assert last == {"a": 7, "b": 9}


def test_short_calls_are_repeated():
    assert calls_per_sample(AT_LEAST / 4) == 4
    assert calls_per_sample(10 * AT_LEAST) == 1
    assert 1 < calls_per_sample(0.0) < 1000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_the_peak_of_what_is_held():
    def set_up():
        kept = torch.ones(2**22)  # 16 MB

        def call():
            return (kept + 1.0).sum()  # 16 more

        return call

    size = 4 * 2**22
    assert 1.9 * size < peak_memory(set_up, torch.device("cpu")) < 2.5 * size, "the kernel counts by batches of pages"


def test_the_floor_has_every_product_over_atoms():
    potential = paper_model()
    problem = Problem(CASES["ethanol-1"], "forward", potential)
    config = potential.config.representation
    with FlopCounterMode(display=False) as counted, torch.no_grad(), potential.reference():
        potential(problem.batch, ("energy",))
    filters = 2 * len(problem.batch.receiver) * config.n_rbf * 3 * config.n_features * config.n_layers
    expected = counted.get_total_flops() - filters
    assert sum(2 * rows * a * b for rows, a, b in shapes(9, config)) == expected
    for mode, passes in {
        "forward": 1,
        "energy_forces": 2,
        "evaluate": 2,
        "calculator": 2,
        "training_step": 6,
        "training_energy": 3,
    }.items():
        problem.mode = mode
        with FlopCounterMode(display=False) as counted:
            floor(problem)()
        assert counted.get_total_flops() == passes * expected, mode


def test_triplets_are_all_paths_of_two_edges():
    batch = batch_atoms([molecule("CH3OH"), molecule("H2O")], 1.8, neighbors="list")
    i, j, *given = (column.tolist() for column in _triplets(SimpleNamespace(batch=batch)))
    edges = list(zip(i, j, strict=True))
    expected = {
        (a, b, d, edges.index((b, d)), edges.index((a, b))) for a, b in edges for c, d in edges if b == c and d != a
    }
    assert len(expected) > 10
    assert sorted(zip(*given, strict=True)) == sorted(expected)


@pytest.mark.slow
def test_dimenet_is_held_against_itself():
    pytest.importorskip("torch_geometric")
    problem = Problem(CASES["ethanol-1"], "energy_forces", paper_model())
    work = DimeNet().prepare(problem)
    got = work.read(work.call())
    assert complaint(disagreement(got, work.expected)) is None
    assert complaint(disagreement(got, problem.expected)) is not None, "it is another model"


def test_forces_that_are_not_the_slope_of_the_energy_are_noticed():
    positions = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).reshape(4, 3)

    def energy(moved):
        return float(moved.square().sum())

    _check_slope(energy, positions, -2.0 * positions)
    with pytest.raises(PaiNNFastError, match="not the slope"):
        _check_slope(energy, positions, -1.9999 * positions)
