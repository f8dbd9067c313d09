"""Every Triton kernel compiles for GPUs that are not here, and none spills."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULES = {
    "painn_fast.kernels.bonds.triton": 2,
    "painn_fast.kernels.neighbors.triton": 3,
    "painn_fast.kernels.random.triton": 2,
    "painn_fast.kernels.readout.triton": 3,
    "painn_fast.kernels.ring.triton": 16,
    "painn_fast.kernels.update.triton": 8,
    "painn_fast.kernels.update.triton_training": 8,
}
"""With how many cases each has."""


@pytest.mark.parametrize("module", MODULES)
def test_kernels_compile_for_four_gpus_without_a_spill(module):
    script = Path(__file__).with_name("compile_cases.py")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    run = subprocess.run([sys.executable, script, module], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == 4 * MODULES[module]
    assert not [line for line in lines if not line.endswith(", 0")]
