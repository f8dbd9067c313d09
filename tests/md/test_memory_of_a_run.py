"""A run takes no more memory the longer it is."""

import subprocess
import sys
from pathlib import Path

import pytest

from painn_fast.io import bundled

SCRIPT = Path(__file__).with_name("memory_of_a_run.py")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc to read the memory from")
@pytest.mark.parametrize(
    ("steps", "model"),
    [(2500, "ethanol"), *(pytest.param(100_000, model, marks=pytest.mark.slow) for model in ("morse", "ethanol"))],
)
def test_memory_is_flat(tmp_path, steps, model):
    if model != "morse" and model not in bundled():
        pytest.skip("no bundled model")
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(steps), model]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)  # shown by -rP
    early, late = map(float, done.stdout.split()[-2:])
    assert early > 50
    assert late - early < 5, f"{early} MB after a third of the steps, then {late} MB"
