"""Kernels are executed as a GPU would have them, in a process of their own; none is left out."""

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

import painn_fast.kernels
from emulator.subjects import subjects

ROOT = Path(__file__).parents[2]


def kernels():
    """Names of all functions that are launched, by module."""
    listed = {}
    for found in pkgutil.walk_packages(painn_fast.kernels.__path__, "painn_fast.kernels."):
        if found.name.rpartition(".")[2].startswith("triton"):
            module = importlib.import_module(found.name)
            own = [name for name, thing in vars(module).items() if hasattr(thing, "arg_names")]
            listed[found.name] = {name for name in own if vars(module)[name].fn.__module__ == found.name}
    return listed


def test_every_kernel_has_a_subject():
    executed = set().union(*(subject.kernels for subject in subjects().values()))
    launched = {name for names in kernels().values() for name in names if name.endswith("_kernel")}
    assert not launched - executed, "kernels without a subject in tests/emulator/subjects.py"
    assert not executed - launched, "subjects of kernels that do not exist"


def test_what_is_launched_is_called_a_kernel():
    """Hence the list above is complete."""
    for module, names in kernels().items():
        text = Path(importlib.import_module(module).__file__).read_text(encoding="utf-8")
        launched = {name for name in names if f"{name}[" in text or f"({name}," in text}
        assert {name for name in launched if not name.endswith("_kernel")} == set(), module


@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_kernels_as_a_gpu_has_them_are_right(which, request):
    if request.config.emulator is not None:
        pytest.skip("this is that process")
    command = [sys.executable, "-m", "pytest", "-q", "--device", "emulator", "-m", which, "-p", "no:cacheprovider"]
    files = [str(Path(__file__).with_name(name)) for name in ("test_kernels.py", "test_controls.py")]
    run = subprocess.run([*command, *files], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-20000:] + run.stderr[-2000:]
