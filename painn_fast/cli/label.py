"""`painn-fast label`: a training set from geometries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from painn_fast.cli.options import pairs


def label(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Structures: anything that ASE reads (Å), .npz with R and z, or the folder of dynamics of ours.",
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="METHOD",
            help="pyscf (energies, forces, dipoles, polarizabilities), tblite (energies, forces, dipoles), model:NAME, "
            "or an ASE calculator as module:Class, such as ase.calculators.emt:EMT.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help=".xyz, .extxyz, or .npz for one composition.")
    ] = Path("labelled.xyz"),
    level: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL", help='Default: "PBE0/def2-SVPD" of pyscf, "GFN2-xTB" of tblite.', show_default=False
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Of the method, such as grid_level=3 or conv_tol=1e-10 (Hartree) of pyscf."
        ),
    ] = None,
    polarizability_every: Annotated[
        int, typer.Option(min=0, help="Of every so many structures also the polarizability; 0 for none.")
    ] = 5,
    every: Annotated[int, typer.Option(min=1, help="Label every so many structures of the file.")] = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; default: one for each processor.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is labelled already.")] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Write what is labelled so far, and label nothing more.")
    ] = False,
) -> None:
    """Label structures with electronic structure: energy (eV), forces (eV/Å), dipole (e Å), polarizability (Å³).

    Charge (e) and spin multiplicity come from `charge` and `spin` in the file. Finished labels are on disk at once;
    Ctrl-C, or a kill, loses only what is being computed. A structure that fails is reported and left out.
    """
    from painn_fast.label import label as run

    typer.echo(
        run(
            file,
            output,
            method=method,
            level=level,
            options={name: _value(text) for name, text in pairs("--option", option or []).items()},
            polarizability_every=polarizability_every,
            every=every,
            workers=workers,
            resume=resume,
            finish=finish,
        )
    )


def _value(text: str) -> Any:
    """A number where it is one, else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
