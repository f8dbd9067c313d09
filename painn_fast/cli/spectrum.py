"""`painn-fast spectrum`: infrared and Raman, from dynamics and from the Hessian."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from painn_fast.cli.options import (
    DipoleUnit,
    EnergyUnit,
    Heads,
    LengthUnitOrFile,
    Output,
    PolarizabilityUnit,
    Text,
    flag,
    given,
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
    trajectory: Annotated[Text, flag("PATH", "Analyse this run of dynamics instead of doing one.")] = None,
    method: Annotated[
        list[str] | None,
        flag("NAME", "t-rpmd, rpmd or classical; several, as a,b or by several flags, are compared. Default: t-rpmd."),
    ] = None,
    beads: Annotated[int | None, flag("P", "Beads of the ring polymer. Default: 16.")] = None,
    trajectories: Annotated[int | None, flag("S", "Trajectories, run as one batch. Default: 12.")] = None,
    temperature: Annotated[Text, flag("K", 'Temperature. Default: "300 K".')] = None,
    time_step: Annotated[Text, flag("TIME", 'Time step. Default: "0.5 fs".')] = None,
    equilibration: Annotated[
        Text, flag("TIME", 'Thermostatted time before each trajectory. Default: "0.25 ps".')
    ] = None,
    duration: Annotated[Text, flag("TIME", 'Time of each trajectory. Default: "2 ps".')] = None,
    tau: Annotated[Text, flag("TIME", 'Time constant of the thermostat before. Default: "50 fs".')] = None,
    fragments: Annotated[
        Text, flag("WHAT", "Where a bond breaks: stop the trajectory (usual), note it, or off (usual in a cell).")
    ] = None,
    remove_rotation: Annotated[bool, typer.Option("--remove-rotation", help="Start without angular momentum.")] = False,
    seed: Annotated[int | None, flag("N", "Seed of velocities and noise. Default: 0.")] = None,
    dipole_every: Annotated[Text, flag("TIME", 'Between records of the dipole. Default: "2 fs".')] = None,
    polarizability_every: Annotated[Text, flag("TIME", 'Between polarizabilities. Default: "2 fs".')] = None,
    velocities_every: Annotated[Text, flag("TIME", "Between velocities, for a power spectrum. Default: never.")] = None,
    window: Annotated[Text, flag("NAME", "Window on the correlation function. Default: gaussian.")] = None,
    depth: Annotated[Text, flag("TIME", 'Length of the correlation function. Default: "1.2 ps".')] = None,
    highest: Annotated[Text, flag("WAVENUMBER", 'End of the spectra. Default: "4000 cm-1".')] = None,
    laser: Annotated[Text, flag("WAVELENGTH", 'Of the Raman laser. Default: "532 nm".')] = None,
    quantum_correction: Annotated[Text, flag("NAME", "Of a classical run. Default: harmonic.")] = None,
    overlay: Annotated[
        list[str] | None,
        flag("FILE", "CSV of wavenumber (cm-1) and intensity to draw over the spectrum, scaled; repeatable."),
    ] = None,
    hessian: Annotated[
        Text, flag("NAME", "Of the harmonic lines: differences or analytic. Default: differences.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Keep correlation functions and no frames, for very long runs.")
    ] = False,
    checkpoint: Annotated[Text, flag("TIME", 'Wall-clock time between restart files. Default: "60 s".')] = None,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnitOrFile = None,
    dipole_unit: DipoleUnit = None,
    polarizability_unit: PolarizabilityUnit = None,
    heads: Heads = None,
    dtype: Annotated[Text, flag("DTYPE", "Of the network in dynamics. Default: float32.")] = None,
    device: Annotated[Text, flag("DEVICE", "cpu, cuda, cuda:1, ... Default: cpu.")] = None,
    output: Output = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the dynamics in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the folder holds.")] = False,
) -> None:
    """Infrared and Raman spectrum of a molecule, anharmonic from ring-polymer dynamics, and harmonic.

    Infrared intensities are absolute, in km/mol; wavenumbers in cm-1. Quantities carry their unit: times "0.5 fs" or
    "3 ps", temperatures "300 K". Flags override the file. The output folder (default: MODEL-spectrum) gets
    spectrum.png, tables as CSV, the list of peaks, the resolved settings and the trajectory; for several methods a
    folder each, and comparison.png and comparison.csv.
    """
    from painn_fast.settings import load_settings
    from painn_fast.spectra import SpectrumSettings, compare, run

    flags = given(
        model=model,
        structure=structure,
        trajectory=trajectory,
        method=method or None,
        methods=() if method else None,  # flags override what a file compares
        beads=beads,
        trajectories=trajectories,
        temperature=temperature,
        time_step=time_step,
        equilibration=equilibration,
        duration=duration,
        tau=tau,
        fragments=fragments,
        remove_rotation=remove_rotation or None,
        seed=seed,
        dipole_every=dipole_every,
        polarizability_every=polarizability_every,
        velocities_every=velocities_every,
        window=window,
        depth=depth,
        highest=highest,
        laser=laser,
        quantum_correction=quantum_correction,
        overlay=overlay or None,
        hessian=hessian,
        stream=stream or None,
        checkpoint=checkpoint,
        energy_unit=energy_unit,
        length_unit=length_unit,
        dipole_unit=dipole_unit,
        polarizability_unit=polarizability_unit,
        heads=heads,
        dtype=dtype,
        device=device,
        output=output,
    )
    settings = load_settings(SpectrumSettings, config, flags)
    (compare if settings.methods else run)(settings, resume=resume, overwrite=overwrite)
