"""`painn-fast info`: configuration, units and origin of a model."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from painn_fast.cli.given import check_model
from painn_fast.cli.options import MODEL_FILE, Model, with_flags


@with_flags(options=MODEL_FILE)
def info(
    model: Model,
    options: dict[str, Any],
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Show configuration, units, heads, parameters, elements, SHA-256 and card of a model.

    The cut-off is in Å. Whatever units a model was trained in, its results come in eV, Å, e.
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
        *facts["provenance"].items(),
    ]
    return [f"{name.replace('_', ' '):<16} {value}" for name, value in rows if value not in (None, "")]


def _unit(kind: str, unit: str | None) -> str:
    return unit or f"not stated (give --{kind}-unit where the model is used)"


def _table(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)
