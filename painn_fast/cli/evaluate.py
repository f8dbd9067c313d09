"""`painn-fast eval`: errors of a model on labelled data, or its properties of structures."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from painn_fast.cli.given import check_files, check_model
from painn_fast.cli.options import DATA_FILE, MODEL_FILE, DataUnit, Device, Dtype, Key, Model, pairs, with_flags
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.progress import aligned


@with_flags(options=MODEL_FILE, file=DATA_FILE)
def evaluate(
    model: Model,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Labelled data (.npz, .xyz, .h5, .db, ...) for a table of errors, or structures for properties.",
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            help="Which labelled structures: train, validation, test or all; default: test, or all without a split.",
            show_default=False,
        ),
    ] = None,
    *,
    file: dict[str, Any],
    key: Key = None,
    data_unit: DataUnit = None,
    properties: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Properties of structures, with commas; default: energy, forces and heads."),
    ] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the table here too.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything here, whole arrays of structures included.")
    ] = None,
    options: dict[str, Any],
    dtype: Dtype = None,
    device: Device = None,
) -> None:
    """Errors of a model on labelled data, or its properties of structures.

    Errors: energy kcal/mol, forces kcal/mol/Å, dipole D, polarizability Å³, each per component. The
    standard error of MAE is that of a sample of structures.

    Properties: energy eV, forces eV/Å, dipole e Å, polarizability Å³.

    Example: painn-fast eval ethanol molecule.xyz --csv properties.csv
    """
    file = {"keys": pairs("--key", key), "units": pairs("--data-unit", data_unit), **file}
    check_model(model, options, dtype=dtype, device=device)
    check_files(data, kind="data" if _labelled(data, file) else "structure")
    from painn_fast.io import load

    potential = load(model, **options, dtype=dtype, device=device or "cpu")
    usual = None if properties else _usual_split(potential, data, file)
    if usual is not None:
        if usual == "all" and split not in (None, usual):
            note = f"{data} has no split of its own: {split} is the draw of a training with the usual sizes and seed"
            typer.echo(f"{note}; one with others may have learned from these structures", err=True)
        table, everything = _errors(potential, data, split or usual, file)
    else:
        table, everything = _structures(potential, data, properties)
    show(table)
    if csv_file is not None:
        _write_csv(table, csv_file)
    if json_file is not None:
        with atomic_write(json_file) as path:
            path.write_text(json.dumps(everything, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _labelled(path: Path, options: dict[str, Any]) -> bool:
    """Whether a file is one of labels by its name or by flags."""
    return bool(options["keys"] or options["units"]) or path.suffix in (".npz", ".npy")


def _usual_split(potential: Any, path: Path, options: dict[str, Any]) -> str | None:
    """Split of a file that errors are reported for, or None if it holds no label that the model predicts.

    A label without a declared unit counts only in an .npz, or if flags name labels.
    """
    from painn_fast.train.data.labels import key_of, unit_of
    from painn_fast.train.data.read import read_frames
    from painn_fast.train.settings import DataFile, labels_of

    labelled = _labelled(path, options)
    source = DataFile.parse({"file": path.name, **options}, where=str(path))
    frames = read_frames(source, path.parent)
    for name in labels_of(potential.config.heads):
        labelled |= key_of(frames, source, name) is not None and unit_of(frames, source, name) is not None
    return ("all" if frames.split is None else "test") if labelled else None


def _errors(potential: Any, path: Path, split: str, options: dict[str, Any]) -> tuple[list[dict[str, Any]], Any]:
    from painn_fast.train.evaluation import error_rows, error_table

    table = error_table(potential, path, split=split, **options, tell=lambda note: typer.echo(note, err=True))
    return error_rows(table), {"data": str(path), "split": split, "errors": table}


def _structures(potential: Any, path: Path, properties: str | None) -> tuple[list[dict[str, Any]], Any]:
    import numpy as np

    from painn_fast.evaluate import evaluate as evaluate_structures
    from painn_fast.label.structures import structures

    molecules = structures(path)
    wanted = [name.strip() for name in properties.split(",")] if properties else _usual(potential, molecules)
    results = evaluate_structures(potential, molecules, wanted)
    table, everything = [], []
    for k, atoms in enumerate(molecules):
        entry = {name: np.asarray(values[k]) for name, values in results.items()}
        facts = {"structure": k, "formula": atoms.get_chemical_formula()}
        columns = [column for name, array in entry.items() for column in _columns(name, array)]
        table.append(facts | {name: f"{value:.6f}" if np.isfinite(value) else "" for name, value in columns})
        everything.append(
            facts | {name: array.tolist() if np.isfinite(array).all() else None for name, array in entry.items()}
        )
    return table, everything


def _usual(potential: Any, molecules: list[Any]) -> list[str]:
    """What is printed if nothing is asked for; nothing that no structure has, such as dipoles of crystals."""
    import numpy as np

    from painn_fast.nn.defined import defined

    pbc = np.array([atoms.pbc for atoms in molecules])
    has = [name for name in potential.properties if bool(defined(name, pbc).any())]
    names = ("energy", "forces", "dipole", "polarizability")
    return [name for name in names if name in has] or has or list(potential.properties)


def _columns(name: str, array: Any) -> list[tuple[str, float]]:
    """A property as a few numbers for a table: vectors by component, forces by the largest, tensors by their mean."""
    import numpy as np

    match name:
        case "energy":
            return [("energy / eV", float(array))]
        case "forces":
            return [("largest force / eV/Å", float(np.linalg.norm(array, axis=1).max()))]
        case "dipole":
            return [(f"mu_{axis} / e Å", float(value)) for axis, value in zip("xyz", array, strict=True)]
        case "polarizability":
            return [("mean alpha / Å³", float(np.trace(array) / 3))]
        case _:
            return [(name, float(array))] if array.ndim == 0 else [(f"norm of {name}", float(np.linalg.norm(array)))]


def show(table: list[dict[str, Any]]) -> None:
    """Columns, the first left, the others right aligned."""
    for line in aligned(table):
        typer.echo(line)


def _write_csv(table: list[dict[str, Any]], target: Path) -> None:
    with atomic_write(target) as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)
