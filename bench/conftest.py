"""What the suites share: the device, the model, and the rule that wrong numbers have no time."""

import time
from contextlib import suppress

import pytest
import torch

from painn_fast.bench.cases import CASES, paper_model
from painn_fast.bench.peers import DimeNet, SchNetPack
from painn_fast.bench.problem import Problem, complaint, disagreement
from painn_fast.bench.sides import Fused, Reference
from painn_fast.errors import PaiNNFastError

ROUND = 0.05
"""Seconds of a sample: as many calls as fill it, so that caches are as warm as in use."""
SIDES = {side.name: side for side in (Fused, Reference, SchNetPack, DimeNet)}


def pytest_addoption(parser):
    with suppress(ValueError):  # tests/ has it too
        parser.addoption("--device", default="cpu", help="cpu or cuda")
    parser.addoption("--max-atoms", type=int, default=1_000, help="larger cases are skipped")


@pytest.fixture(scope="session")
def device(request):
    """Name of the device to measure on."""
    name = request.config.getoption("--device")
    if name != "cpu" and not torch.cuda.is_available():
        pytest.exit(f"--device {name}: torch finds no such device", returncode=4)
    return name


@pytest.fixture(scope="session")
def potential(device):
    return paper_model(device)


@pytest.fixture(params=SIDES)
def side(request):
    return SIDES[request.param]()


@pytest.fixture
def timed(benchmark, device):
    """Time a call, seven samples; whatever is queued on the device is waited for."""

    def run(call, **facts):
        def waited():
            call()
            if device == "cuda":
                torch.cuda.synchronize()

        waited()
        waited()
        start = time.perf_counter()
        waited()
        calls = max(1, round(ROUND / (time.perf_counter() - start)))
        benchmark.extra_info |= {"torch": torch.__version__, "threads": torch.get_num_threads(), **facts}
        benchmark.pedantic(waited, rounds=7, iterations=calls)

    return run


@pytest.fixture
def measure(benchmark, timed, potential, request):
    """Hold a side's numbers against the float64 reference, then time it."""

    def run(name, mode, side):
        case = CASES[name]
        if case.atoms > request.config.getoption("--max-atoms"):
            pytest.skip(f"{case.atoms} atoms, --max-atoms is less")
        problem = Problem(case, mode, potential)
        if not side.supports(problem):
            pytest.skip(f"{side.title} is not for this case")
        try:
            work = side.prepare(problem)
        except (ImportError, PaiNNFastError) as error:
            pytest.skip(f"{side.title} is not available: {error}")
        wrong = complaint(disagreement(work.read(work.call()), work.expected or problem.expected))
        assert wrong is None, f"{side.title}: {wrong}"
        benchmark.group = f"{mode}, {name}"
        timed(work.call, atoms=problem.batch.n_total, edges=len(problem.batch.receiver))

    return run
