"""The tutorial runs: its commands and its Python, in the order of the page, with smaller numbers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tutorial.md"
SHORT = {
    "EPOCHS": "8",
    "COOLDOWN": "6",
    "BEADS": "2",
    "TRAJECTORIES": "2",
    "EQUILIBRATION": '"5 fs"',
    "DURATION": '"80 fs"',
    "DEPTH": '"50 fs"',
}
"""Instead of the numbers of the page."""


def shorter(code, seen):
    """A block with the numbers of `SHORT`; their names go into `seen`."""
    for name, value in SHORT.items():
        code, count = re.subn(rf"^({name} ?= ?).*$", rf"\g<1>{value}", code, flags=re.MULTILINE)
        seen += [name] * count
    return code


def rows(path):
    """Of a table, without its header."""
    return [row for row in path.read_text(encoding="utf-8").splitlines() if not row.startswith("#")]


def blocks():
    """Labels and code of the page."""
    return re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def test_each_number_stands_once_in_a_command_and_once_in_python():
    for wanted in ("sh", "python"):
        seen = []
        for label, code in blocks():
            if label == wanted:
                code = shorter(code, seen)
                if label == "python":
                    compile(code, PAGE.name, "exec")
        assert sorted(seen) == sorted(SHORT)


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    seen, output = [], ""
    for label, code in blocks():
        command = ["bash", "-euc"] if label == "sh" else [sys.executable, "-c"]
        done = subprocess.run(
            [*command, shorter(code, seen)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{code}\n{done.stderr[-3000:]}"
        output += done.stdout
    for folder in ("", "python"):
        model = tmp_path / (folder or "training") / "mine.safetensors"
        assert model.is_file()
        for name in ("run/trajectory.h5", "spectrum/infrared.csv", "spectrum/raman.csv", "spectrum/harmonic.csv"):
            assert (tmp_path / folder / name).is_file(), name
    assert "structures of 9 atoms: H 5688, C 1896, O 948" in output
    lines = [rows(tmp_path / folder / "spectrum" / "harmonic.csv") for folder in ("", "python")]
    assert lines[0] == lines[1], "commands and Python give the same model, and the same lines"
    assert any(row.endswith("O-H stretch") for row in lines[0])
