"""`painn-fast data`: what labelled files hold, checks of it, and all of it in one HDF5 file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from painn_fast.cli.given import HDF5, check_files, check_output
from painn_fast.cli.options import DATA_FILE, DataUnit, Key, pairs, with_flags


@with_flags(options=DATA_FILE)
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
    *,
    options: dict[str, Any],
    key: Key = None,
    data_unit: DataUnit = None,
    warn: Annotated[bool, typer.Option("--warn", help="Report doubtful data, do not stop at them.")] = False,
) -> None:
    """Print what files hold, check it as a training does, and gather it in one HDF5 file.

    Labels are printed and written in eV, eV/Å, e Å and Å³, other numbers in the units that the files declare.

    Example: painn-fast data labelled.xyz --output set.h5
    """
    options = {"keys": pairs("--key", key), "units": pairs("--data-unit", data_unit), **options}
    check_files(*files, kind="data")
    check_output(output, HDF5, files)
    from painn_fast.train.data import write_hdf5
    from painn_fast.train.data.check import check, judge
    from painn_fast.train.data.statistics import describe, format_statistics, statistics

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
    from painn_fast.train.data.splits import own_split
    from painn_fast.train.settings import DataFile

    read = []
    for path in files:
        source = DataFile.parse({"file": path.name, **options}, where=str(path))
        frames = read_frames(source, path.parent)
        read.append((to_dataset(frames, source, path, None), own_split(frames, path)))
    splits = [split for _, split in read if split is not None]
    whole = join([part for part, _ in read])
    if len(splits) < len(read):
        return {"all": whole}
    split = np.concatenate(splits)
    return {name: whole.select(np.flatnonzero(split == k)) for k, name in enumerate(SPLITS)}
