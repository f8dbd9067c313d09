"""What is wrong with settings, in words: pydantic's problems by key, with what was expected and got."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from painn_fast.errors import shown

EXPECTED = {
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt}",
    "less_than_equal": "{le} or less",
    "less_than": "less than {lt}",
    "literal_error": "{expected}",
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string_type": "a text",
    "string_too_short": "a text that is not empty",
    "dict": "a table of settings",
    "model": "a table of settings",
    "tuple": "a list",
    "list": "a list",
    "too_short": "{min_length} or more",
    "union_tag_invalid": "a type of {expected_tags}",
    "union_tag_not_found": "a key 'type'",
}
"""By the name of a problem, or its first word."""
BASIC = ("int", "float", "str", "bool")
LONGEST = 60
"""Characters of a value that is shown."""


def describe(cls: type[BaseModel], error: ValidationError) -> str:
    """All problems in one line, by their keys.

    Args:
        cls: the class of the settings.
        error: what pydantic raised for it.

    Example:
        >>> from painn_fast.md import MDSettings
        >>> MDSettings(beads=0, seed="x", ensembel="nve")
        Traceback (most recent call last):
        painn_fast.errors.PaiNNFastError: ...'seed': expected a whole number or a list, got 'x'...
    """
    by_key: dict[str, list[Any]] = {}
    for problem in error.errors():
        by_key.setdefault(".".join(map(str, _shown_path(cls, problem["loc"]))), []).append(problem)
    whole = [key for key in by_key if not any(other.startswith(f"{key}.") for other in by_key)]
    return "; ".join(_of_key(cls, key, by_key[key]) for key in whole)


def _of_key(cls: type[BaseModel], key: str, problems: list[Any]) -> str:
    """The problems of one key: several if none of a union of types took its value."""
    first = problems[0]
    kind, value = first["type"], first["input"]
    if kind == "extra_forbidden":
        *parent, last = map(str, first["loc"])
        near = difflib.get_close_matches(last, _keys(_models_at(cls, parent)), n=1, cutoff=0.5)
        return f"unknown key '{key}'" + (f", did you mean '{near[0]}'?" if near else "")
    if kind == "missing":
        return f"missing key '{key}'"
    expected = dict.fromkeys(filter(None, map(_expected, problems)))
    if expected:
        return f"'{key}': expected {' or '.join(expected)}, got {shown(value, LONGEST)}"
    message = first["msg"].removeprefix("Value error, ")
    if not key:  # of several keys together, which the message names
        return message
    return f"'{key}': {message}" + ("" if "got" in message else f", got {shown(value, LONGEST)}")


def _expected(problem: dict[str, Any]) -> str | None:
    kind = problem["type"]
    text = EXPECTED.get(kind) or EXPECTED.get(kind.partition("_")[0])
    return text.format(**problem.get("ctx", {})) if text else None


def _shown_path(cls: type[BaseModel], path: Iterable[int | str]) -> Iterator[int | str]:
    """The keys of a path, without the names that pydantic gives to the members of unions."""
    models = [cls]
    for step in path:
        tagged = [model for model in models if _tag(model) == step]
        if step in _keys(models) or not tagged:
            models = models if isinstance(step, int) else _inner(models, step)
            if isinstance(step, int) or (step.isidentifier() and step not in BASIC):
                yield step
        else:
            models = tagged


def _models_at(cls: type[BaseModel], path: Iterable[str]) -> list[type[BaseModel]]:
    """The classes whose keys are known where a path leads."""
    models = [cls]
    for step in path:
        if not step.isdigit():
            models = [model for model in models if _tag(model) == step] or _inner(models, step)
    return models


def _inner(models: list[type[BaseModel]], key: str) -> list[type[BaseModel]]:
    fields = [model.model_fields[key] for model in models if key in model.model_fields]
    return [inner for field in fields for inner in _models(field.annotation)]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The classes of settings in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]


def _keys(models: list[type[BaseModel]]) -> list[str]:
    return [key for model in models for key in model.model_fields]


def _tag(model: type[BaseModel]) -> Any:
    """The value of `type` that tells a class from others of its union."""
    field = model.model_fields.get("type")
    return field.default if field else None
