"""`painn-fast info`: what a model is."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from painn_fast.cli.options import DipoleUnit, EnergyUnit, Heads, LengthUnit, Model, PolarizabilityUnit, load_options


def info(
    model: Model,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = "Ang",
    dipole_unit: DipoleUnit = None,
    polarizability_unit: PolarizabilityUnit = None,
    heads: Heads = None,
) -> None:
    """What a model is: configuration, units, heads, parameters, elements, SHA-256, model card.

    The cut-off is in Å. Whatever units a model was trained in, its results come in eV, Å, e.
    """
    from painn_fast.io.describe import describe

    facts = describe(model, **load_options(energy_unit, length_unit, dipole_unit, polarizability_unit, heads))
    typer.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else "\n".join(lines(facts)))


def lines(facts: dict[str, Any]) -> list[str]:
    """One line a fact, names in a column."""
    elements = " ".join(facts["elements"]) if facts["elements"] else "the file does not tell"
    rows = [(name, facts[name]) for name in ("name", "file", "sha256", "model_card")]
    rows += [
        ("gives", ", ".join(facts["properties"])),
        ("results in", "eV, eV/Å, e Å, Å³"),
        ("trained in", ", ".join(_trained_in(kind, unit) for kind, unit in facts["trained_in"].items())),
        ("elements", elements),
        ("cut-off", f"{facts['cutoff']:g} Å"),
        ("parameters", f"{facts['parameters']:,} in {facts['dtype']}"),
        ("network", _table(facts["representation"])),
        *(("head", _table(head)) for head in facts["heads"]),
        *facts["provenance"].items(),
    ]
    return [f"{name.replace('_', ' '):<16} {value}" for name, value in rows if value not in (None, "")]


def _trained_in(kind: str, unit: str | None) -> str:
    return f"{kind} {unit}" if unit else f"{kind} in a unit that the file does not state (--{kind}-unit)"


def _table(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)
