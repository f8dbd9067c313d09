"""Threads and streams that share a GPU engine, and what it leaves of a process's settings."""

import threading
from types import SimpleNamespace

import pytest
import torch
from ase.build import molecule

from painn_fast.graph import batch_atoms
from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential

pytest.importorskip("triton")

from painn_fast.engine import cuda_graph, gpu
from painn_fast.engine.gpu import GpuEngine

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
SMALL = RepresentationConfig(n_features=16, n_layers=2, n_rbf=3, cutoff=4.0)
MATMUL = torch.backends.cuda.matmul


@pytest.fixture
def engine():
    potential = random_potential(PotentialConfig(representation=SMALL, heads=(EnergyHead(),)), dtype=torch.float32)
    made = GpuEngine(potential.to(DEVICE))
    made.checked = True
    return made


@pytest.fixture
def users_choice():
    """TF32 allowed by the user, put back after the test."""
    before = MATMUL.allow_tf32
    MATMUL.allow_tf32 = True
    yield
    MATMUL.allow_tf32 = before


def work_of(engine, names=("H2O",)):
    batch = batch_atoms([molecule(name) for name in names], engine.potential.cutoff).to(DEVICE)
    return engine.workspace(batch), batch.positions


def test_engines_of_two_precisions_in_two_threads_leave_the_setting_of_the_process(users_choice):
    inside, entered = threading.Event(), []

    def other():
        inside.wait()
        with gpu._blas(tf32=True):
            entered.append(MATMUL.allow_tf32)

    thread = threading.Thread(target=other)
    thread.start()
    with gpu._blas(tf32=False):
        inside.set()
        thread.join(0.2)
        assert not entered
        assert not MATMUL.allow_tf32
    thread.join()
    assert entered == [True]
    assert MATMUL.allow_tf32  # without a lock the other thread puts back the False that it saw


def test_a_replay_does_not_touch_the_setting_of_the_process(engine, users_choice, monkeypatch):
    seen = {"captured": [], "replayed": []}

    def capture(run, device):
        run()
        return lambda: seen["replayed"].append(MATMUL.allow_tf32)

    monkeypatch.setattr(gpu, "captured", capture)
    monkeypatch.setattr(gpu, "launch_layers", lambda *_: seen["captured"].append(MATMUL.allow_tf32))
    given = work_of(engine)
    for _ in range(2):
        engine(*given, finite=False)
    assert seen == {"captured": [False], "replayed": [True, True]}


class Stream(SimpleNamespace):
    """A stream's side of the order: which streams it waited for."""

    def wait_stream(self, other):
        self.waited.append(other.name)


def test_a_stream_waits_for_the_one_that_used_the_memory_before(engine, monkeypatch):
    one, two = Stream(name="one", waited=[]), Stream(name="two", waited=[])
    now = [one]
    monkeypatch.setattr(cuda_graph.StreamOrder, "_current", lambda self: now[0])
    recorded = []
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: recorded.append(stream.name))
    engine._order = cuda_graph.StreamOrder(torch.device(DEVICE))
    engine(*work_of(engine), finite=False)
    engine(*work_of(engine), finite=False)
    assert (one.waited, two.waited, recorded) == ([], [], [])
    engine(*work_of(engine, ["CH3CH2OH"]), finite=False)  # memory of its own
    now[0] = two
    engine(*work_of(engine), finite=False)
    kept = sum(1 for plan in engine._plans.values() for _ in plan.memory.tensors())
    assert (one.waited, two.waited) == ([], ["one"])
    assert recorded == ["two"] * kept  # of all sizes: the next call on this stream may use the other
    now[0] = one
    engine(*work_of(engine, ["CH3CH2OH"]), finite=False)
    assert (one.waited, two.waited) == (["two"], ["one"])


@pytest.mark.skipif(not CUDA, reason="streams of a GPU")
def test_two_streams_of_a_gpu_get_the_results_of_one():
    config = PotentialConfig(representation=RepresentationConfig(n_features=128), heads=(EnergyHead(),))
    engine = GpuEngine(random_potential(config, dtype=torch.float32).to(DEVICE))
    work, positions = work_of(engine, ["CH3CH2OH"] * 200)
    moved = [positions + 0.01 * k for k in range(8)]
    for k, x in enumerate(moved):
        x[::9] += 0.02 * k
    expected = [engine(work, x)["forces"].clone() for x in moved]
    results = [None] * len(moved)
    torch.cuda.synchronize()

    def each(first):
        with torch.cuda.stream(torch.cuda.Stream()):
            for k in range(first, len(moved), 2):
                results[k] = engine(work, moved[k], finite=False)["forces"]
            torch.cuda.current_stream().synchronize()

    threads = [threading.Thread(target=each, args=(first,)) for first in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, (got, right) in enumerate(zip(results, expected, strict=True)):
        assert torch.equal(got, right), k
