"""What a training writes: model, errors, learning curves, parity plots, model card."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from painn_fast.io.model_file import save_model
from painn_fast.nn import Potential
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.log_axis import plain_numbers
from painn_fast.settings import write_resolved
from painn_fast.train.data import Dataset, write_split
from painn_fast.train.data.statistics import statistics
from painn_fast.train.error_analysis import by_element, by_magnitude, rotation_change, write_worst
from painn_fast.train.evaluation import Arrays, Table, errors, format_errors, predict, report_unit
from painn_fast.train.model import output_file
from painn_fast.train.settings import TrainSettings
from painn_fast.train.surface import describe_surface, surface


@dataclass(frozen=True)
class Finished:
    """A training that has ended, as far as its report describes it."""

    settings: TrainSettings
    model: Potential  # the one that is kept
    data: Mapping[str, Dataset]  # of each split
    data_sha256: str
    names: Sequence[str]  # labels that it learned
    history: Sequence[Mapping[str, float]]  # an entry for each validation
    level_of_theory: str
    batch_size: int
    epochs: int
    steps: int
    seconds: float
    processes: int

    @cached_property
    def predicted(self) -> dict[str, Arrays]:
        """Predictions for each split that has structures."""
        return {split: predict(self.model, part) for split, part in self.data.items() if len(part)}

    @cached_property
    def tables(self) -> dict[str, Table]:
        """Errors on each split, and on the test structures of each file."""
        tables = {split: self._errors(split, np.arange(len(self.data[split]))) for split in self.predicted}
        test = self.data["test"]
        for k, file in enumerate(test.files):
            rows = np.flatnonzero(test.file == k)
            if len(rows):
                tables[f"test, {file}"] = self._errors("test", rows)
        return tables

    def _errors(self, split: str, rows: np.ndarray) -> Table:
        part = self.data[split]
        predicted = {name: values[part.entries_of(name, rows)] for name, values in self.predicted[split].items()}
        return errors(predicted, part.select(rows), self.model, self.settings.report_units)

    @property
    def analysed(self) -> str:
        """The split whose errors are analysed: the test structures, if there are any."""
        return next(split for split in ("test", "validation", "train") if split in self.predicted)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Sizes, times, roughness, and errors of forces by element and magnitude."""
        settings, data = self.settings, self.data[self.analysed]
        facts: dict[str, Any] = {
            "name": settings.name,
            "structures": {name: len(part) for name, part in self.data.items()},
            "epochs": self.epochs,
            "steps": self.steps,
            "seconds": self.seconds,
            "device": settings.device,
            "processes": self.processes,
            "precision": settings.precision,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "change_under_rotation": rotation_change(self.model, data),
            "roughness": {"left_out": "a short report"} if self.short else surface(self.model, self.data["train"]),
        }
        if "forces" in self.predicted[self.analysed] and data.labelled("forces"):
            size, unit = self.unit("forces")
            forces = self.predicted[self.analysed]["forces"]
            facts |= {"forces_unit": unit, "forces_split": self.analysed}
            facts |= {"forces_by_element": by_element(forces, data, size)}
            facts |= {"forces_by_magnitude": by_magnitude(forces, data, size)}
        return facts

    @property
    def short(self) -> bool:
        """Whether there are neither pictures nor a roughness."""
        return self.settings.report == "short"

    def unit(self, name: str) -> tuple[float, str]:
        """Size and name of the unit in which errors of a label are reported."""
        return report_unit(name, self.model, self.settings.report_units)


def write(finished: Finished, output: Path) -> Path:
    """Write the model, and beside it all that is known of it; pictures only if matplotlib is installed."""
    settings, model = finished.settings, finished.model
    provenance = {
        "data": "; ".join(
            f"{source.file} ({source.origin})" if source.origin else source.file for source in settings.data
        ),
        "data_sha256": finished.data_sha256,
        "level_of_theory": finished.level_of_theory,
        "description": settings.description,
        "limits": settings.limits,
        "epochs": str(finished.epochs),
        **({"weights of": Path(settings.start_from).name} if settings.start_from else {}),
    }
    provenance |= {
        f"MAE, {split}": format_errors(table) for split, table in finished.tables.items() if split != "train"
    }
    model.config = model.config.model_copy(update={"provenance": provenance})
    path = output_file(settings)
    save_model(model, path)
    write_resolved(settings, output / "settings.toml", {"data_sha256": finished.data_sha256})
    write_split(finished.data, output / "split.csv")
    write_json(statistics(finished.data), output / "statistics.json")
    write_json(finished.tables, output / "errors.json")
    with atomic_write(output / "history.csv") as temporary, temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(finished.history[-1]) if finished.history else ["epoch"])
        table.writeheader()
        table.writerows(finished.history)
    with atomic_write(output / f"{settings.name}.md") as temporary:
        temporary.write_text(model_card(finished), encoding="utf-8")
    data, values = finished.data[finished.analysed], finished.predicted[finished.analysed]
    worst = next((name for name in ("forces", *values) if name in values and data.labelled(name)), None)
    if worst is not None:
        write_worst(output / "worst.xyz", worst, values, data, model)
    write_json(finished.facts, output / "training.json")
    if importlib.util.find_spec("matplotlib") and not finished.short:
        pictures(finished, output)
    return path


def write_json(value: Any, path: Path) -> None:
    """Write plain data as JSON that people read."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def model_card(finished: Finished) -> str:
    """Markdown: data, level of theory, errors, limits."""
    settings, config, facts = finished.settings, finished.model.config, finished.facts
    network = config.representation
    columns = list(finished.tables.values())
    rows = [f"| property | {' | '.join(finished.tables)} | unit |", f"|---|{'---|' * len(columns)}---|"]
    for name in finished.names:
        entries = [table.get(name) for table in columns]
        cells = [f"{entry['mae']:.4f}" if entry else "" for entry in entries]
        unit = next((entry["unit"] for entry in entries if entry), "")
        if any(cells):
            rows.append(f"| {name} | {' | '.join(cells)} | {unit} |")
    origin = f"from the weights of {Path(settings.start_from).name}, " if settings.start_from else ""
    rate = f"learning rate {settings.learning_rate:g}, batches of {finished.batch_size}, seed {settings.seed}"
    counts = ", ".join(f"{n} {split}" for split, n in facts["structures"].items())
    elements = ", ".join(f"{row['element']} {row['mae']:.4f}" for row in facts.get("forces_by_element", []))
    return "\n".join(
        [
            f"# {settings.name}",
            "",
            settings.description or "A PaiNN model.",
            "",
            f"- **Level of theory**: {finished.level_of_theory or 'not stated'}",
            f"- **Data**: {counts} structures",
            *(f"    - `{source.file}`: {source.origin or 'origin not stated'}" for source in settings.data),
            f"- **Network**: {network.n_features} features, {network.n_layers} layers, "
            f"{network.n_rbf} {network.radial_basis} functions, cut-off {network.cutoff} {config.length_unit}; "
            f"{facts['parameters']:,} parameters",
            f"- **Training**: {origin}{finished.epochs} epochs, {finished.seconds / 60:.0f} minutes, "
            f"{settings.precision} on {settings.device}; {rate}",
            f"- **Limits**: {settings.limits or 'not stated'}",
            f"- **Roughness**: {describe_surface(facts['roughness'])}",
            "",
            "Mean absolute errors:",
            "",
            *rows,
            "",
            *([f"Forces by element, {facts['forces_unit']}: {elements}.", ""] if elements else []),
            f"When all structures turn, errors change by at most {facts['change_under_rotation']:.0e} of themselves.",
            "",
        ]
    )


def pictures(finished: Finished, output: Path) -> None:
    """Learning curves, predictions against labels of the analysed split, and errors of forces."""
    if finished.history:
        _learning_curves(finished, output / "learning_curves.png")
    _parity(finished, output / "parity.png")
    if "forces_by_element" in finished.facts:
        _forces(finished.facts, output / "forces.png")


def _figure(columns: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """A figure of as many axes beside each other, each `width` x `height` inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height), layout="constrained")
    return figure, list(np.atleast_1d(np.asarray(figure.subplots(1, columns))))


def _save(figure: Any, output: Path) -> None:
    with atomic_write(output) as path:
        figure.savefig(path, dpi=120, format="png")


def _forces(facts: dict[str, Any], output: Path) -> None:
    """Errors of forces by element and by magnitude."""
    figure, (left, right) = _figure(2, 3.8, 3.4)
    elements, bins = facts["forces_by_element"], facts["forces_by_magnitude"]
    left.bar([row["element"] for row in elements], [row["mae"] for row in elements], width=0.6)
    left.set(xlabel="element of the atom", ylabel=f"MAE of a component / {facts['forces_unit']}")
    right.stairs([row["mae"] for row in bins], [bins[0]["from"], *(row["to"] for row in bins)], fill=True)
    right.set(xlabel=f"length of the reference force / {facts['forces_unit']}")
    for row in bins:
        middle = 0.5 * (row["from"] + row["to"])
        right.text(
            middle, row["mae"], f"{row['atoms']} atoms", ha="center", va="bottom", fontsize="x-small", rotation=90
        )
    right.margins(y=0.25)
    for k, row in enumerate(elements):
        left.text(k, row["mae"], f"{row['atoms']}", ha="center", va="bottom", fontsize="x-small")
    figure.suptitle(f"Errors of forces, {facts['forces_split']}; numbers of atoms at the bars", fontsize="medium")
    _save(figure, output)


def _learning_curves(finished: Finished, output: Path) -> None:
    history = finished.history
    names = [name for name in finished.names if name in history[-1]]
    figure, (losses, *others) = _figure(1 + len(names), 4.0, 3.4)
    epochs = [entry["epoch"] for entry in history]
    for key in ("train_loss", "validation_loss"):
        losses.semilogy(epochs, [entry[key] for entry in history], label=key.replace("_", " "))
    losses.legend(frameon=False)
    losses.set(xlabel="epoch", ylabel="loss")
    for axis, name in zip(others, names, strict=True):
        axis.semilogy(epochs, [entry[name] for entry in history], color="C1")
        axis.set(xlabel="epoch", ylabel=f"validation MAE / {finished.unit(name)[1]}", title=name)
    plain_numbers(*(axis.yaxis for axis in (losses, *others)))
    _save(figure, output)


def _parity(finished: Finished, output: Path) -> None:
    labels, predicted = finished.data[finished.analysed].labels, finished.predicted[finished.analysed]
    names = [name for name in predicted if np.isfinite(labels[name]).any()]
    figure, axes = _figure(max(len(names), 1), 3.8, 3.6)
    for axis, name in zip(axes, names, strict=False):
        size, unit = finished.unit(name)
        x, y = labels[name].ravel() / size, predicted[name].ravel() / size
        known = np.isfinite(x)
        x, y = x[known], y[known]
        shift = x.mean() if name == "energy" else 0.0
        low, high = min(x.min(), y.min()) - shift, max(x.max(), y.max()) - shift
        margin = 0.04 * (high - low) or 1.0
        axis.plot(x - shift, y - shift, ".", markersize=3, alpha=0.6)
        axis.axline((low, low), slope=1, color="0.6", linewidth=0.8, zorder=0)
        axis.set(title=f"{name}, {finished.analysed}", xlabel=f"reference / {unit}", ylabel=f"model / {unit}")
        axis.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin), aspect="equal")
        axis.text(
            0.04, 0.96, f"MAE {np.abs(y - x).mean():.3g} {unit}\nn = {len(x)}", transform=axis.transAxes, va="top"
        )
    _save(figure, output)
