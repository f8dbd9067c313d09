"""`painn-fast bench`: how fast it is here, beside others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from painn_fast.cli.options import Text, flag, number

WIDTH = 120
"""Columns; on a narrower terminal lines wrap, which is better than numbers cut off."""


def bench(
    cases: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CASES",
            help="ethanol-1, ethanol-10, ethanol-16, ethanol-32, ethanol-64, ethanol-1024, qm9-50, qm9-100, "
            "aspirin-1, aspirin-32, water-216, scaling. Default: all up to --max-atoms.",
            show_default=False,
        ),
    ] = None,
    sides: Annotated[
        Text,
        flag("NAMES", "fused, reference, compile, schnetpack, accelerate, dimenet, pyscf, with commas. Default: all."),
    ] = None,
    modes: Annotated[
        Text,
        flag(
            "NAMES",
            "forward, energy_forces, evaluate, calculator, training_step, training_energy, simulator_step, "
            "properties, with commas.",
        ),
    ] = None,
    device: Annotated[str, flag("DEVICE", "cpu or cuda. Default: cpu.")] = "cpu",
    threads: Annotated[
        int | None, flag("N", "Threads of torch. Default: torch's own number.", parser=number(1, 4096))
    ] = None,
    rounds: Annotated[
        int, flag("N", "Samples of each side, taken in turns. Default: 15.", parser=number(1, 10**6))
    ] = 15,
    max_atoms: Annotated[
        int | None, flag("N", "Leave larger cases out. Default: 4000 on a CPU, 100000 on a GPU.", parser=number(1))
    ] = None,
    out: Annotated[Path | None, flag("FILE", "Write everything here as JSON.")] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Measure nothing: the words are result files; print them as Markdown.")
    ] = False,
) -> None:
    """Time energies (eV), forces (eV/Å) and training steps of a model of the paper's size, beside other programs.

    Times are in ms, memory in MB. All sides have the same weights and graph and take turns; one whose numbers differ
    from the float64 reference gets no time. "floor" is the time of the matrix products alone.

    Example: painn-fast bench ethanol-1 qm9-50 --out results.json
    """
    from rich.console import Console

    from painn_fast.bench.cases import MODES, SIDES, choose, known
    from painn_fast.bench.results import read_report
    from painn_fast.errors import PaiNNFastError

    words = cases or []
    if table:
        if not words:
            raise PaiNNFastError("no result file", where="--table", expected="files that --out wrote")
        reports = [read_report(word) for word in words]
        from painn_fast.bench.table import markdown

        typer.echo(markdown(reports), nl=False)
        return
    if out is not None and out.exists():
        raise PaiNNFastError("the result file exists already", where=out, fix="choose another name")
    choose(words)
    known(_names(sides), SIDES, "side")
    known(_names(modes), MODES, "mode")
    import torch

    from painn_fast.bench.run import run
    from painn_fast.runtime.progress import StatusLine

    if threads is not None:
        torch.set_num_threads(threads)
    with StatusLine() as status:
        report = run(
            words,
            sides=_names(sides),
            modes=_names(modes),
            device=device,
            rounds=rounds,
            max_atoms=max_atoms,
            out=out,
            tell=status.update,
        )
    from painn_fast.bench.table import machine_line, notes, terminal

    typer.echo(machine_line(report))
    Console(width=WIDTH).print(terminal(report))
    for note in notes(report):
        typer.echo(note)


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",")] if text else []
