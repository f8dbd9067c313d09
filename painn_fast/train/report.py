"""What a training leaves beside its model: errors, learning curves, parity plots, model card."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from painn_fast.nn import Potential
from painn_fast.runtime.atomic import atomic_write
from painn_fast.train.error_analysis import by_element, by_magnitude, rotation_change, write_worst
from painn_fast.train.evaluation import Arrays, Table, report_unit
from painn_fast.train.surface import in_words, surface

if TYPE_CHECKING:
    from painn_fast.train.loop import Training

Tables = dict[str, Table]


def write(training: Training, model: Potential, predicted: dict[str, Arrays], tables: Tables, output: Path) -> None:
    """Everything; pictures only where matplotlib is installed."""
    with atomic_write(output / "errors.json") as path:
        path.write_text(json.dumps(tables, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with atomic_write(output / "history.csv") as path, path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(training.history[-1]) if training.history else ["epoch"])
        table.writeheader()
        table.writerows(training.history)
    said = facts(training, model, predicted)
    with atomic_write(output / f"{training.settings.name}.md") as path:
        path.write_text(model_card(training, model, tables, said), encoding="utf-8")
    split = shown(predicted)
    data, values = training.data[split], predicted[split]
    worst = next((name for name in ("forces", *values) if name in values and data.labelled(name)), None)
    if worst is not None:
        write_worst(output / "worst.xyz", worst, values, data, model)
    with atomic_write(output / "training.json") as path:
        path.write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if importlib.util.find_spec("matplotlib"):
        pictures(training, model, predicted, said, output)


def shown(predicted: dict[str, Arrays]) -> str:
    """The split whose errors are looked into: the test structures, if there are any."""
    return next(split for split in ("test", "validation", "train") if split in predicted)


def facts(training: Training, model: Potential, predicted: dict[str, Arrays]) -> dict[str, Any]:
    """What was trained how, and where its errors are."""
    settings, split = training.settings, shown(predicted)
    data = training.data[split]
    said: dict[str, Any] = {
        "name": settings.name,
        "structures": {name: len(part) for name, part in training.data.items()},
        "epochs": training.epoch,
        "steps": training.step,
        "seconds": training.seconds,
        "device": settings.device,
        "processes": training.ranks.world,
        "precision": settings.precision,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "change_under_rotation": rotation_change(model, data),
        "roughness": surface(model, training.data["train"]),
    }
    if "forces" in predicted[split] and data.labelled("forces"):
        size, unit = report_unit("forces", model, settings.report_units)
        forces = predicted[split]["forces"]
        said |= {"forces_unit": unit, "forces_split": split}
        said |= {"forces_by_element": by_element(forces, data, size)}
        said |= {"forces_by_magnitude": by_magnitude(forces, data, size)}
    return said


def model_card(training: Training, model: Potential, tables: Tables, said: dict[str, Any]) -> str:
    """Markdown: data, level of theory, errors, limits."""
    settings, config = training.settings, model.config.representation
    counts = {split: len(part) for split, part in training.data.items()}
    rows = [f"| property | {' | '.join(tables)} | unit |", f"|---|{'---|' * len(tables)}---|"]
    for name in training.names:
        found = [table.get(name) for table in tables.values()]
        cells = [f"{row['mae']:.4f}" if row else "" for row in found]
        unit = next((row["unit"] for row in found if row), "")
        if any(cells):
            rows.append(f"| {name} | {' | '.join(cells)} | {unit} |")
    origin = f"from the weights of {settings.start_from}, " if settings.start_from else ""
    rate = f"learning rate {settings.learning_rate:g}, batches of {training.batch_size}, seed {settings.seed}"
    elements = ", ".join(f"{row['element']} {row['mae']:.4f}" for row in said.get("forces_by_element", []))
    return "\n".join(
        [
            f"# {settings.name}",
            "",
            settings.description or "A PaiNN model.",
            "",
            f"- **Level of theory**: {training.level_of_theory or 'not stated'}",
            f"- **Data**: {', '.join(f'{n} {split}' for split, n in counts.items())} structures",
            *(f"    - `{source.file}`: {source.origin or 'origin not stated'}" for source in settings.data),
            f"- **Network**: {config.n_features} features, {config.n_layers} layers, "
            f"{config.n_rbf} {config.radial_basis} functions, cut-off {config.cutoff} {model.config.length_unit}; "
            f"{said['parameters']:,} parameters",
            f"- **Training**: {origin}{training.epoch} epochs, {training.seconds / 60:.0f} minutes, "
            f"{settings.precision} on {settings.device}; {rate}",
            f"- **Limits**: {settings.limits or 'not stated'}",
            f"- **Roughness**: {in_words(said['roughness'])}",
            "",
            "Mean absolute errors:",
            "",
            *rows,
            "",
            *([f"Forces by element, {said['forces_unit']}: {elements}.", ""] if elements else []),
            f"When all structures turn, errors change by at most {said['change_under_rotation']:.0e} of themselves.",
            "",
        ]
    )


def pictures(
    training: Training, model: Potential, predicted: dict[str, Arrays], said: dict[str, Any], output: Path
) -> None:
    """Learning curves, and predictions against labels of the test rows (or, without any, the validation rows)."""
    _learning_curves(training, output / "learning_curves.png")
    _parity(training, model, predicted, output / "parity.png")
    if "forces_by_element" in said:
        _forces(said, output / "forces.png")


def _forces(said: dict[str, Any], output: Path) -> None:
    """Errors of forces by element and by magnitude."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    elements = said["forces_by_element"]
    left.bar([row["element"] for row in elements], [row["mae"] for row in elements], width=0.6)
    left.set(xlabel="element of the atom", ylabel=f"MAE of a component / {said['forces_unit']}")
    bins = said["forces_by_magnitude"]
    right.stairs([row["mae"] for row in bins], [bins[0]["from"], *(row["to"] for row in bins)], fill=True)
    right.set(xlabel=f"length of the reference force / {said['forces_unit']}")
    figure.suptitle(f"Errors of forces, {said['forces_split']}", fontsize="medium")
    with atomic_write(output) as path:
        figure.savefig(path, dpi=120, format="png")


def _learning_curves(training: Training, output: Path) -> None:
    from matplotlib.figure import Figure

    if not training.history:
        return
    names = [name for name in training.names if name in training.history[-1]]
    figure = Figure(figsize=(4 * (1 + len(names)), 3.4), layout="constrained")
    axes: Any = figure.subplots(1, 1 + len(names))
    axes = np.atleast_1d(axes)
    epochs = [entry["epoch"] for entry in training.history]
    for key in ("train_loss", "validation_loss"):
        axes[0].semilogy(epochs, [entry[key] for entry in training.history], label=key.replace("_", " "))
    axes[0].legend(frameon=False)
    axes[0].set(xlabel="epoch", ylabel="loss")
    for axis, name in zip(axes[1:], names, strict=True):
        axis.semilogy(epochs, [entry[name] for entry in training.history], color="C1")
        axis.set(xlabel="epoch", ylabel=f"validation MAE / {_unit(training, name)}", title=name)
    with atomic_write(output) as path:
        figure.savefig(path, dpi=120, format="png")


def _unit(training: Training, name: str) -> str:
    return report_unit(name, training.model, training.settings.report_units)[1]


def _parity(training: Training, model: Potential, predicted: dict[str, Arrays], output: Path) -> None:
    from matplotlib.figure import Figure

    split = shown(predicted)
    labels = training.data[split].labels
    names = [name for name in predicted[split] if np.isfinite(labels[name]).any()]
    figure = Figure(figsize=(3.8 * max(len(names), 1), 3.6), layout="constrained")
    axes: Any = np.atleast_1d(figure.subplots(1, max(len(names), 1)))
    for axis, name in zip(axes, names, strict=False):
        size, unit = report_unit(name, model, training.settings.report_units)
        x, y = labels[name].ravel() / size, predicted[split][name].ravel() / size
        known = np.isfinite(x)
        shift = x[known].mean() if name == "energy" else 0.0
        axis.plot(x[known] - shift, y[known] - shift, ".", markersize=3, alpha=0.6)
        axis.axline((0.0, 0.0), slope=1, color="0.6", linewidth=0.8, zorder=0)
        axis.set(title=f"{name}, {split}", xlabel=f"reference / {unit}", ylabel=f"model / {unit}")
    with atomic_write(output) as path:
        figure.savefig(path, dpi=120, format="png")
