"""`painn-fast export`: a run's positions for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from painn_fast.cli.given import check_files
from painn_fast.cli.options import flag, number


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Output folder of painn-fast md, or its trajectory.h5.")],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            help="A new file: .xyz or .extxyz; .h5md, .dcd or .nc (Amber), which need MDAnalysis.",
        ),
    ],
    trajectory: Annotated[
        int | None, flag("S", "Only this trajectory, from 0. Default: a file of each.", parser=number(0))
    ] = None,
    beads: Annotated[bool, typer.Option("--beads", help="A file of each bead instead of the centroid.")] = False,
    every: Annotated[int, flag("N", "Only every Nth frame. Default: 1.", parser=number(1))] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Write the positions (Å), cell and times (fs) of a run of dynamics for other programs.

    Several trajectories or beads go into numbered files. Beside .h5md, .dcd and .nc there is an .xyz with the elements;
    their units are those of the format, such as ps.

    Example: painn-fast export md ethanol.xyz --every 2
    """
    check_files(run, kind="trajectory")
    from painn_fast.md import export as write

    for path in write(run, target, trajectory=trajectory, beads=beads, every=every, overwrite=overwrite):
        typer.echo(path)
