"""Errors of finished trainings beside published ones."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from painn_fast.errors import reading
from painn_fast.train.data.read import size_of_unit

PAPER = Path(__file__).with_name("paper.toml")


def published_tables() -> dict[str, Any]:
    """Tables of papers: title, source, columns and rows."""
    return tomllib.loads(PAPER.read_text(encoding="utf-8"))


def paper_table(folders: Sequence[str | Path]) -> str:
    """Markdown: a table for each published one that the trainings have rows of, and one of all others.

    A training belongs to the row that it is named after, such as qm9-mu.

    Args:
        folders: outputs of trainings.

    Raises:
        PaiNNFastError: for a folder without a finished training.
    """
    trainings = [_read(Path(folder)) for folder in folders]
    lines, used = [], set()
    for key, published in published_tables().items():
        rows = []
        for row, facts in published["rows"].items():
            for training in trainings:
                if training["name"] == f"{key}-{row}":
                    used.add(id(training))
                    rows += _compared(facts, training, ratio=published.get("ratio", True))
        if rows:
            columns = [*published["columns"], "measured", "unit", "of the first", *FACTS]
            lines += [f"**{published['title']}** ({published['source']})", "", *_markdown(["", *columns], rows), ""]
    rest = [row for training in trainings if id(training) not in used for row in _alone(training)]
    if rest:
        lines += ["**Others**", "", *_markdown(["", "measured", "unit", *FACTS], rest), ""]
    return "\n".join(lines)


FACTS = ("training structures", "epochs", "minutes", "device")


def _read(folder: Path) -> dict[str, Any]:
    with reading("no finished training here", folder):
        facts: dict[str, Any] = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        errors = json.loads((folder / "errors.json").read_text(encoding="utf-8"))
        return facts | {"errors": errors.get("test") or errors.get("validation") or {}}


def _compared(facts: dict[str, Any], training: dict[str, Any], *, ratio: bool) -> list[list[str]]:
    """Rows of one training: a property, or energy and forces; no ratio to other data, or without a published value."""
    if "property" in facts:
        parts = [(facts["name"], facts["property"], facts["unit"], facts["values"])]
    else:
        units = {"energy": "kcal/mol", "forces": "kcal/mol/Å"}
        parts = [(f"{facts['name']}, {name}", name, unit, facts.get(name)) for name, unit in units.items()]
    rows = []
    for label, name, unit, values in parts:
        if name in training["errors"]:
            error = training["errors"][name]
            measured = error["mae"] * _size(name, error["unit"]) / _size(name, unit)
            compared = f"{measured / values[0]:.2f}" if values and ratio else ""
            rows.append([label, *map(str, values or [""]), f"{measured:.3g}", unit, compared, *_facts(training)])
    return rows


def _alone(training: dict[str, Any]) -> list[list[str]]:
    return [
        [f"{training['name']}, {name}", f"{error['mae']:.3g}", error["unit"], *_facts(training)]
        for name, error in training["errors"].items()
    ]


def _size(label: str, unit: str) -> float:
    return size_of_unit(label, unit.removesuffix(" per component"))


def _facts(training: dict[str, Any]) -> list[str]:
    minutes = f"{training['seconds'] / 60:.0f}"
    return [f"{training['structures']['train']:,}", str(training["epochs"]), minutes, training["device"]]


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    line = "|" + "|".join("---" for _ in columns) + "|"
    return [f"| {' | '.join(columns)} |", line, *(f"| {' | '.join(row)} |" for row in rows)]
