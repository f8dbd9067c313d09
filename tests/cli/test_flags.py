"""Flags are the settings: none is forgotten, and name, kind, default and help are those of the fields."""

import inspect
import typing

import pytest
import typer.main
from pydantic import BaseModel, BeforeValidator
from pydantic._internal._docs_extraction import extract_docstrings_from_cls

from painn_fast.cli import source, train
from painn_fast.cli.app import VERBS, app
from painn_fast.cli.options import DATA_FILE, MODEL_FILE
from painn_fast.io.options import LoadOptions
from painn_fast.md import MDSettings
from painn_fast.spectra import SpectrumSettings
from painn_fast.train import TrainSettings
from painn_fast.train.settings import DataFile

CLASSES = {
    ("io.options", "LoadOptions"): LoadOptions,
    ("md.settings", "MDSettings"): MDSettings,
    ("spectra.settings", "SpectrumSettings"): SpectrumSettings,
    ("train.settings", "TrainSettings"): TrainSettings,
    ("train.settings", "DataFile"): DataFile,
}
COMMANDS = typer.main.get_command(app).commands
EVERY = {"md": MDSettings, "spectrum": SpectrumSettings}
"""Verbs that have a flag for each setting."""
RENAMED = {"members": "member"}
WITHOUT = {"spectrum": {"methods"}}
"""`--method` takes several."""


def quantity(field):
    """Kind of the quantity that a field of pydantic is, None for other fields."""
    kinds = [
        inspect.getclosurevars(one.func).nonlocals.get("kind")
        for one in [*field.metadata, *(m for a in typing.get_args(field.annotation) for m in typing.get_args(a))]
        if isinstance(one, BeforeValidator)
    ]
    return kinds[0] if kinds else None


def docstrings(settings):
    """Docstrings of the fields, those of base classes too, as pydantic reads them if it is asked to."""
    bases = [cls for cls in settings.__mro__[::-1] if issubclass(cls, BaseModel) and cls is not BaseModel]
    return {key: text for cls in bases for key, text in extract_docstrings_from_cls(cls, True).items()}


@pytest.mark.parametrize(("where", "settings"), CLASSES.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_what_is_read_from_the_source_is_what_pydantic_has(where, settings):
    read, texts = source.fields(*where), docstrings(settings)
    assert set(read) == set(settings.model_fields)
    for name, field in settings.model_fields.items():
        one = read[name]
        assert one.text == " ".join(texts.get(name, "").split()), name
        if one.kind:
            assert one.default == (None if field.is_required() else field.default), name
        if kind := quantity(field):
            assert one.kind == kind, name
        elif one.choices:
            assert set(one.choices) <= literals(field.annotation), name
        elif one.kind:
            assert one.kind in str(field.annotation), name


def literals(annotation):
    """Values of all Literals in an annotation."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return set(arguments)
    return set().union(*map(literals, arguments))


@pytest.mark.parametrize("verb", EVERY)
def test_every_setting_has_a_flag_and_a_help(verb):
    flags = {parameter.name: parameter for parameter in COMMANDS[verb].params}
    missing = set(EVERY[verb].model_fields) - {*flags, *WITHOUT.get(verb, ())}
    assert not missing
    for name in EVERY[verb].model_fields.keys() & flags.keys():
        if flags[name].param_type_name == "argument":
            continue
        assert f"--{RENAMED.get(name, name).replace('_', '-')}" in flags[name].opts
        assert len(flags[name].help or "") > 15, name


def test_every_flag_of_a_training_is_a_setting():
    flags = {parameter.name for parameter in COMMANDS["train"].params}
    assert set(train.OFTEN) <= TrainSettings.model_fields.keys() & flags


@pytest.mark.parametrize("verb", ["info", "eval", "convert", "select", "ipi", "md", "spectrum"])
def test_every_verb_that_takes_a_model_file_takes_its_options(verb):
    assert LoadOptions.model_fields.keys() <= {parameter.name for parameter in COMMANDS[verb].params}
    assert [one.name for one in MODEL_FILE.fields()] == list(LoadOptions.model_fields)


def test_verbs_of_data_take_the_options_of_a_data_file():
    for verb in ("eval", "data"):
        assert set(DATA_FILE.only) <= {parameter.name for parameter in COMMANDS[verb].params}


def numeric():
    """Verbs and their flags whose value is a number."""
    for verb, function in VERBS.items():
        flags = {parameter.name: max(parameter.opts, key=len) for parameter in COMMANDS[verb].params}
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
            kinds = {parameter.annotation, *typing.get_args(parameter.annotation)}
            kinds |= {inner for kind in kinds for inner in typing.get_args(kind)}
            if kinds & {int, float}:
                yield verb, flags[name]


NUMERIC = list(numeric())


def test_numeric_flags_are_seen():
    assert {("label", "--every"), ("select", "--apart"), ("md", "--beads"), ("bench", "--rounds")} <= set(NUMERIC)


@pytest.mark.parametrize(("verb", "flag"), NUMERIC)
@pytest.mark.parametrize("value", ["many", "nan"])
def test_what_is_no_number_is_refused_with_flag_and_value(fails, verb, flag, value):
    arguments = {"convert": 2, "label": 1, "learn": 1, "sample": 1, "select": 1, "ipi": 1}.get(verb, 0)
    fails((verb, *["x"] * arguments, flag, value), flag, repr(value), "expected a ", f"{verb} --help")


@pytest.mark.parametrize(
    "words",
    [
        ("label", "x.xyz", "--with", "pyscf", "--every", "0"),
        ("label", "x.xyz", "--with", "pyscf", "--every", "10000000000"),
        ("label", "x.xyz", "--with", "pyscf", "--polarizability-every", "-1"),
        ("label", "x.xyz", "--with", "pyscf", "--workers", "100000"),
        ("select", "x.xyz", "--number", "0"),
        ("select", "x.xyz", "--apart", "-0.1"),
        ("select", "x.xyz", "--spread-below", "-1"),
        ("ipi", "ethanol", "--clients", "0"),
        ("bench", "--threads", "0"),
        ("bench", "--rounds", "0"),
        ("bench", "--max-atoms", "0"),
        ("train", "ethanol", "--members", "0"),
        ("convert", "a", "b", "--epsilon", "0"),
        ("convert", "a", "b", "--epsilon", "2"),
    ],
)
def test_numbers_beyond_their_limits_are_refused_with_flag_value_and_limits(fails, words):
    fails(words, words[-2], repr(words[-1]), "expected a", "from")
