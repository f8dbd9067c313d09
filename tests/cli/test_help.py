"""What the command says of itself."""

import re
import subprocess
import sys
import time

import pytest

import painn_fast
from painn_fast.md import MDSettings
from painn_fast.settings import Settings
from painn_fast.spectra import SpectrumSettings
from painn_fast.train import TrainSettings

UNITS = {
    "info": ["Å", "eV", "e "],
    "eval": ["eV", "eV/Å", "e Å", "Å³", "kcal/mol"],
    "convert": ["eV", "Å", "e Å", "Å³"],
    "data": ["eV", "eV/Å", "e Å", "Å³", "kcal/mol"],
    "train": ["eV", "eV/Å", "e Å", "Å³"],
    "md": ["fs", "K", "Å", "eV"],
    "ipi": ["hartree", "hartree/bohr", "e a0", "a0^3", "eV"],
    "spectrum": ["fs", "K", "cm-1", "km/mol"],
    "bench": ["eV", "eV/Å", "ms", "MB"],
    "doctor": ["eV/Å", "ms"],
}


@pytest.fixture
def wide(monkeypatch):
    """So that nothing is wrapped."""
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERMINAL_WIDTH", "400")


@pytest.mark.parametrize("verb", UNITS)
def test_help_names_units(run, wide, verb):
    outcome = run(verb, "--help")
    assert outcome.code == 0
    for unit in UNITS[verb]:
        assert unit in outcome.out, f"{verb} --help does not name {unit}"


def test_help_lists_every_verb(run, wide):
    outcome = run("--help")
    assert outcome.code == 0
    for verb in UNITS:
        assert re.search(rf"\b{verb}\b", outcome.out)
    assert outcome.out == run().out, "no verb at all shows the help"


def flags(text):
    """Flag to its line of help."""
    return {match[1]: line for line in text.splitlines() if (match := re.search(r"--([a-z][a-z-]+)", line))}


@pytest.mark.parametrize(
    ("verb", "settings"), [("md", MDSettings), ("spectrum", SpectrumSettings), ("train", TrainSettings)]
)
def test_help_tells_the_defaults_of_the_settings(run, wide, verb, settings: type[Settings]):
    shown = flags(run(verb, "--help").out)
    told = 0
    for name, field in settings.model_fields.items():
        line = shown.get(name.replace("_", "-"), "")
        if "Default: " in line:
            default = re.search(r'Default: "?([^".]+(?:\.\d+[^".]*)?)"?\.', line)[1]
            assert default == ("never" if field.default is None else str(field.default)), line
            told += 1
    assert told or verb == "train"


def test_version(run):
    assert run("--version").out == f"painn-fast {painn_fast.__version__}\n"


def test_help_does_not_wait_for_torch():
    code = "import sys; from painn_fast.cli import main; main(['md', '--help']); sys.exit('torch' in sys.modules)"
    start = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, "torch was imported"
    assert time.perf_counter() - start < 20
