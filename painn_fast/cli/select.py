"""`painn-fast select`: structures to label next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from painn_fast.cli.options import (
    Device,
    DipoleUnit,
    Dtype,
    EnergyUnit,
    Heads,
    LengthUnit,
    PolarizabilityUnit,
    load_options,
)
from painn_fast.runtime.atomic import atomic_write


def select(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Candidates: anything that ASE reads (Å), .npz with R and z, or the folder of dynamics of ours.",
        ),
    ],
    model: Annotated[
        list[str], typer.Option("--model", "-m", metavar="MODEL", help="Member of the ensemble; two or more.")
    ],
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Choose so many at most.")] = 1000,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Extended XYZ, the most doubtful structure first.")
    ] = Path("selected.xyz"),
    every: Annotated[int, typer.Option(min=1, help="Look at every so many candidates.")] = 1,
    apart: Annotated[
        float,
        typer.Option(metavar="Å", help="Least difference from each other, of all interatomic distances together."),
    ] = 0.25,
    spread_below: Annotated[
        float, typer.Option(metavar="EV/Å", help="Leave out what is above: broken structures.")
    ] = float("inf"),
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = "Ang",
    dipole_unit: DipoleUnit = None,
    polarizability_unit: PolarizabilityUnit = None,
    heads: Heads = None,
    dtype: Dtype = None,
    device: Device = None,
) -> None:
    """Choose the structures that models of one ensemble disagree on most, to be labelled and learned next.

    Disagreement is the standard deviation of the force on an atom, in eV/Å, of the atom where it is largest.
    """
    import ase.io

    from painn_fast.ensemble import Ensemble
    from painn_fast.label.structures import structures
    from painn_fast.select import select as choose
    from painn_fast.select import summary

    candidates = structures(file)[::every]
    options = load_options(energy_unit, length_unit, dipole_unit, polarizability_unit, heads)
    ensemble = Ensemble(model, **options, dtype=dtype, device=device or "cpu")
    selection = choose(ensemble, candidates, number, apart=apart, spread_below=spread_below)
    frames = []
    for k in selection.chosen:
        frames.append(candidates[k].copy())
        frames[-1].info |= {"forces_spread": float(selection.spread[k]), "candidate": int(k) * every}
    with atomic_write(output) as path:
        ase.io.write(path, frames, format="extxyz")
    typer.echo(summary(selection))
    typer.echo(output)
