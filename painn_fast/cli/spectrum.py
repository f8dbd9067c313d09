"""`painn-fast spectrum`: infrared and Raman, from dynamics and from the Hessian."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from painn_fast.cli.given import check_files, check_model
from painn_fast.cli.options import Flags, Text, flag, given, with_flags


@with_flags(
    flags=Flags("spectra.settings", "SpectrumSettings", omit=("model", "structure", "method", "methods")),
)
def spectrum(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A bundled model, or a file.", show_default=False)
    ] = None,
    structure: Annotated[
        Text,
        typer.Argument(
            metavar="STRUCTURE",
            help="Where to start, a file of ASE's; a bundled model has its own.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file of settings.", show_default=False)
    ] = None,
    method: Annotated[
        list[str] | None,
        flag(
            "NAME",
            "t-rpmd, rpmd, te-pigs or classical; several, as a,b or by several flags, are compared. Default: t-rpmd.",
        ),
    ] = None,
    *,
    flags: dict[str, Any],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the dynamics in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the folder holds.")] = False,
) -> None:
    """Infrared and Raman spectrum of a molecule, anharmonic from ring-polymer dynamics, and harmonic.

    Infrared intensities are absolute, in km/mol; wavenumbers in cm-1. Quantities carry their unit: times "0.5 fs" or
    "3 ps", temperatures "300 K". Flags override the file. The output folder (default: MODEL-spectrum) gets
    spectrum.png, tables as CSV, the list of peaks, the resolved settings and the trajectory; for several methods a
    folder each, and comparison.png and comparison.csv; of a committee of models a folder each, and their mean.

    Example: painn-fast spectrum ethanol --method t-rpmd,classical
    """
    from painn_fast.io.find import AFTER_MODEL, require_model, start_structure
    from painn_fast.settings import load_settings
    from painn_fast.spectra.settings import SpectrumSettings

    if method:
        flags |= {"method": method, "methods": ()}  # flags override what a file compares
    flags |= given(model=model, structure=structure)
    settings = load_settings(SpectrumSettings, config, flags)
    if settings.model:
        check_model(settings.model, settings.load_options, device=settings.device)
    if settings.trajectory is None:
        require_model(settings.model)
        start_structure(settings.structure, settings.model, AFTER_MODEL)
    check_files(settings.structure)
    for one in settings.committee:
        check_model(one, settings.load_options)
    if settings.correction is not None:
        check_model(settings.correction)
    check_files(settings.trajectory, kind="trajectory")
    from painn_fast.spectra import compare, run, run_committee

    (compare if settings.methods else run_committee if settings.committee else run)(
        settings, resume=resume, overwrite=overwrite
    )
