"""`painn-fast doctor`: is this installation sound?"""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    warm: Annotated[
        bool, typer.Option("--warm", help="Compile for this processor what the verbs need, and check nothing.")
    ] = False,
) -> None:
    """Check the installation: versions, threads, CPU, GPU, folders, and the bundled models against themselves.

    One line a check: ok, warn or fail, what was found (forces in eV/Å, times in ms, roughness in cm-1) and how to mend
    it. The exit code is 1 if one fails.

    Example: painn-fast doctor --warm
    """
    if warm:
        _warm()
        return
    from painn_fast.doctor import examine

    failed = False
    for check in examine():
        failed |= check.state == "fail"
        mend = f"; fix: {check.fix}" if check.fix else ""
        typer.echo(f"{check.state:<4}  {check.name}: {check.result}{mend}")
    if failed:
        raise typer.Exit(1)


def _warm() -> None:
    import time

    from painn_fast.runtime.progress import StatusLine, clock
    from painn_fast.warm import JOBS, warm

    start = time.monotonic()
    with StatusLine(every=0) as status:
        status.update(f"compiling for this processor, once: about a minute, {len(JOBS)} kinds of work")
        for k, kind in enumerate(warm(), 1):
            status.update(f"{k} of {len(JOBS)}: {kind}, {clock(time.monotonic() - start)}")
        status.keep(f"compiled in {clock(time.monotonic() - start)}")
