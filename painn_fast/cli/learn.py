"""`painn-fast learn`: a model of a molecule, from one geometry and a method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from painn_fast.cli.given import check_files
from painn_fast.cli.label import value_of
from painn_fast.cli.options import Flags, pairs, with_flags


@with_flags(
    flags=Flags(
        "learn.settings", "LearnSettings", omit=("structure", "options"),
        names={"method": ("--with",), "surface": ("--surface",)},
    )
)  # fmt: skip
def learn(
    structure: Annotated[
        Path, typer.Argument(metavar="GEOMETRY", help="A molecule: anything that ASE reads (Å), the first frame.")
    ],
    *,
    flags: dict[str, Any],
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the method, such as grid_level=3 of pyscf.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Time one label, predict the total, and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
) -> None:
    """Learn a molecule from one geometry: sample, label, train, explore, label what is new, train on.

    The output folder gets model.safetensors, which contains its minima (painn-fast spectrum FOLDER/model.safetensors),
    report.md and report.png: how far it can be trusted. Errors are those on fresh beads of its own dynamics, which no
    training sees. Finished labels are on disk at once; --resume goes on after a kill and labels nothing twice. Charge
    (e) and spin multiplicity come from `charge` and `spin` in the file.

    Example: painn-fast learn methanol.xyz --with pyscf --labels 500 --time "8 h"
    """
    from painn_fast.learn.settings import LearnSettings

    check_files(structure)
    options = {name: value_of(text) for name, text in pairs("--option", option).items()}
    settings = LearnSettings.parse({**flags, "structure": str(structure), "options": options}, where="flags")
    from painn_fast import learn as room

    if dry_run:
        typer.echo(room.prediction(settings))
        return
    typer.echo(room.learn(settings, resume=resume, overwrite=overwrite))
