"""`painn-fast relax`: structures at their minima."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from painn_fast.cli.given import EXTXYZ, check_files, check_model, check_output
from painn_fast.cli.options import MODEL_FILE, Device, Dtype, Model, flag, number, with_flags

NOT_CONVERGED = 1
"""Exit code."""


@with_flags(options=MODEL_FILE)
def relax(
    model: Model,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Structures: anything that ASE reads (Å), .npz with R and z, or a folder of dynamics.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Extended XYZ, structures in the order of FILE.")
    ] = Path("relaxed.extxyz"),
    tolerance: Annotated[
        float,
        flag("EV/Å", "Largest force left on an atom. Default: 0.01.", "--force", parser=number(1e-9, 1e3, whole=False)),
    ] = 0.01,
    steps: Annotated[int, flag("N", "At most so many steps. Default: 1000.", parser=number(0))] = 1000,
    cell: Annotated[
        bool, typer.Option("--cell", help="Relax cells too, of structures that are periodic in three directions.")
    ] = False,
    *,
    options: dict[str, Any],
    dtype: Dtype = None,
    device: Device = None,
) -> None:
    """Relax structures, all in one batch: BFGS until no atom has a force above a limit in eV/Å.

    The file has energies (eV), forces (eV/Å) and with --cell stress (eV/Å³) as ASE reads them, and for each structure
    `converged` and `steps`. Constraints of the file hold. Exit code 1 if a structure has not converged.

    Example: painn-fast relax ethanol geometries.xyz --output relaxed.xyz
    """
    check_model(model, options, dtype=dtype, device=device)
    check_files(file)
    check_output(output, EXTXYZ)
    from painn_fast.io import load
    from painn_fast.io.structures import write_extxyz
    from painn_fast.label.structures import structures
    from painn_fast.runtime.progress import StatusLine, warn
    from painn_fast.vibrations import relax_many

    potential = load(model, **options, dtype=dtype, device=device or "cpu")
    with StatusLine() as status:
        ends = relax_many(potential, structures(file), tolerance=tolerance, steps=steps, cell=cell, tell=status.update)
    for end in ends:
        end.atoms.info |= {"converged": end.converged, "steps": end.steps}
    write_extxyz(output, [end.atoms for end in ends])
    missed = [k for k, end in enumerate(ends) if not end.converged]
    for k in missed:
        end, where = ends[k], f"structure {k} ({ends[k].atoms.get_chemical_formula()})"
        reason = f": {end.failure}" if end.failure else ""
        warn(f"{where} has not converged in {end.steps} steps, {end.force:.3g} eV/Å are left{reason}")
    typer.echo(f"{len(ends) - len(missed)} of {len(ends)} structures relaxed to {tolerance:g} eV/Å")
    typer.echo(output)
    if missed:
        raise typer.Exit(NOT_CONVERGED)
