"""`painn-fast data`: what labelled files hold, whether it makes sense, and all of it in one HDF5 file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from painn_fast.cli.options import Exclude, Geometry, Periodic, Symbols, pairs


def data(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Labelled structures: .npz, .npy, .xyz, .h5, ASE's .db, QM9's archive, or what else ASE reads.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="SET.h5", help="Write all of them into this file.", show_default=False),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=ARRAY", help="Array that holds a label, such as energy=u0; forces= for none."),
    ] = None,
    data_unit: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=UNIT", help="Unit where a file does not say it, such as energy=kcal/mol."),
    ] = None,
    symbols: Symbols = None,
    geometry: Geometry = None,
    exclude: Exclude = None,
    periodic: Periodic = None,
    warn: Annotated[bool, typer.Option("--warn", help="Report doubtful data, do not stop at them.")] = False,
) -> None:
    """Print what files hold, check it as a training does, and gather it in one HDF5 file.

    Labels are printed and written in eV, eV/Å, e Å and Å³, other numbers in the units that the files declare.
    """
    from painn_fast.train.data import write_hdf5
    from painn_fast.train.data.check import check, judge
    from painn_fast.train.data.statistics import describe, format_statistics, statistics

    options = {
        "keys": pairs("--key", key or []),
        "units": pairs("--data-unit", data_unit or []),
        "symbols": symbols,
        "geometry": geometry,
        "exclude": exclude,
        "periodic": periodic,
    }
    parts = _parts(files, options)
    for line in (*describe(parts), *format_statistics(statistics(parts))):
        typer.echo(line)
    for line in judge(check(parts), "warn" if warn else "error"):
        typer.echo(line)
    if output is not None:
        write_hdf5(parts, output)
        typer.echo(output)


def _parts(files: list[Path], options: dict[str, Any]) -> dict[str, Any]:
    """The structures of all files by their splits; all together unless each file has one."""
    import numpy as np

    from painn_fast.train.data import SPLITS, join
    from painn_fast.train.data.read import read_frames, to_dataset
    from painn_fast.train.settings import DataFile

    found = []
    for path in files:
        source = DataFile.parse({"file": path.name, **options}, where=str(path))
        frames = read_frames(source, path.parent)
        found.append((to_dataset(frames, source, path, None), frames.split))
    splits = [split for _, split in found if split is not None]
    whole = join([part for part, _ in found])
    if len(splits) < len(found):
        return {"all": whole}
    split = np.concatenate(splits)
    return {name: whole.select(np.flatnonzero(split == k)) for k, name in enumerate(SPLITS)}
