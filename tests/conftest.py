"""What every test shares: where the data are, where GPU kernels run, one thread, fixed seeds."""

import functools
import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        choices=("cpu", "cuda", "emulator"),
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where Triton kernels run: on a GPU, the default if there is one; on the CPU, interpreted; or on the CPU "
        "what Triton compiles for a GPU, with a search for races",
    )


def pytest_configure(config):
    """Triton reads the environment when it is imported; test modules learn their device from there."""
    device = config.getoption("--device")
    if device == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda: torch finds no CUDA device")
    os.environ["KERNELS_ON"] = "cuda" if device == "cuda" else "cpu"
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    else:
        os.environ.pop("TRITON_INTERPRET", None)
    config.emulator = import_module("emulator.driver").activate() if device == "emulator" else None
    config.pluginmanager.register(import_module("vibrating_molecules"))  # its fixtures, of several folders of tests


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Skip what the interpreter of Triton 3.6 cannot run: it turns arrays of one element into numbers."""
    report = yield
    error = None if call.excinfo is None else str(call.excinfo.value)
    if error and call.excinfo.typename == "InterpreterError" and "only 0-dimensional arrays" in error:
        reason = "Triton's interpreter before 3.7 does not run with NumPy 2.4 and later"
        report.outcome, report.longrepr = "skipped", (str(item.path), item.location[1], reason)
    return report


@pytest.fixture(scope="session")
def own_data() -> Path:
    """Folder of the data that the repository has."""
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the data sets and SchNetPack models that are not in the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data in {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors are fastest on one thread, and sums come out the same everywhere."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def memory_that_nothing_has_written(request):
    """In the emulator, new memory holds what no kernel may read."""
    if request.config.emulator is None:
        yield
    else:
        with import_module("emulator.driver").Poisoned():
            yield


@pytest.fixture(autouse=True)
def fixed_seeds(one_thread):
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  ase.md draws from the global generator


@pytest.fixture(scope="session", params=["standin", *(["real"] if find_spec("schnetpack") else [])])
def spk(request) -> ModuleType:
    """Modules with SchNetPack's names and structure; besides them SchNetPack's own, where it is installed."""
    standin = import_module("standin_schnetpack")
    if request.param == "standin":
        return standin
    real = import_module("real_schnetpack")
    real.batch, real.model = standin.batch, functools.partial(standin.model, parts=real)
    return real
