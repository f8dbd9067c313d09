"""Runs that are killed, with SIGKILL, at any moment."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ase import Atoms
from force_fields import Morse

from painn_fast.errors import PaiNNFastError
from painn_fast.md import MDSettings, run
from painn_fast.md import output as output_module

SCRIPT = Path(__file__).with_name("kill_many_times.py")


@pytest.mark.parametrize(
    ("case", "kills"),
    [
        ("one", 4),
        *(pytest.param(case, 60, marks=pytest.mark.slow) for case in ("one", "mixture", "ranks")),
    ],
)
def test_every_file_of_a_killed_run_opens_and_it_resumes_to_the_uninterrupted_one_bit_for_bit(tmp_path, case, kills):
    command = [sys.executable, str(SCRIPT), str(tmp_path), case, str(kills), "1"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    killed, lengths = re.search(r"killed (\d+) times, frames each time (.*), in the middle", done.stdout).groups()
    assert int(killed) == kills
    assert len({str(length) for length in ast.literal_eval(lengths)}) > kills // 3, "no progress between kills"


def test_a_run_killed_while_it_replaces_another_is_not_resumed_without_its_frames(tmp_path, monkeypatch):
    settings = MDSettings.parse({"output": str(tmp_path), "duration": "5 fs"})
    atoms = Atoms("OH", positions=[[0, 0, 0], [1.4, 0, 0]])
    run(settings, force_field=Morse(), atoms=atoms)

    def killed(part):
        raise KeyboardInterrupt

    monkeypatch.setattr(output_module, "remove_segments", killed)
    with pytest.raises(KeyboardInterrupt):
        run(settings, force_field=Morse(), atoms=atoms, overwrite=True)
    with pytest.raises(PaiNNFastError, match="a trajectory without a restart file cannot be resumed"):
        run(settings, force_field=Morse(), atoms=atoms, resume=True)
