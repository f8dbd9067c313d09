"""`painn-fast train`: a model from labelled data."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from painn_fast.cli.given import check_files
from painn_fast.cli.options import DATA_FILE, DataUnit, Flags, Key, flag, number, pairs, with_flags

OFTEN = (
    "output", "start_from", "max_time", "max_epochs", "cooldown_epochs", "train_size", "seed", "threads", "device",
)  # fmt: skip
"""Settings with a flag; `--set` has all others."""


@with_flags(
    flags=Flags("train.settings", "TrainSettings", only=OFTEN), file=replace(DATA_FILE, panel="With --new: the file")
)
def train(
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="A TOML file, or a shipped configuration.", show_default=False),
    ] = None,
    data: Annotated[
        Path, typer.Option(metavar="PATH", help="Folder with the data files of the configuration, or its data file.")
    ] = Path(),
    list_all: Annotated[bool, typer.Option("--list", help="Show the shipped configurations.")] = False,
    new: Annotated[
        Path | None,
        flag("FILE.toml", "Write a configuration for the labels of the data file --data, to start from, and stop."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on, bit for bit, with the training in the output folder.")
    ] = False,
    *,
    flags: dict[str, Any],
    members: Annotated[
        int,
        flag("N", "An ensemble: N trainings in parallel, each from the next seed. Default: 1.", parser=number(1, 1000)),
    ] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other key, such as loss.energy=0.5 or batch_size=20."),
    ] = None,
    file: dict[str, Any],
    key: Key = None,
    data_unit: DataUnit = None,
) -> None:
    """Train a model on energies (eV), forces (eV/Å), dipoles (e Å), polarizabilities (Å³) or any scalar.

    Units of the data are those of the file or of the settings; errors are reported in those of the literature.

    Flags override the file. Ctrl-C saves and stops; --resume goes on. Into the output folder go the model, its card,
    errors, learning curves and the resolved settings; of an ensemble into member-0, member-1, ... in it. Several
    processes for one model: torchrun --nproc_per_node 2 -m painn_fast.cli train ... --key, --data-unit and the flags of
    the file are for --new, which writes them down.

    Example: painn-fast train --new my.toml --data mine.xyz
    """
    from painn_fast.errors import PaiNNFastError
    from painn_fast.settings import merged
    from painn_fast.train.settings import load_config, shipped

    if list_all:
        width = max(map(len, shipped()))
        for name, description in shipped().items():
            typer.echo(f"{name.ljust(width)}  {description}")
        return
    file = {"keys": pairs("--key", key), "units": pairs("--data-unit", data_unit), **file}
    if new is not None:
        _write_new(new, data, file, alone=not (config or resume or settings or flags or members > 1))
        return
    if any(file.values()):
        raise PaiNNFastError(
            "flags of a data file without --new",
            got=", ".join(name for name, value in file.items() if value),
            fix="a training reads them in its configuration, under [[data]]",
        )
    if config is None:
        raise PaiNNFastError("which configuration?", fix="painn-fast train --list shows the shipped ones")
    for text in settings or []:
        flags = merged(flags, _setting(text))
    loaded = load_config(config, flags)
    _check_files(loaded, data)
    from painn_fast.train import run, run_members

    if members == 1:
        typer.echo(run(loaded, data_folder=data, resume=resume))
        return
    for path in run_members(loaded, members, data_folder=data, resume=resume):
        typer.echo(path)


def _write_new(target: Path, data: Path, options: dict[str, Any], *, alone: bool) -> None:
    """Write a configuration for a data file; print what it holds, and what is to be filled in."""
    from painn_fast.errors import PaiNNFastError

    if not alone:
        raise PaiNNFastError("--new writes a configuration and trains nothing", fix="change the file that it writes")
    if target.exists():
        raise PaiNNFastError("there is such a file already", where=target, fix="choose another name, or delete it")
    if data == Path():
        raise PaiNNFastError("which data?", fix=f"painn-fast train --new {target} --data FILE")
    check_files(data, kind="data")
    from painn_fast.runtime.atomic import atomic_write
    from painn_fast.train.loop import read_data
    from painn_fast.train.settings import TrainSettings
    from painn_fast.train.starter import starter

    text, missing = starter(data, target.stem, options)
    if not missing:  # else no training could read it
        read_data(TrainSettings.parse(tomllib.loads(text), where=str(target)), data)
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    for line in text.splitlines()[: text.splitlines().index("")]:
        typer.echo(line.removeprefix("# "), err=True)
    for name in missing:
        typer.echo(f"fill in units.{name} under [[data]]: the file does not state it", err=True)
    typer.echo(target)


def _check_files(settings: Any, folder: Path) -> None:
    """Refuse data files and a model to start from that do not exist, and a device that is none."""
    from painn_fast.io.find import check_names, find
    from painn_fast.train.data.find import existing_data

    check_names(device=settings.device)
    for source in settings.data:
        existing_data(source.file, folder)
    if settings.start_from is not None:
        find(settings.start_from)


def _setting(text: str) -> dict[str, Any]:
    """KEY=VALUE as TOML reads it; a word without quotes is a string."""
    from painn_fast.errors import PaiNNFastError

    key, equals, value = text.partition("=")
    for candidate in (text, f'{key} = "{value}"'):
        try:
            return tomllib.loads(candidate)
        except tomllib.TOMLDecodeError:
            continue
    raise PaiNNFastError("cannot read --set", got=repr(text), expected="KEY=VALUE" if equals else "a key and a value")
