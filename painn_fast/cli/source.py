"""Fields of settings classes as their source states them: name, kind, default, docstring.

Importing the classes takes seconds, most of them for torch, which help and a mistyped flag should not wait for. The
tests compare what is read here with the fields that pydantic has.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Field:
    """One setting.

    Args:
        name: of the setting.
        kind: "int", "float", "bool" or "str", or the kind of a quantity: "time", "temperature", ...; "" for anything
            else, such as settings within settings.
        choices: the allowed values, where they are listed.
        several: whether the setting is a sequence.
        default: as in a TOML file, quantities with their unit; None without one.
        text: its docstring, on one line.
    """

    name: str
    kind: str = ""
    choices: tuple[str, ...] = ()
    several: bool = False
    default: Any = None
    text: str = ""


@cache
def fields(module: str, name: str) -> dict[str, Field]:
    """Settings of class `name` of `painn_fast.<module>`, those of its base classes last."""
    module, node = _definition(module, name)
    result: dict[str, Field] = {}
    if isinstance(node, ast.ClassDef):
        for statement, after in pairwise((*node.body, None)):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                field = replace(_kind(module, statement.annotation), name=statement.target.id)
                result[field.name] = replace(field, default=_default(statement.value), text=_docstring(after))
        for base in node.bases:
            result |= {key: field for key, field in fields(module, ast.unparse(base)).items() if key not in result}
    return result


@cache
def _definitions(module: str) -> dict[str, Any]:
    """Classes of a module and expressions that have a name; for what it imports from this package, its whole name."""
    path = PACKAGE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    known: dict[str, Any] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.ClassDef(name=name):
                known[name] = node
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                known[name] = value
            case ast.ImportFrom(module=str(home), names=names) if home.startswith("painn_fast."):
                whole = home.removeprefix("painn_fast.")
                known |= {alias.asname or alias.name: f"{whole}.{alias.name}" for alias in names}
    return known


def _definition(module: str, name: str) -> tuple[str, ast.AST | None]:
    """The module that defines a name, and its definition; None for names of other packages."""
    node = _definitions(module).get(name)
    while isinstance(node, str):
        module, _, name = node.rpartition(".")
        node = _definitions(module).get(name)
    return module, node


def _kind(module: str, annotation: ast.AST | None) -> Field:
    """Kind, choices and whether it is a sequence, from an annotation."""
    match annotation:
        case (
            ast.BinOp(left=inner, op=ast.BitOr())  # X | None, X | tuple[X, ...]
            | ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, *_]))
        ):
            return _kind(module, inner)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[first, *_])):
            return replace(_kind(module, first), several=True)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=listed):
            return Field("", "str", ast.literal_eval(listed))
        case (
            ast.Call(func=ast.Name(id="_quantity" | "_quantities"), args=[ast.Constant(value=kind), *_])
            | ast.Name(id="int" | "float" | "bool" | "str" as kind)
        ):
            return Field("", str(kind))
        case ast.Name(id=name):
            return _kind(*_definition(module, name))
    return Field("")


def _default(value: ast.expr | None) -> Any:
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "Field":
        value = value.args[0] if value.args else None
    try:
        return None if value is None else ast.literal_eval(value)
    except ValueError:  # of settings within settings
        return None


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""
