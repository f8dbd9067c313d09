"""`painn-fast label`: a training set from geometries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from painn_fast.cli.given import check_files
from painn_fast.cli.options import flag, number, pairs


def label(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Structures: anything that ASE reads (Å), .npz with R and z, or a folder of dynamics.",
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="METHOD",
            help="pyscf (energies, forces, dipoles, polarizabilities), tblite (the same; polarizabilities too small), "
            "model:NAME, or an ASE calculator as module:Class, such as ase.calculators.emt:EMT.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help=".xyz, .extxyz, or .npz for one composition.")
    ] = Path("labelled.xyz"),
    level: Annotated[
        str | None, flag("LEVEL", 'Level of theory. Default: "PBE0/def2-SVPD" of pyscf, "GFN2-xTB" of tblite.')
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Of the method, such as grid_level=3 or conv_tol=1e-10 (Hartree) of pyscf."
        ),
    ] = None,
    properties: Annotated[
        str | None,
        flag(
            "NAMES",
            "Labels to compute, of energy, forces, stress, dipole and polarizability, such as dipole,polarizability. "
            "Default: all that the method gives.",
        ),
    ] = None,
    polarizability_every: Annotated[
        int | None,
        flag(
            "N",
            "Polarizability of every Nth structure too, 0 for none. Default: 5, or 1 if it is among the properties.",
            parser=number(0),
        ),
    ] = None,
    every: Annotated[int, flag("N", "Label every Nth structure of the file. Default: 1.", parser=number(1))] = 1,
    workers: Annotated[
        int | None, flag("N", "Processes. Default: one for each processor.", parser=number(1, 4096))
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is labelled already.")] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Write what is labelled so far, and label nothing more.")
    ] = False,
) -> None:
    """Label structures by electronic structure: energy (eV), forces (eV/Å), dipole (e Å), polarizability (Å³).

    Charge (e) and spin multiplicity come from `charge` and `spin` in the file. Finished labels are on disk at once;
    Ctrl-C, or a kill, loses only what is being computed. A structure that fails is reported and left out.

    Example: painn-fast label geometries.xyz --with pyscf --output labelled.xyz
    """
    given = {name: value_of(text) for name, text in pairs("--option", option).items()}
    check_files(file)
    from painn_fast.label import label as run

    typer.echo(
        run(
            file,
            output,
            method=method,
            level=level,
            options=given,
            properties=tuple(name.strip() for name in properties.split(",")) if properties else (),
            polarizability_every=polarizability_every,
            every=every,
            workers=workers,
            resume=resume,
            finish=finish,
        )
    )


def value_of(text: str) -> Any:
    """A number where it is one, else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
