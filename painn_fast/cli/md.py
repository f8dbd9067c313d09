"""`painn-fast md`: dynamics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from painn_fast.cli.given import check_files, check_model
from painn_fast.cli.options import Flags, with_flags

NAMES = {"members": ("--member",), "add": ("--add",), "remove_com_motion": ("--remove-com-motion", "--hold")}
"""Of flags: one for each member and each model that is added, and a name of earlier versions."""


@with_flags(flags=Flags("md.settings", "MDSettings", names=NAMES))
def md(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="TOML file of settings.", show_default=False)
    ] = None,
    *,
    flags: dict[str, Any],
    resume: Annotated[bool, typer.Option("--resume", help="Go on, bit for bit, with the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
) -> None:
    """Run dynamics of molecules: many trajectories, each of one or more beads, in one batch.

    Quantities carry their unit: times "0.5 fs" or "2 ps", temperatures "300 K". Flags override the file. The output
    folder (default: md) gets trajectory.h5 (Å, Å/fs, eV, K, e Å, Å³; times in fs), the resolved settings, what a
    restart needs, and energies.png: temperature, conserved quantity and drift. Ctrl-C, SIGTERM, --max-time or a file
    EXIT in the folder save and stop; --resume goes on. Under torchrun --nproc_per_node 2 -m painn_fast.cli md ...
    processes share the trajectories.

    Example: painn-fast md --model ethanol --duration "5 ps" --dipole-every "1 fs"
    """
    from painn_fast.io.find import require_model, start_structure
    from painn_fast.md.settings import MDSettings
    from painn_fast.runtime.ranks import rank_and_world_size
    from painn_fast.settings import load_settings

    settings = load_settings(MDSettings, config, flags)
    for model in (settings.model, *settings.members, *settings.add):
        if model:
            check_model(model, settings.options_of(model), device=settings.device)
    require_model(settings.model, *settings.members)
    check_files(start_structure(settings.structure, settings.model))
    from painn_fast.md import run

    path = run(settings, resume=resume, overwrite=overwrite)
    rank, world = rank_and_world_size()
    if world == 1:
        from painn_fast.md.picture import draw_runs

        draw_runs(path)
    if rank == 0:
        typer.echo(path)
