"""Help of the command and its verbs."""

import os
import re
import shlex
import subprocess
import sys
import time

import pytest
import typer.main

import painn_fast
from painn_fast.cli.app import VERBS, app
from painn_fast.md import MDSettings
from painn_fast.settings import Settings
from painn_fast.spectra import SpectrumSettings

COMMANDS = typer.main.get_command(app).commands
UNITS = {
    "info": ["Å", "eV", "e "],
    "eval": ["eV", "eV/Å", "e Å", "Å³", "kcal/mol"],
    "convert": ["eV", "Å", "e Å", "Å³"],
    "data": ["eV", "eV/Å", "e Å", "Å³", "kcal/mol"],
    "train": ["eV", "eV/Å", "e Å", "Å³"],
    "relax": ["Å", "eV", "eV/Å", "eV/Å³"],
    "vib": ["cm-1", "km/mol", "Å⁴/amu", "eV", "K"],
    "md": ["fs", "K", "Å", "eV"],
    "export": ["Å", "fs", "ps"],
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
    for verb in VERBS:
        assert re.search(rf"\b{verb}\b", outcome.out)
    assert outcome.out == run().out, "no verb at all shows the help"


def flags(text):
    """Flags and their lines of help."""
    return {match[1]: line for line in text.splitlines() if (match := re.match(r"│.*?--([a-z][a-z-]+)", line))}


@pytest.mark.parametrize(("verb", "settings"), [("md", MDSettings), ("spectrum", SpectrumSettings)])
def test_help_states_every_default_with_its_unit(run, wide, verb, settings: type[Settings]):
    shown = flags(run(verb, "--help").out)
    stated = 0
    for name, field in settings.model_fields.items():
        line = shown.get(name.replace("_", "-"), "")
        if not line or field.default in (None, "", ()) or isinstance(field.default, bool):
            continue
        default = re.search(r'Default: "?([^"│]+?)"?\.\s*│', line)[1]
        assert default == str(field.default), line
        stated += 1
    assert stated > 12


def test_help_fits_a_terminal_of_80_columns_with_an_example_of_each_verb_on_a_line():
    code = f"from painn_fast.cli import main\nfor verb in {list(VERBS)}: main([verb, '--help'])"
    environment = os.environ | {"COLUMNS": "80", "TERMINAL_WIDTH": "80", "PYTHONIOENCODING": "utf-8"}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) == 80
    assert not any("…" in line for line in lines)
    examples = [shlex.split(line.strip()) for line in lines if line.startswith(" Example: painn-fast ")]
    assert [words[2] for words in examples] == list(VERBS)
    for _, _, verb, *words in examples:
        COMMANDS[verb].make_context(verb, words)


def test_version(run):
    assert run("--version").out == f"painn-fast {painn_fast.__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["md", "--help"], ["md", "--beads", "many"], ["nonsense"]], ids=" ".join)
def test_help_and_wrong_words_do_not_wait_for_torch(words):
    code = f"import sys; from painn_fast.cli import main; main({words}); sys.exit('torch' in sys.modules)"
    start = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, "torch was imported"
    assert time.perf_counter() - start < 20
