"""`painn-fast select`: structures to label next."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from painn_fast.cli.given import EXTXYZ, check_files, check_model, check_output
from painn_fast.cli.options import MODEL_FILE, Device, Dtype, flag, number, with_flags


@with_flags(options=MODEL_FILE)
def select(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Candidates: anything that ASE reads (Å), .npz with R and z, or a folder of dynamics.",
        ),
    ],
    model: Annotated[
        list[str], typer.Option("--model", "-m", metavar="MODEL", help="Member of the ensemble; two or more.")
    ],
    at_most: Annotated[
        int, flag("N", "Choose so many at most. Default: 1000.", "--number", "-n", parser=number(1))
    ] = 1000,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Extended XYZ, the most doubtful structure first.")
    ] = Path("selected.xyz"),
    every: Annotated[int, flag("N", "Consider every Nth candidate. Default: 1.", parser=number(1))] = 1,
    apart: Annotated[
        float,
        flag(
            "Å",
            "Least difference from each other, of all interatomic distances together. Default: 0.25.",
            parser=number(0, 1e6, whole=False),
        ),
    ] = 0.25,
    spread_below: Annotated[
        float,
        flag(
            "EV/Å",
            "Leave out structures above it, where forces make no sense. Default: no limit.",
            parser=number(0, math.inf, whole=False),
        ),
    ] = math.inf,
    *,
    options: dict[str, Any],
    dtype: Dtype = None,
    device: Device = None,
) -> None:
    """Choose the structures that the models of an ensemble disagree on most, to be labelled next.

    Disagreement is the standard deviation of the force on an atom, in eV/Å, of the atom where it is largest.

    Example: painn-fast select md -m a.safetensors -m b.safetensors --number 50
    """
    check_files(file)
    check_output(output, EXTXYZ, [file])
    for one in model:
        check_model(one, options, dtype=dtype, device=device)
    from painn_fast.ensemble import Ensemble
    from painn_fast.io.structures import write_extxyz
    from painn_fast.label.structures import structures
    from painn_fast.select import select as choose
    from painn_fast.select import summary

    candidates = structures(file)[::every]
    ensemble = Ensemble(model, **options, dtype=dtype, device=device or "cpu")
    selection = choose(ensemble, candidates, at_most, apart=apart, spread_below=spread_below)
    frames = []
    for k in selection.chosen:
        frames.append(candidates[k].copy())
        frames[-1].info |= {"forces_spread": float(selection.spread[k]), "candidate": int(k) * every}
    write_extxyz(output, frames)
    typer.echo(summary(selection))
    typer.echo(output)
