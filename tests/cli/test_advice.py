"""Advice in messages, help and documentation names verbs and flags that exist, and what can be installed."""

import ast
import re
from pathlib import Path

import pytest
import typer.main

from painn_fast.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = typer.main.get_command(app).commands
FLAGS = {
    verb: {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help", "--traceback"}
    for verb, command in COMMANDS.items()
}
EVERY = set().union(*FLAGS.values()) | {"--version"}
SOURCES = sorted(path for path in (ROOT / "painn_fast").rglob("*.py") if "cli" not in path.parts)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = {
    "--force-reinstall", "--no-deps", "--logdir",  # pip, TensorBoard
    "--nproc_per_node", "--porcelain", "--untracked-files",  # torchrun, git
}  # fmt: skip
"""Flags of other commands."""
FLAG = r"(?<![\w-])--[a-z{][\w{}-]*"


def texts(path):
    """The strings of a module, with {} for what a formatted one computes."""
    inner = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(value) for value in node.values}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value


def exists(flag, flags=EVERY):
    pattern = re.compile(re.escape(flag).replace(r"\{\}", r"[\w-]+"))
    return any(pattern.fullmatch(known) for known in flags)


def verbs(text):
    """What a text calls: whether it is marked as code, the verb and the rest."""
    for match in re.finditer(r"([`&\n] ?)?painn-fast ([a-z]+)\b([^;`|\n]*)", text):
        yield match[1] is not None, match[2], match[3]


def module_name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [path for path in SOURCES if "--" in path.read_text("utf-8")], ids=module_name)
def test_flags_that_messages_name_exist(path):
    missing = {flag for text in texts(path) for flag in re.findall(FLAG, text) if not exists(flag)} - OTHERS
    assert not missing


CALLS = [
    (module_name(path), *call)
    for path in [*SOURCES, *sorted((ROOT / "painn_fast" / "cli").glob("*.py")), *PAGES]
    for text in (texts(path) if path.suffix == ".py" else [path.read_text(encoding="utf-8")])
    for call in verbs(text)
]


def test_verbs_that_texts_call_exist_and_have_their_flags():
    assert sum(code for _, code, _, _ in CALLS) > 50
    for where, code, verb, rest in CALLS:
        assert verb in FLAGS or not code, f"{where}: painn-fast {verb}"  # else prose, such as "a painn-fast model"
        for flag in re.findall(FLAG, rest.split("&&")[0]) if verb in FLAGS else ():
            assert exists(flag, FLAGS[verb]), f"{where}: painn-fast {verb} {flag}"


def test_packages_are_installed_from_a_clone():
    """The package is in no registry: extras are those of a folder."""
    for path in [*SOURCES, *PAGES]:
        assert "painn-fast[" not in path.read_text(encoding="utf-8"), path
        assert not re.search(r"pip install painn-fast", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    ("text", "known"), [("give --no-such-flag", False), ("give --{}-unit", True), ("--hold", True)]
)
def test_that_test_can_fail(text, known):
    (flag,) = re.findall(FLAG, text)
    assert exists(flag) == known
