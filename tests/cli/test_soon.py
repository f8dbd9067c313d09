"""A mistake in arguments, settings or names of files is answered before anything is imported that takes seconds."""

import json
import resource
import subprocess
import sys

import pytest

CALL = """
import sys, json
from painn_fast.cli import main
for words in json.loads(sys.argv[1]):
    code = main(words)
    slow = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "numba", "matplotlib"})
    print(json.dumps([words, code, slow]))
"""
MISTAKES = {
    "info": (["info", "ethanol", "--heat", "1"], ["info", "ethanol", "--energy-unit", "furlong"], ["info", "etanol"]),
    "eval": (
        ["eval", "ethanol", "x.xyz", "--dtype", "float8"],
        ["eval", "ethanol", "x.xyz", "--key", "energy"],
        ["eval", "ethanol", "missing.xyz"],
        ["eval", "ethanol", "missing.npz"],
        ["eval", "missing.safetensors", "missing.xyz"],
    ),
    "convert": (
        ["convert", "ethanol", "new.txt"],
        ["convert", "ethanol", "new.pt", "--epsilon", "-1"],
        ["convert", "missing.pt", "new.safetensors"],
    ),
    "data": (["data"], ["data", "missing.npz", "--key", "energy"], ["data", "missing.npz"]),
    "learn": (
        ["learn", "missing.xyz", "--labels", "many"],
        ["learn", "missing.xyz", "--pretrain", "gfn2"],
        ["learn", "missing.xyz"],
    ),
    "sample": (
        ["sample", "missing.xyz", "--count", "many"],
        ["sample", "missing.xyz", "--option", "accuracy"],
        ["sample", "missing.xyz"],
    ),
    "label": (
        ["label", "missing.xyz", "--with", "pyscf", "--every", "0"],
        ["label", "missing.xyz", "--with", "pyscf", "--option", "grid"],
        ["label", "missing.xyz", "--with", "pyscf"],
    ),
    "select": (
        ["select", "missing.xyz", "-m", "ethanol", "-n", "0"],
        ["select", "missing.xyz", "-m", "ethanol"],
        ["select", "md.toml", "-m", "ethanol", "-m", "missing.safetensors"],
    ),
    "train": (
        ["train"],
        ["train", "md17-ethanol", "--set", "batchsize=3"],
        ["train", "md17-ethanol", "--max-epochs", "0"],
        ["train", "md17-ethanol", "--device", "abacus"],
        ["train", "missing.toml"],
        ["train", "md17-ethanol", "--data", "missing"],
        ["train", "md17-ethanol", "--key", "energy=E"],
        ["train", "--new", "md.toml", "--data", "missing.xyz"],
        ["train", "--new", "new.toml", "--data", "missing.xyz"],
        ["train", "--new", "new.toml"],
        ["train", "md17-ethanol", "--new", "new.toml", "--data", "missing.xyz"],
    ),
    "table": (["table"], ["table", "missing"]),
    "relax": (
        ["relax", "ethanol", "x.xyz", "--force", "small"],
        ["relax", "etanol", "x.xyz"],
        ["relax", "ethanol", "missing.xyz"],
    ),
    "vib": (
        ["vib", "ethanol", "--temperature", "300"],
        ["vib", "etanol"],
        ["vib", "ethanol", "missing.xyz"],
    ),
    "md": (
        ["md", "--model", "ethanol", "--ensemble", "npt"],
        ["md", "--model", "ethanol", "--time-step", "0.5"],
        ["md", "md.toml"],
        ["md", "missing.toml"],
        ["md"],
        ["md", "--model", "etanol"],
        ["md", "--model", "ethanol", "--device", "abacus"],
        ["md", "--model", "ethanol", "--structure", "missing.xyz"],
    ),
    "export": (["export", "missing", "a.xyz"], ["export", "missing"], ["export", "md.toml", "a.xyz", "--every", "0"]),
    "ipi": (
        ["ipi", "ethanol", "--address", "nowhere"],
        ["ipi", "ethanol", "--timeout", "5"],
        ["ipi", "etanol"],
        ["ipi", "ethanol", "missing.xyz"],
    ),
    "spectrum": (
        ["spectrum", "ethanol", "--window", "square"],
        ["spectrum", "ethanol", "--depth", "1"],
        ["spectrum", "etanol"],
        ["spectrum", "ethanol", "missing.xyz"],
        ["spectrum", "ethanol", "--config", "missing.toml"],
        ["spectrum", "--trajectory", "missing"],
    ),
    "bench": (
        ["bench", "methanol-1"],
        ["bench", "--sides", "abacus"],
        ["bench", "--modes", "backward"],
        ["bench", "--rounds", "0"],
        ["bench", "--table", "missing.json"],
    ),
    "doctor": (["doctor", "--hot"],),
}


@pytest.mark.parametrize("verb", MISTAKES)
def test_a_mistake_is_answered_without_torch(tmp_path, verb):
    """In one process for a verb: what the first of them imported would be seen after the others as well."""
    (tmp_path / "md.toml").write_text('model = "ethanol"\ntemprature = "300 K"\n')
    command = [sys.executable, "-c", CALL, json.dumps(MISTAKES[verb])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    assert len(lines) == len(MISTAKES[verb]), done.stderr
    assert all(line.startswith("error: ") for line in lines), done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[words, 2, []] for words in MISTAKES[verb]]


def test_every_verb_has_mistakes():
    from painn_fast.cli.app import VERBS

    assert set(MISTAKES) == set(VERBS)


def test_a_wrong_setting_is_takes_less_than_a_second_and_a_half(tmp_path):
    words = [sys.executable, "-m", "painn_fast.cli", "md", "--model", "ethanol", "--time-step", "0.5"]

    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, cwd=tmp_path, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 1.5  # of a processor, which does not depend on what else runs
