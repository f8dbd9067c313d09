"""`painn-fast info`: configuration, units and origin of a model."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from painn_fast.cli.given import check_model
from painn_fast.cli.options import MODEL_FILE, Model, with_flags

DEVICES = {"cpu": "a CPU", "cuda": "a GPU"}


@with_flags(options=MODEL_FILE)
def info(
    model: Model,
    options: dict[str, Any],
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Show configuration, units, heads, parameters, elements, SHA-256, card and ways of evaluation of a model.

    The cut-off is in Å. Whatever units a model was trained in, its results come in eV, Å, e.

    Example: painn-fast info ethanol
    """
    check_model(model, options)
    from painn_fast.io.describe import describe

    facts = describe(model, **options)
    typer.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else "\n".join(lines(facts)))


def lines(facts: dict[str, Any]) -> list[str]:
    """One line a fact, names in a column."""
    elements = " ".join(facts["elements"]) if facts["elements"] else "not stated in the file"
    rows = [(name, facts[name]) for name in ("name", "file", "sha256", "model_card")]
    rows += [
        ("gives", ", ".join(facts["properties"])),
        ("results in", "eV, eV/Å, e Å, Å³"),
        ("trained in", ", ".join(f"{kind} {_unit(kind, unit)}" for kind, unit in facts["trained_in"].items())),
        ("elements", elements),
        ("cut-off", f"{facts['cutoff']:g} Å"),
        ("parameters", f"{facts['parameters']:,} in {facts['dtype']}"),
        ("network", _table(facts["representation"])),
        *(("head", _table(head)) for head in facts["heads"]),
        *((f"on {DEVICES[device]}", path) for device, found in facts["paths"].items() for path in _paths(found)),
        *facts["provenance"].items(),
    ]
    return [f"{name.replace('_', ' '):<16} {value}" for name, value in rows if value not in (None, "")]


def _paths(by_purpose: dict[str, dict[str, str]]) -> list[str]:
    """One line a way, with the purposes that take it."""
    purposes: dict[str, list[str]] = {}
    for purpose, path in by_purpose.items():
        purposes.setdefault(f"{path['way']} ({path['why']})", []).append(purpose)
    return [f"{', '.join(those)}: {way}" for way, those in purposes.items()]


def _unit(kind: str, unit: str | None) -> str:
    return unit or f"not stated (give --{kind}-unit where the model is used)"


def _table(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)
