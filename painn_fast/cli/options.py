"""Flags from settings, and those that several verbs share."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from typer.models import OptionInfo

from painn_fast.cli.source import Field, fields
from painn_fast.errors import PaiNNFastError

METAVARS = {
    "beads": "P",
    "committee": "MODEL",
    "device": "DEVICE",
    "dtype": "DTYPE",
    "exclude": "FILE",
    "geometry": "FILE",
    "heads": "NAMES",
    "members": "MODEL",
    "model": "MODEL",
    "output": "FOLDER",
    "overlay": "FILE",
    "start_from": "MODEL",
    "structure": "FILE",
    "symbols": "ELEMENTS",
    "temperature": "K",
    "trajectories": "S",
    "trajectory": "PATH",
}
"""Of settings that their kind gives no good one."""
LOAD_OPTIONS, FILES = ("io.options", "LoadOptions"), "SchNetPack's model files"
Text = str | None
LARGEST = 10**9
"""Of numbers that count something."""


def flag(metavar: str | None, text: str, *names: str, parser: Callable[[str], Any] | None = None) -> OptionInfo:
    """A flag whose help states its default, if it has one."""
    return typer.Option(*names, metavar=metavar, help=text, show_default=False, parser=parser)


def number(low: float, high: float = LARGEST, *, whole: bool = True) -> Callable[[str], float]:
    """A reader of numbers from `low` to `high`, whose error has the value and what is expected."""
    limits = f" from {low:g} to {high:g}" if low > -math.inf else ""
    expected = f"a {'whole ' * whole}number{limits}"

    def read(text: str) -> float:
        try:
            value: float = int(text) if whole else float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise typer.BadParameter(f"got {text!r}, expected {expected}")
        return value

    return read


@dataclass(frozen=True)
class Flags:
    """Flags of the settings of a class: their names, kinds, defaults and help are those of its fields.

    Args:
        module: that defines the class, in `painn_fast`.
        name: of the class.
        only: these settings; all by default.
        omit: settings without a flag.
        names: of flags that are not called as their setting, or have two names.
        panel: heading of these flags in the help.
    """

    module: str
    name: str
    only: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    panel: str | None = None

    def fields(self) -> list[Field]:
        """The settings that have a flag."""
        every = fields(self.module, self.name)
        return [every[name] for name in self.only or every if name not in self.omit]

    def parameters(self) -> Iterator[inspect.Parameter]:
        """As parameters of a function that typer reads; a flag that is not given is None."""
        for one in self.fields():
            name = one.name.replace("_", "-")
            either = one.kind == "bool" and one.default is None  # else a flag that is given is True
            names = self.names.get(one.name, (f"--{name}/--no-{name}" if either else f"--{name}",))
            names += ("-o",) if one.name == "output" else ()
            kind = {"int": int, "bool": bool}.get(one.kind, str)
            parser = number(-math.inf, math.inf) if kind is int else None  # the settings have the limits
            option = flag(_metavar(one), _help(one), *names, parser=parser)
            option.rich_help_panel = self.panel or (FILES if one.name in fields(*LOAD_OPTIONS) else None)
            annotation = Annotated[(list[kind] if one.several else kind) | None, option]  # type: ignore[valid-type]
            yield inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _metavar(one: Field) -> str | None:
    usual = {"int": "N", "str": "NAME", "bool": None, "duration": "TIME"}.get(one.kind, one.kind.upper())
    return METAVARS.get(one.name) or ("UNIT" if one.name.endswith("_unit") else usual)


def _help(one: Field) -> str:
    """Its docstring with choices and default."""
    *most, last = one.choices or ("",)
    choices = f" One of {', '.join(most)} or {last}." if most else ""
    several = " Repeatable." if one.several else ""
    if one.default is None or one.default in ("", ()) or one.kind == "bool":
        return one.text + choices + several
    default = one.default if one.kind in ("int", "float", "str") else f'"{one.default}"'
    return f"{one.text}{choices}{several} Default: {default}."


def with_flags(**groups: Flags) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the flags of settings; its parameter with the name of a group takes those that were given."""

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(verb, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for name, parameter in signature.parameters.items():
            own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
            parameters += groups[name].parameters() if name in groups else own

        @functools.wraps(verb)
        def command(**words: Any) -> None:
            collected = {
                name: given(**{one.name: words.pop(one.name) for one in group.fields()})
                for name, group in groups.items()
            }
            verb(**words, **collected)

        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return command

    return decorate


MODEL_FILE = Flags(*LOAD_OPTIONS)
DATA_FILE = Flags(
    "train.settings", "DataFile", only=("symbols", "geometry", "exclude", "periodic"), panel="Files of labelled data"
)

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A bundled model such as ethanol, a painn-fast .safetensors file, or a SchNetPack file.",
        show_default=False,
    ),
]
Dtype = Annotated[Text, flag("DTYPE", "Of the network, float32 or float64. Default: the file's.")]
Device = Annotated[Text, flag("DEVICE", "cpu, cuda, cuda:1, ... Default: cpu.")]
Key = Annotated[
    list[str] | None,
    typer.Option(metavar="LABEL=ARRAY", help="Array that holds a label, such as energy=E_pbe0; forces= for none."),
]
DataUnit = Annotated[
    list[str] | None,
    typer.Option(metavar="KIND=UNIT", help="Unit where a file does not state it, such as energy=kcal/mol."),
]


def pairs(flag: str, given: list[str] | None) -> dict[str, str]:
    """NAME=VALUE flags as a dictionary.

    Raises:
        PaiNNFastError: if one has no name or no "=".
    """
    result = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise PaiNNFastError(f"cannot read {flag}", got=repr(text), expected="NAME=VALUE")
        result[name] = value
    return result


def given(**flags: Any) -> dict[str, Any]:
    """The flags that were given, as settings."""
    return {name: value for name, value in flags.items() if value not in (None, [])}
