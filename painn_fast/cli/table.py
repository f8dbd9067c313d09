"""`painn-fast table`: trainings beside the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from painn_fast.errors import reading
from painn_fast.runtime.atomic import atomic_write


def table(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Outputs of finished trainings.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write it here (Markdown).", show_default=False),
    ] = None,
) -> None:
    """Test errors of trainings beside those in print, as Markdown; each in the unit of the printed table.

    Trainings that differ by their seed alone make one row: the mean, and the standard deviation over seeds.
    Ratios have their standard error over the test structures.

    Example: painn-fast table md17-ethanol qm9-mu --output table.md
    """
    for folder in folders:
        with reading("no finished training here", folder):
            (folder / "training.json").stat()
    from painn_fast.train.paper_table import paper_table

    text = paper_table(folders)
    if output is not None:
        with atomic_write(output) as path:
            path.write_text(text, encoding="utf-8")
    typer.echo(text)
