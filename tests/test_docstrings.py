"""Docstrings of the public names: what is returned, and an example that runs."""

import doctest
import importlib
import inspect

import pytest

MODULES = tuple(
    f"painn_fast{name}"
    for name in (
        "",
        ".md",
        ".correlation",
        ".vibrations",
        ".spectra",
        ".train",
        ".label",
        ".graph",
        ".schnetpack",
        ".adapters",
    )
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public():
    """Functions and classes that the modules export, each once, by the shortest name."""
    found = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for one in getattr(module, "__all__", ()):
            thing = getattr(module, one)
            if inspect.isfunction(thing) or inspect.isclass(thing):
                found.setdefault(thing, f"{name}.{one}")
    return found


PUBLIC = {name: thing for thing, name in public().items()}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_says_what_it_returns_and_its_example_runs(name, tmp_path, monkeypatch):
    thing = PUBLIC[name]
    text = inspect.getdoc(thing) or ""
    if inspect.isfunction(thing) and inspect.signature(thing).return_annotation not in (None, "None", "NoReturn"):
        assert "Returns:" in text or "Yields:" in text
    assert "Example:" in text
    monkeypatch.chdir(tmp_path)
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert example.examples
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(example)
    assert runner.failures == 0
