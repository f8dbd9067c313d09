"""`painn-fast sample`: structures to label, from one geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from painn_fast.cli.given import EXTXYZ, check_files, check_output
from painn_fast.cli.label import value_of
from painn_fast.cli.options import Flags, pairs, with_flags

OMIT = ("structure", "options", "output", "overwrite")


@with_flags(flags=Flags("learn.settings", "SampleSettings", omit=OMIT, names={"method": ("--with",)}))
def sample(
    structure: Annotated[
        Path, typer.Argument(metavar="GEOMETRY", help="A molecule: anything that ASE reads (Å), the first frame.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Extended XYZ.")] = Path("sampled.xyz"),
    *,
    flags: dict[str, Any],
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the method, such as accuracy=0.1 of tblite.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
) -> None:
    """Sample structures of a molecule that a model is to learn, on a surface that costs little.

    Conformers from a search over torsions; beads of path-integral dynamics at 300 K, and at twice that, which start in
    all of them; structures displaced along normal modes, nearer to the minima than beads come, and farther. Of the
    beads those are chosen that differ most. The output states the kind of each structure. Charge (e) and spin
    multiplicity come from `charge` and `spin` in the file.

    Example: painn-fast sample methanol.xyz --count 400 --output samples.xyz
    """
    from painn_fast.learn.settings import SampleSettings

    check_files(structure)
    check_output(output, EXTXYZ, [structure])
    options = {name: value_of(text) for name, text in pairs("--option", option).items()}
    given = {"structure": str(structure), "output": str(output), "options": options, "overwrite": overwrite}
    settings = SampleSettings.parse({**flags, **given}, where="flags")
    from painn_fast.learn import sample as run

    typer.echo(run(settings))
