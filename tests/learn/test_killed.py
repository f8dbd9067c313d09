"""Runs of `painn-fast learn` that are killed again and again end with the model of one that is not."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import ase.io
import pytest
from ase.build import molecule

TESTS = Path(__file__).parents[1]
KILLS = 10


def _command(*more):
    method, surface = "spring_water:CountedWater", "spring_water:SpringWater"
    words = (
        f"learn ../water.xyz --with {method} --surface {surface} --option log=log.txt --labels 80 --rounds 2 --beads 2 "
        "--features 16 --layers 1 --steps 300 --final-steps 600 --aim 0.001 --workers 1 -o learned"
    )
    return [sys.executable, "-m", "painn_fast.cli", *words.split(), "--explore", "60 fs", "--dynamics", "400 fs", *more]


def _environment():
    return os.environ | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


@pytest.mark.slow
def test_ten_kills_change_no_bit_and_no_label_is_computed_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ase.io.write("water.xyz", molecule("H2O"))
    for name in ("whole", "killed"):
        Path(name).mkdir()
    subprocess.run(_command(), cwd="whole", env=_environment(), check=True)
    chosen, kills = random.Random(0), 0
    while True:
        process = subprocess.Popen(_command("--resume"), cwd="killed", env=_environment())
        try:
            assert process.wait(timeout=chosen.uniform(5, 40) if kills < KILLS else None) == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills > 0
    assert Path("killed/learned/model.safetensors").read_bytes() == Path("whole/learned/model.safetensors").read_bytes()
    files = [*Path("killed/learned").glob("*/labelled.xyz"), *Path("killed/learned").glob("*/held-out.xyz")]
    labelled = {str(one.positions.round(7).tolist()) for path in files for one in ase.io.read(path, ":")}
    assert len(labelled) == 80
    computed = Counter(Path("killed/log.txt").read_text().splitlines())
    # what was being computed when a kill came is computed again: one structure a process and kill at most
    assert sum(computed[one] - 1 for one in labelled) <= kills
