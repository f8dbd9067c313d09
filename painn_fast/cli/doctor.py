"""`painn-fast doctor`: is this installation sound?"""

from __future__ import annotations

import typer


def doctor() -> None:
    """Check the installation: versions, threads, CPU, GPU, folders, and the bundled models against themselves.

    One line a check: ok, warn or fail, what was found (forces in eV/Å, times in ms, roughness in cm-1) and how to mend
    it. The exit code is 1 if one fails.
    """
    from painn_fast.doctor import examine

    failed = False
    for check in examine():
        failed |= check.state == "fail"
        mend = f"; fix: {check.fix}" if check.fix else ""
        typer.echo(f"{check.state:<4}  {check.name}: {check.result}{mend}")
    if failed:
        raise typer.Exit(1)
