"""`painn-fast md`: dynamics."""

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


def md(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="TOML file of settings.", show_default=False)
    ] = None,
    model: Annotated[Text, flag("MODEL", "A bundled model such as ethanol, or a model file.")] = None,
    member: Annotated[
        list[str] | None,
        flag("MODEL", "Member of an ensemble, instead of --model; forces are the mean."),
    ] = None,
    spread_limit: Annotated[
        Text, flag("FORCE", 'Stop a trajectory where members disagree on the force on an atom by more: "0.5 eV/Ang".')
    ] = None,
    fragments: Annotated[
        Text, flag("WHAT", "Where a bond breaks: stop the trajectory (usual), note it, or off (usual in a cell).")
    ] = None,
    structure: Annotated[Text, flag("FILE", "Where to start, a file of ASE's; a bundled model has its own.")] = None,
    ensemble: Annotated[Text, flag("NAME", "nve, langevin, rpmd, pile-l, pile-g or t-rpmd. Default: nve.")] = None,
    beads: Annotated[int | None, flag("P", "Beads of the ring polymer; 1 is classical. Default: 1.")] = None,
    trajectories: Annotated[int | None, flag("S", "Trajectories, run as one batch. Default: 1.")] = None,
    temperature: Annotated[
        Text, flag("K", 'Temperature, or one a trajectory: "300 K, 400 K". Default: "300 K".')
    ] = None,
    time_step: Annotated[Text, flag("TIME", 'Time step, or one a trajectory. Default: "0.5 fs".')] = None,
    equilibration: Annotated[Text, flag("TIME", 'Thermostatted time before the run. Default: "0 fs".')] = None,
    duration: Annotated[Text, flag("TIME", 'Time of the run. Default: "1 ps".')] = None,
    tau: Annotated[Text, flag("TIME", 'Time constant of the thermostat. Default: "100 fs".')] = None,
    start: Annotated[Text, flag("HOW", "Beads collapsed on the structure, or free. Default: collapsed.")] = None,
    remove_rotation: Annotated[bool, typer.Option("--remove-rotation", help="Start without angular momentum.")] = False,
    hold: Annotated[
        list[str] | None, flag("MOTION", "Motion of the whole that no thermostat is to begin: translation, rotation.")
    ] = None,
    seed: Annotated[int | None, flag("N", "Seed of velocities and noise. Default: 0.")] = None,
    energies_every: Annotated[Text, flag("TIME", 'Between records of energies. Default: "5 fs".')] = None,
    positions_every: Annotated[Text, flag("TIME", "Between records of positions. Default: never.")] = None,
    velocities_every: Annotated[Text, flag("TIME", "Between records of velocities. Default: never.")] = None,
    dipole_every: Annotated[Text, flag("TIME", "Between records of the dipole. Default: never.")] = None,
    polarizability_every: Annotated[Text, flag("TIME", "Between polarizabilities. Default: never.")] = None,
    stream: Annotated[
        Text,
        flag("TIME", 'Depth of correlation functions that dipoles, ... go into instead of being kept, such as "2 ps".'),
    ] = None,
    checkpoint: Annotated[Text, flag("TIME", 'Wall-clock time between restart files. Default: "60 s".')] = None,
    max_time: Annotated[Text, flag("TIME", 'Save and stop after this wall-clock time, such as "11.5 h".')] = None,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnitOrFile = None,
    dipole_unit: DipoleUnit = None,
    polarizability_unit: PolarizabilityUnit = None,
    heads: Heads = None,
    dtype: Annotated[Text, flag("DTYPE", "Of the network, float32 or float64. Default: float32.")] = None,
    backend: Annotated[Text, flag("NAME", "auto, fused (the engine) or reference. Default: auto.")] = None,
    device: Annotated[Text, flag("DEVICE", "cpu, cuda, cuda:1, ... Default: cpu.")] = None,
    output: Output = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on, bit for bit, with the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
) -> None:
    """Run dynamics of molecules: many trajectories, each of one or more beads, in one batch.

    Quantities carry their unit: times "0.5 fs" or "2 ps", temperatures "300 K". Flags override the file. The output
    folder (default: md) gets trajectory.h5 (Å, Å/fs, eV, K, e Å, Å³; times in fs), the resolved settings and what a
    restart needs. Ctrl-C, SIGTERM, --max-time or a file EXIT in the folder save and stop; --resume goes on. Under
    torchrun --nproc_per_node 2 -m painn_fast.cli md ... processes share the trajectories.
    """
    from painn_fast.md import MDSettings, run
    from painn_fast.runtime.ranks import rank_and_world_size
    from painn_fast.settings import load_settings

    flags = given(
        model=model,
        members=member or None,
        spread_limit=spread_limit,
        fragments=fragments,
        structure=structure,
        ensemble=ensemble,
        beads=beads,
        trajectories=trajectories,
        temperature=temperature,
        time_step=time_step,
        equilibration=equilibration,
        duration=duration,
        tau=tau,
        start=start,
        remove_rotation=remove_rotation or None,
        hold=hold or None,
        seed=seed,
        energies_every=energies_every,
        positions_every=positions_every,
        velocities_every=velocities_every,
        dipole_every=dipole_every,
        polarizability_every=polarizability_every,
        stream=stream,
        checkpoint=checkpoint,
        max_time=max_time,
        energy_unit=energy_unit,
        length_unit=length_unit,
        dipole_unit=dipole_unit,
        polarizability_unit=polarizability_unit,
        heads=heads,
        dtype=dtype,
        backend=backend,
        device=device,
        output=output,
    )
    path = run(load_settings(MDSettings, config, flags), resume=resume, overwrite=overwrite)
    if rank_and_world_size()[0] == 0:
        typer.echo(path)
