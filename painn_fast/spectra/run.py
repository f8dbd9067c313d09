"""A whole spectrum: harmonic lines, dynamics, then infrared, Raman and power spectra as tables and a picture."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import ase
from rich.console import Console

from painn_fast import md
from painn_fast.correlation.series import SpectrumStreams
from painn_fast.errors import PaiNNFastError
from painn_fast.io import load
from painn_fast.io.find import MODELS, bundled
from painn_fast.io.model_file import fingerprint
from painn_fast.io.structures import read_structures, write_extxyz
from painn_fast.md import Trajectory
from painn_fast.nn import Potential
from painn_fast.runtime.ranks import Ranks, ranks
from painn_fast.settings import write_resolved
from painn_fast.spectra import table
from painn_fast.spectra.analyse import SpectrumResult, analyse
from painn_fast.spectra.captions import conditions, method_name, subtitle, title
from painn_fast.spectra.overlay import Overlay, read_overlays
from painn_fast.spectra.panels import can_draw
from painn_fast.spectra.plot import draw
from painn_fast.spectra.report import harmonic_table, peak_table
from painn_fast.spectra.settings import DYNAMICS, SpectrumSettings
from painn_fast.spectra.te_pigs import train_correction
from painn_fast.vibrations.harmonic import HarmonicSpectrum, harmonic
from painn_fast.vibrations.method import Method

PATIENCE = timedelta(days=100)
"""Longest wait of processes that have done their share of the dynamics for the others."""
OBSERVED = ("dipole", "polarizability")
PICTURES = ("spectrum.png", "spectrum.svg")
TABLES = ("harmonic.csv", "infrared.csv", "raman.csv", "power.csv", "peaks.csv")
COMPARISON = ("comparison.csv", "comparison.png", "comparison.svg")
OUTPUTS = (*TABLES, "harmonic.xyz", "settings.toml", *PICTURES, *COMPARISON)


def run(settings: SpectrumSettings, *, resume: bool = False, overwrite: bool = False) -> SpectrumResult:
    """Compute the spectra of a molecule; progress goes to stderr, the list of peaks to stdout, files to a folder.

    Files: harmonic.csv and harmonic.xyz (the minimum), infrared.csv, raman.csv, power.csv (if velocities are
    recorded), peaks.csv, spectrum.png and .svg, settings.toml, and the trajectory in dynamics/.

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
        model, frames = model_and_structures(settings, trajectory)
        about = {} if model is None else about_model(model)
        lines = None
        if group.first:
            check_output(settings.folder, resume or overwrite)
            lines = None if model is None else harmonic_lines(model, frames[0], say, settings.hessian)
            prepare_output(settings, about, overwrite)
            if lines is not None:
                write_harmonic(settings.folder, lines, about)
        lines = group.broadcast_from_rank_0(lines)
        if trajectory is None:
            trajectory = dynamics(settings, model, lines, frames, group, resume=resume, overwrite=overwrite)
        result = analyse(trajectory, settings, lines, SpectrumStreams.load(trajectory.path))
        if group.first:
            write(result, trajectory, settings, about, overlays)
            Console(file=sys.stdout).print(peak_table(result.infrared_peaks, result.raman_peaks))
            say.print(f"wrote {settings.folder / PICTURES[0] if can_draw() else settings.folder}")
        return result


def progress_console(group: Ranks) -> Console:
    """For progress, of the first process only; a note if there will be no picture."""
    say = Console(file=sys.stderr, highlight=False, soft_wrap=True, quiet=not group.first)
    if not can_draw():
        say.print("no matplotlib: there will be tables but no picture; pip install 'painn-fast[plot]'")
    return say


def dynamics(
    settings: SpectrumSettings,
    model: Potential | None,
    lines: HarmonicSpectrum | None,
    frames: list[ase.Atoms],
    group: Ranks,
    *,
    resume: bool,
    overwrite: bool,
) -> Trajectory:
    """Run the dynamics, from the minimum and the other structures in turn; wait for all processes."""
    start = frames if lines is None else [lines.atoms, *frames[1:]]
    if settings.method == "te-pigs" and settings.correction is None:
        train_correction(settings, start, resume=resume, overwrite=overwrite)
    observed = tuple(name for name in OBSERVED if model is None or name in model.properties)
    observed += ("velocities",) if settings.velocities_every is not None else ()
    path = md.run(settings.dynamics(observed), atoms=start, resume=resume, overwrite=overwrite)
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
            raise PaiNNFastError("no model", where="model", expected="a bundled name or a model file")
        return None, []
    model = load(settings.model, **settings.load_options, device=settings.device)
    if not set(OBSERVED) & set(model.properties) and settings.velocities_every is None and trajectory is None:
        raise PaiNNFastError(
            "the model gives neither dipole nor polarizability",
            where=settings.model,
            got=", ".join(model.properties),
            fix='velocities_every = "2 fs" (--velocities-every) makes a power spectrum',
        )
    own = MODELS / f"{settings.model}.xyz"
    if settings.structure is not None:
        return model, read_structures(settings.structure)
    if settings.model in bundled() and own.exists():
        return model, read_structures(own)
    if trajectory is not None and "positions" in trajectory.names:
        return model, trajectory.atoms()[:1]
    raise PaiNNFastError("no structure to start from", where="structure", expected="a file that ASE reads")


def harmonic_lines(model: Potential, atoms: ase.Atoms, say: Console, method: Method) -> HarmonicSpectrum:
    """The harmonic spectrum, with its table and its warnings on the console."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        lines = harmonic(model, atoms, method=method)
    for warning in caught:
        say.print(f"warning: {warning.message}", style="yellow")
    say.print(harmonic_table(lines))
    return lines


def about_model(model: Potential) -> dict[str, str]:
    config = model.config
    return {"model": config.name, "model sha256": fingerprint(model.state_dict()), **config.provenance}


def write_harmonic(folder: Path, lines: HarmonicSpectrum, about: dict[str, str]) -> None:
    header = {"what": "harmonic spectrum at the minimum", **about, **lines.about()}
    table.write_harmonic(folder / "harmonic.csv", lines, header)
    write_extxyz(folder / "harmonic.xyz", lines.atoms)


def write(
    result: SpectrumResult,
    trajectory: Trajectory,
    settings: SpectrumSettings,
    about: dict[str, str],
    overlays: Sequence[Overlay] = (),
) -> None:
    """Tables, then the picture."""
    about = {**about, **conditions(trajectory, settings)}
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
            result.harmonic,
            (result.infrared_peaks, result.raman_peaks),
            result.power,
            overlays=overlays,
            title=title(result, trajectory, about),
            subtitle=subtitle(result, settings, about, method_name(trajectory)),
        )
