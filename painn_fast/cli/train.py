"""`painn-fast train`: a model from labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from painn_fast.cli.options import Output, given


def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A TOML file, or the shipped configuration ethanol.")],
    data: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the data files of the configuration are.")
    ] = Path(),
    output: Output = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on, bit for bit, with the training in the output folder.")
    ] = False,
    max_time: Annotated[
        str | None, typer.Option(metavar="TIME", help='Stop after this long, such as "2 h".', show_default=False)
    ] = None,
    max_epochs: Annotated[int | None, typer.Option(help="Stop after so many epochs.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and order.", show_default=False)] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", show_default=False)] = None,
) -> None:
    """Train a model on energies (eV), forces (eV/Å), dipoles (e Å) and polarizabilities (Å³).

    Flags override the file. Ctrl-C saves and stops; --resume goes on. Into the output folder go the model, its card,
    errors, learning curves and the resolved settings.
    """
    from painn_fast.settings import load_settings
    from painn_fast.train import TrainSettings, run
    from painn_fast.train.settings import find_config

    flags = given(
        output=output,
        max_time=max_time,
        max_epochs=max_epochs,
        seed=seed,
        threads=threads,
    )
    settings = load_settings(TrainSettings, find_config(config), flags)
    typer.echo(run(settings, data_folder=data, resume=resume))
