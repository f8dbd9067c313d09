"""Errors of finished trainings beside published ones."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from painn_fast.errors import reading
from painn_fast.train.data.read import size_of_unit
from painn_fast.train.evaluation import STANDARD_ERROR

PAPER = Path(__file__).with_name("paper.toml")


def published_tables() -> dict[str, Any]:
    """Tables of papers: title, source, columns and rows."""
    return tomllib.loads(PAPER.read_text(encoding="utf-8"))


def paper_table(folders: Sequence[str | Path]) -> str:
    """Markdown: a table for each published one that the trainings have rows of, and one of all others.

    A training belongs to the row that it is named after, such as qm9-mu. Trainings that differ by their seed alone make
    one row: means, and the standard deviation over seeds. A ratio has the standard error over the test structures.

    Args:
        folders: outputs of trainings.

    Raises:
        PaiNNFastError: for a folder without a finished training.
    """
    trainings = _seeds_together([_read(Path(folder)) for folder in folders])
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


FACTS = ("training structures", "seeds", "epochs", "minutes", "device")


def _read(folder: Path) -> dict[str, Any]:
    with reading("no finished training here", folder):
        facts: dict[str, Any] = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        errors = json.loads((folder / "errors.json").read_text(encoding="utf-8"))
        settings = tomllib.loads((folder / "settings.toml").read_text(encoding="utf-8"))
        data = settings.pop("resolved", {}).get("data_sha256")
        seed, _ = settings.pop("seed"), settings.pop("output")
        table = errors.get("test") or errors.get("validation") or {}
        return {
            "name": str(facts["name"]),
            "train": int(facts["structures"]["train"]),
            "epochs": int(facts["epochs"]),
            "seconds": float(facts["seconds"]),
            "device": str(facts["device"]),
            "errors": {name: _error(error) for name, error in table.items()},
            "kind": (settings, data, facts["epochs"]),
            "seed": seed,
            "further": " more" if settings.get("start_from") else "",
        }


def _error(error: dict[str, Any]) -> dict[str, Any]:
    """What a table shows of one."""
    numbers = {name: float(error[name]) for name in ("mae", STANDARD_ERROR) if name == "mae" or name in error}
    return numbers | {"unit": str(error["unit"])}


def _seeds_together(trainings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trainings of the same settings, data and number of epochs as one, in the order of the first of each."""
    groups: list[list[dict[str, Any]]] = []
    for training in trainings:
        alike = (group for group in groups if group[0]["kind"] == training["kind"])
        group = next((group for group in alike if training["seed"] not in [one["seed"] for one in group]), None)
        if group is None:
            groups.append([training])
        else:
            group.append(training)
    return [_mean(group) for group in groups]


def _mean(group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One training, or the means of several."""
    errors = {}
    for name, first in group[0]["errors"].items():
        each = [one["errors"][name] for one in group]
        errors[name] = first | {
            key: fmean(error[key] for error in each)
            for key in ("mae", STANDARD_ERROR)
            if all(key in error for error in each)
        }
        if len(group) > 1:
            errors[name]["over_seeds"] = stdev(error["mae"] for error in each)
    seconds = fmean(one["seconds"] for one in group)
    return group[0] | {"errors": errors, "seeds": len(group), "seconds": seconds}


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
            size = _size(name, error["unit"]) / _size(name, unit)
            compared = _ratio(error, size / values[0]) if values and ratio else ""
            rows.append([label, *map(str, values or [""]), _measured(error, size), unit, compared, *_facts(training)])
    return rows


def _alone(training: dict[str, Any]) -> list[list[str]]:
    return [
        [f"{training['name']}, {name}", _measured(error), error["unit"], *_facts(training)]
        for name, error in training["errors"].items()
    ]


def _measured(error: dict[str, Any], size: float = 1.0) -> str:
    """The error in a unit of which its own has `size`, with the standard deviation over seeds."""
    mean = f"{error['mae'] * size:.3g}"
    return f"{mean} ± {error['over_seeds'] * size:.2g}" if "over_seeds" in error else mean


def _ratio(error: dict[str, Any], factor: float) -> str:
    """A ratio with its standard error over the test structures, where that is known."""
    ratio = f"{error['mae'] * factor:.2f}"
    return f"{ratio} ± {error[STANDARD_ERROR] * factor:.2f}" if STANDARD_ERROR in error else ratio


def _size(label: str, unit: str) -> float:
    return size_of_unit(label, unit.removesuffix(" per component"))


def _facts(training: dict[str, Any]) -> list[str]:
    minutes = f"{training['seconds'] / 60:.0f}"
    structures, seeds = f"{training['train']:,}", str(training["seeds"])
    return [structures, seeds, f"{training['epochs']}{training['further']}", minutes, training["device"]]


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    line = "|" + "|".join("---" for _ in columns) + "|"
    return [f"| {' | '.join(columns)} |", line, *(f"| {' | '.join(row)} |" for row in rows)]
