"""A whole spectrum: harmonic lines, dynamics, then infrared, Raman and power spectra as tables and a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import ase
from rich.console import Console

from painn_fast import md
from painn_fast.correlation.series import SpectrumStreams
from painn_fast.errors import PaiNNFastError
from painn_fast.graph.charge import set_charge_and_multiplicity
from painn_fast.io import load
from painn_fast.io.find import AFTER_MODEL, require_model
from painn_fast.io.minima import start_structures as read_start
from painn_fast.io.minima import without_minima
from painn_fast.io.model_file import fingerprint
from painn_fast.md import Trajectory
from painn_fast.nn import Potential
from painn_fast.runtime.ranks import Ranks, ranks
from painn_fast.settings import write_resolved
from painn_fast.spectra import table
from painn_fast.spectra.analyse import SpectrumResult, analyse
from painn_fast.spectra.captions import conditions, method_name, subtitle, title
from painn_fast.spectra.conformers import (
    MINIMA,
    as_before,
    conformer_table,
    find_conformers,
    start_structures,
    write_conformers,
    write_minima,
)
from painn_fast.spectra.molecule_lines import ANHARMONIC, stick_lines
from painn_fast.spectra.overlay import Overlay, read_overlays
from painn_fast.spectra.panels import can_draw
from painn_fast.spectra.plot import draw
from painn_fast.spectra.report import harmonic_table, peak_table
from painn_fast.spectra.settings import DYNAMICS, SpectrumSettings
from painn_fast.spectra.te_pigs import train_correction
from painn_fast.vibrations.conformers import Conformers

PATIENCE = timedelta(days=100)
"""Longest wait of processes that have done their share of the dynamics for the others."""
OBSERVED = ("dipole", "polarizability")
PICTURES = ("spectrum.png", "spectrum.svg")
CONFORMERS = "conformers.csv"
TABLES = ("harmonic.csv", ANHARMONIC, CONFORMERS, "infrared.csv", "raman.csv", "power.csv", "peaks.csv")
COMPARISON = ("comparison.csv", "comparison.png", "comparison.svg")
OUTPUTS = (*TABLES, MINIMA, "settings.toml", *PICTURES, *COMPARISON)


def run(settings: SpectrumSettings, *, resume: bool = False, overwrite: bool = False) -> SpectrumResult:
    """Compute the spectra of a molecule; progress goes to stderr, the list of peaks to stdout, files to a folder.

    Files: harmonic.csv and harmonic.xyz (the minima), anharmonic.csv (if asked for), conformers.csv (if there are
    several), infrared.csv, raman.csv, power.csv (if velocities are recorded), peaks.csv, spectrum.png and .svg,
    settings.toml, and the trajectory in dynamics/.

    Under `torchrun` processes share the trajectories, and the first computes one spectrum of all.

    Args:
        settings: of the run; with a `trajectory` no dynamics is run.
        resume: go on with interrupted dynamics, or analyse finished ones anew.
        overwrite: replace what the folder holds.

    Returns:
        The spectra and peaks, with the folder of the files.

    Raises:
        PaiNNFastError: if the folder holds results and neither `resume` nor `overwrite` is given, if model, structure
            and settings do not fit, if dynamics is interrupted (it can be resumed) or exceeds a limit of its guards.

    Example:
        >>> from painn_fast import md
        >>> from painn_fast.spectra import SpectrumSettings, run
        >>> chosen = {"ensemble": "nve", "duration": "100 fs", "dipole_every": "1 fs", "output": "md"}
        >>> _ = md.run(md.MDSettings(model="ethanol", **chosen))
        >>> result = run(SpectrumSettings(trajectory="md", method="classical", depth="50 fs", output="out"))
        peaks ... harmonic cm-1...
        >>> sorted(path.name for path in result.folder.glob("*.csv"))
        ['infrared.csv', 'peaks.csv']
    """
    if settings.methods:
        raise PaiNNFastError("several methods", got=", ".join(settings.methods), fix="compare(settings) runs them")
    with ranks("cpu", PATIENCE) as (group, _):
        say = progress_console(group)
        overlays = read_overlays(settings.overlay, settings.highest)
        trajectory = None if settings.trajectory is None else Trajectory(settings.trajectory)
        settings = settings if trajectory is None else as_in(trajectory, settings)
        model, frames = model_and_structures(settings, trajectory)
        about = {} if model is None else about_model(model)
        listed, drawn = None, None
        if group.first:
            check_output(settings.folder, resume or overwrite)
            listed = None if model is None else harmonic_lines(model, frames, say, settings, resume=resume)
            prepare_output(settings, about, overwrite)
            if model is not None and listed is not None:
                listed = write_harmonic(settings, listed, about)
                drawn = stick_lines(model, listed, settings, about, say)
        listed = group.broadcast_from_rank_0(listed)
        if trajectory is None:
            trajectory = dynamics(settings, model, listed, frames, group, resume=resume, overwrite=overwrite)
        lines = None if listed is None else listed.lines
        result = analyse(trajectory, settings, lines, SpectrumStreams.load(trajectory.path), listed)
        if group.first:
            result = replace(result, sticks=drawn)
            write(result, trajectory, settings, about, overlays)
            report_torsions(result, settings, listed, about, say)
            Console(file=sys.stdout).print(peak_table(result.infrared_peaks, result.raman_peaks))
            say.print(f"wrote {settings.folder / PICTURES[0] if can_draw() else settings.folder}")
        return result


def progress_console(group: Ranks) -> Console:
    """For progress, of the first process only; a note if there will be no picture."""
    say = Console(file=sys.stderr, highlight=False, soft_wrap=True, quiet=not group.first)
    if not can_draw():
        say.print("no matplotlib: there will be tables but no picture; pip install matplotlib")
    return say


def dynamics(
    settings: SpectrumSettings,
    model: Potential | None,
    listed: Conformers | None,
    frames: list[ase.Atoms],
    group: Ranks,
    *,
    resume: bool,
    overwrite: bool,
) -> Trajectory:
    """Run the dynamics, from all conformers by their populations; wait for all processes."""
    start = frames if listed is None else start_structures(listed, settings.trajectories)
    turning = listed is not None and len(listed) > 1
    if settings.method == "te-pigs" and settings.correction is None:
        train_correction(settings, start, resume=resume, overwrite=overwrite)
    observed = tuple(name for name in OBSERVED if model is None or name in model.properties)
    observed += ("velocities",) if settings.velocities_every is not None else ()
    path = md.run(settings.dynamics(observed, positions=turning), atoms=start, resume=resume, overwrite=overwrite)
    group.wait()
    return Trajectory(path)


def check_output(folder: Path, allowed: bool) -> None:
    """Raise PaiNNFastError for a folder with results, unless they may be replaced."""
    if folder.exists() and not folder.is_dir():
        raise PaiNNFastError("the output is a file, not a folder", where=folder)
    present = [name for name in (*OUTPUTS, DYNAMICS) if (folder / name).exists()]
    if present and not allowed:
        raise PaiNNFastError(
            "the output folder holds a spectrum already",
            where=folder,
            got=", ".join(present[:3]),
            fix="resume it (resume=True, --resume), replace it (overwrite=True, --overwrite) or choose another output",
        )


def prepare_output(settings: SpectrumSettings, about: dict[str, str], overwrite: bool) -> None:
    """Make the folder, without the results of an earlier run."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    for name in OUTPUTS if overwrite else ():
        (settings.folder / name).unlink(missing_ok=True)
    provenance = {key.replace(" ", "_"): text for key, text in about.items()}
    write_resolved(settings, settings.folder / "settings.toml", provenance)


def model_and_structures(
    settings: SpectrumSettings, trajectory: Trajectory | None
) -> tuple[Potential | None, list[ase.Atoms]]:
    """The model, if one is given, and the structures to start from."""
    if not settings.model:
        if trajectory is None:
            require_model(settings.model)
        return None, []
    model = load(settings.model, **settings.load_options, device=settings.device)
    if not set(OBSERVED) & set(model.properties) and settings.velocities_every is None and trajectory is None:
        raise PaiNNFastError(
            "the model gives neither dipole nor polarizability",
            where=settings.model,
            got=", ".join(model.properties),
            fix='velocities_every = "2 fs" (--velocities-every) makes a power spectrum',
        )
    try:
        frames = read_start(settings.structure, settings.model, fix=AFTER_MODEL)
        return model, frames if trajectory is None else molecule_of(trajectory, frames, settings)
    except PaiNNFastError:
        if settings.structure is None and trajectory is not None and "positions" in trajectory.names:
            return model, trajectory.atoms()[:1]
        raise


def as_in(trajectory: Trajectory, settings: SpectrumSettings) -> SpectrumSettings:
    """Settings with what a given trajectory has: lines and populations are those of its temperature and statistics."""
    header = json.loads(str(trajectory.header.get("settings", "{}")))
    method = settings.method
    if trajectory.beads > 1:
        method = "t-rpmd" if method == "classical" else method
    elif not header.get("add"):  # which may be the correction of te-pigs
        method = "classical"
    return settings.model_copy(
        update={
            "method": method,
            "beads": trajectory.beads,
            "trajectories": trajectory.trajectories,
            "temperature": trajectory.temperature,
            "time_step": trajectory.time_step,
        }
    )


def molecule_of(trajectory: Trajectory, frames: list[ase.Atoms], settings: SpectrumSettings) -> list[ase.Atoms]:
    """Structures with the isotopes, the charge and the spin of a given trajectory.

    Raises:
        PaiNNFastError: if they are of another molecule.
    """
    system = trajectory.system
    symbols = ase.Atoms(system.numbers.numpy()).symbols
    structures = [frame.copy() for frame in frames]
    for one in structures:
        if list(one.symbols) != list(symbols):
            raise PaiNNFastError(
                "the structure is of another molecule than the trajectory",
                where=settings.structure or f"structure of model {settings.model}", got="-".join(one.symbols),
                expected="-".join(symbols), fix="give a structure with the atoms of the trajectory, in its order",
            )  # fmt: skip
        one.set_masses(system.masses.numpy())
        if trajectory.tells_charge:
            set_charge_and_multiplicity(one.info, float(system.total_charge), float(system.spin_multiplicity))
    return structures


def harmonic_lines(
    model: Potential, frames: list[ase.Atoms], say: Console, settings: SpectrumSettings, *, resume: bool
) -> Conformers:
    """Conformers and their harmonic lines, with their tables and warnings on the console."""
    listed = find_conformers(model, frames, settings, say)
    if resume:
        listed = as_before(listed, settings.folder / MINIMA)
    if len(listed) > 1:
        say.print(conformer_table(listed, settings.started))
    say.print(harmonic_table(listed.lines))
    return listed


def about_model(model: Potential) -> dict[str, str]:
    config = model.config
    return {"model": config.name, "model sha256": fingerprint(model.state_dict()), **without_minima(config.provenance)}


def write_harmonic(settings: SpectrumSettings, listed: Conformers, about: dict[str, str]) -> Conformers:
    """Write lines and minima; the conformers with the positions of the file, which a resumed run starts from too."""
    header = {"what": "harmonic spectrum at the minimum", **about, **listed.lines.about()}
    table.write_harmonic(settings.folder / "harmonic.csv", listed.lines, header)
    write_minima(settings.folder / MINIMA, listed, settings.started)
    return as_before(listed, settings.folder / MINIMA)


def report_torsions(
    result: SpectrumResult, settings: SpectrumSettings, listed: Conformers | None, about: dict[str, str], say: Console
) -> None:
    """Write conformers.csv; populations in dynamics on the console, with a warning if not equilibrated."""
    if listed is None or len(listed) == 1:
        return
    visits = result.torsions
    header = {"what": "conformers", **about, "temperature": f"{listed.temperature:g} K"}
    if visits is not None:
        header["torsions"] = "; ".join([str(visits), *visits.doubts])
        say.print(str(visits))
        for doubt in visits.doubts:
            say.print(f"warning: torsions are not equilibrated: {doubt}", style="yellow")
    write_conformers(result.folder / CONFORMERS, listed, settings.started, visits, header)


def write(
    result: SpectrumResult,
    trajectory: Trajectory,
    settings: SpectrumSettings,
    about: dict[str, str],
    overlays: Sequence[Overlay] = (),
) -> None:
    """Tables, then the picture."""
    about = {**about, **conditions(trajectory, settings)}
    about |= {} if result.torsions is None else {"torsions": str(result.torsions)}
    folder = result.folder
    if result.infrared is not None:
        table.write_infrared(folder / "infrared.csv", result.infrared, {"what": "infrared absorption", **about})
    if result.raman is not None:
        header = {"what": "Raman scattering, Stokes side", **about, "laser": f"{settings.laser:g} nm"}
        table.write_raman(folder / "raman.csv", result.raman, header)
    if result.power is not None:
        table.write_power(folder / "power.csv", result.power, {"what": "power spectrum, of centroids", **about})
    table.write_peaks(folder / "peaks.csv", result.infrared_peaks, result.raman_peaks, {"what": "peaks", **about})
    if can_draw():
        draw(
            [folder / name for name in PICTURES],
            result.infrared,
            result.raman,
            result.sticks,
            (result.infrared_peaks, result.raman_peaks),
            result.power,
            overlays=overlays,
            title=title(result, trajectory, about),
            subtitle=subtitle(result, settings, about, method_name(trajectory)),
            reverse=settings.reverse_axis,
        )
