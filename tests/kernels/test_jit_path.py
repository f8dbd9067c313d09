"""The path to a GPU without one: what is compiled and when; a capture compiles, allocates and waits for nothing.

A driver that stands for an H200 takes part in Triton's own path, from the launcher through its specialisation.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("triton")

from painn_fast.kernels.tools import model

SCRIPT = Path(__file__).with_name("jit_path.py")
SIZES = ["sizes", "training"]
ENGINES = [f"engine {words}" for words in ("ieee fused", "tf32x3 fused", "bf16 fused", "ieee blas", "bf16 blas")]
DYNAMICS = [
    f"dynamics {words}"
    for words in ("CH3CH2OH nve 32 1", "CH3CH2OH pile-g 3 16", "C6H6 pile-l 2 128", "CH3CH2OH+H2O pile-l 3 5")
]
WHOLE = "whole_steps"
COMPILED = "--compile dynamics H2O pile-l 2 2"


@pytest.fixture(scope="module")
def results():
    """Of all scenarios, in a process where kernels are not interpreted."""
    listed = [*SIZES, *ENGINES, *DYNAMICS, COMPILED, WHOLE]
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, SCRIPT, *listed]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return dict(zip(listed, map(json.loads, run.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", SIZES)
def test_other_sizes_of_a_batch_compile_nothing(results, name):
    first, *later = results[name]["compiled"]
    assert len(first) > 10
    assert later == [[]] * len(later)


@pytest.mark.parametrize("name", ENGINES)
def test_an_evaluation_is_captured_without_compiling_allocating_or_waiting(results, name):
    got = results[name]
    first, *later = got["compiled"]
    fused = name.endswith("fused")
    assert len(first) >= (7 if fused else 11)
    others = {"layer_fwd_kernel", "layer_bwd_kernel"} if name == "engine ieee fused" else set()
    assert {kernel for one in later for kernel in one} <= others  # programs of more atoms, before they are captured
    assert later[1:] == [[]] * (len(later) - 1)  # other sizes of memory, and other batches in it
    assert len(got["captures"]) == 2 * 4  # energies, energies and forces; 9, 360, 9 and 300 atoms
    for capture in got["captures"]:
        assert len(capture["launched"]) in ((4, 6) if fused else (12, 21))
        assert (capture["compiled"], capture["waited"]) == ([], [])
        conversions = {"_to_copy", "mm"} if name == "engine bf16 blas" else set()
        assert set(capture["allocated"]) <= conversions  # in the memory of the graph


@pytest.mark.parametrize("name", DYNAMICS)
def test_a_step_of_dynamics_is_captured_without_compiling_allocating_or_waiting(results, name):
    (capture,) = results[name]["captures"]
    assert (capture["compiled"], capture["allocated"], capture["waited"]) == ([], [], [])
    assert capture["launched"].count("close_kernel") == name.count("+") + 1
    assert results[name]["waited"] == []


def test_a_step_of_training_is_captured_without_compiling_or_waiting(results):
    got = results[WHOLE]
    (capture,) = got["captures"]  # one size, whatever the batch
    assert (capture["compiled"], capture["waited"]) == ([], [])
    assert got["sizes"] == [[96, 768, 11]]
    assert got["compiled"][2:] == [[], []]
    counted = {f"{name.removeprefix('update ')}_kernel": n for name, n in model.TRAINING.items()}
    assert Counter(capture["launched"]) == counted
    assert capture["operations"] < 1.5 * model.TRAINING_TORCH  # among them some that launch nothing
    assert {"message_bwd_tangent_kernel", "message_weight_bwd_tangent_kernel"} <= set(capture["launched"])


def test_the_kernels_of_a_step_of_dynamics_compile_for_this_gpu(results):
    """The other scenarios note which versions there would be; here they are made, as at a first call."""
    (capture,) = results[COMPILED]["captures"]
    assert capture["compiled"] == []
    assert {"layer_bwd_kernel", "modes_kernel", "close_kernel"} <= set(capture["launched"])
