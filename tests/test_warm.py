"""`painn-fast doctor --warm` leaves nothing to be compiled by the verbs."""

import json
import subprocess
import sys
import time

import pytest
import torch

from painn_fast import warm
from painn_fast.kernels.network import passes_cpu
from painn_fast.train import ahead

PASSES = ("forward", "reverse", "tangent", "dual_reverse")

HAS = """
import gc, json
from painn_fast.kernels.jit import _Function
compiled = [function for function in gc.get_objects() if isinstance(function, _Function)]
names = [f"{one.py_func.__qualname__}{signature}" for one in compiled for signature in one.signatures]
print(json.dumps(names))
"""
"""Compiled functions that a process has called, or compiled, with the types of their arguments."""

VERBS = """
from painn_fast.cli import main
import numpy as np
from ase.build import molecule
molecule("CH3CH2OH").write("ethanol.xyz")
rng = np.random.default_rng(0)
atoms = molecule("CH3CH2OH")
R = atoms.positions + 0.05 * rng.normal(size=(12, 9, 3))
np.savez("set.npz", R=R, z=atoms.numbers, E=rng.normal(size=12), F=0.1 * rng.normal(size=(12, 9, 3)),
         energy_unit="eV", length_unit="Ang")
with open("train.toml", "w") as file:
    file.write('max_epochs = 1\\n[[data]]\\nfile = "set.npz"\\n[representation]\\nn_features = 32\\nn_layers = 2\\n')
codes = [main(words.split()) for words in (
    "eval ethanol ethanol.xyz", "train train.toml", "md --model ethanol --beads 4 --ensemble pile-l --duration 2fs",
)]
assert codes == [0, 0, 0], codes
"""


def test_verbs_compile_nothing_after_it(tmp_path):
    every = "from painn_fast.warm import JOBS\nfor job in JOBS.values(): job()"  # in one process: one import of torch
    before, needed = (
        subprocess.run([sys.executable, "-c", code + HAS], check=True, capture_output=True, text=True, cwd=tmp_path)
        for code in (every, VERBS)
    )
    assert set(json.loads(needed.stdout.splitlines()[-1])) <= set(json.loads(before.stdout.splitlines()[-1]))


def test_the_last_gradients_are_compiled_without_the_passes_before_them(monkeypatch):
    called = []
    for name in PASSES:
        monkeypatch.setattr(passes_cpu, name, lambda *_, name=name: called.append(name))
    ordinary = {name: getattr(passes_cpu, name) for name in PASSES}
    warm.JOBS[ahead.AHEAD[0]]()
    assert set(called) == {"dual_reverse"}
    assert {name: getattr(passes_cpu, name) for name in PASSES} == ordinary


def test_what_is_compiled_ahead_of_a_training_is_work_of_the_module():
    assert set(ahead.AHEAD) <= set(warm.JOBS)
    command = ahead._command()
    assert command[:3] == [sys.executable, "-m", warm.__name__]


@pytest.mark.parametrize(("kept", "threads", "begins"), [(False, 2, True), (True, 2, False), (False, 1, False)])
def test_a_process_compiles_ahead_of_a_first_training_and_ends_with_it(tmp_path, monkeypatch, kept, threads, begins):
    script = "import os, sys, time\nopen(sys.argv[1], 'w').write(str(os.getpid()))\ntime.sleep(600)"
    started = []

    def command():
        started.append(True)
        return [sys.executable, "-c", script, str(tmp_path / "process")]

    monkeypatch.setattr(ahead, "_command", command)
    monkeypatch.setattr(ahead, "is_kept", lambda _: kept)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    with ahead.compiling_ahead():
        end = time.monotonic() + 60
        while begins and not (tmp_path / "process").exists() and time.monotonic() < end:
            time.sleep(0.01)
    assert (tmp_path / "process").exists() == begins
    assert len(started) == begins
    with ahead.compiling_ahead(wanted=False):
        assert len(started) == begins
