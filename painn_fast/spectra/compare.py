"""Several methods side by side: a run and its spectra each, one picture of all, a table of their bands."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from painn_fast.correlation.series import SpectrumStreams
from painn_fast.errors import PaiNNFastError
from painn_fast.md import Trajectory
from painn_fast.runtime.ranks import ranks
from painn_fast.spectra import table
from painn_fast.spectra.analyse import SpectrumResult, analyse
from painn_fast.spectra.bands import Band, compare_bands
from painn_fast.spectra.captions import conditions, method_name, subtitle, title
from painn_fast.spectra.molecule_lines import stick_lines
from painn_fast.spectra.overlay import read_overlays
from painn_fast.spectra.panels import can_draw
from painn_fast.spectra.plot import draw_comparison
from painn_fast.spectra.report import comparison_table
from painn_fast.spectra.run import (
    COMPARISON,
    PATIENCE,
    about_model,
    check_output,
    dynamics,
    harmonic_lines,
    model_and_structures,
    prepare_output,
    progress_console,
    report_torsions,
    write,
    write_harmonic,
)
from painn_fast.spectra.settings import SpectrumSettings

CONDITIONS = ("temperature", "sampling", "time step", "frames", "window", "resolution")
"""In the header of the table; what differs between methods is given for each."""


@dataclass(frozen=True)
class Comparison:
    """Results of each method, by its name, and the positions of their bands.

    Example:
        >>> from pathlib import Path
        >>> from painn_fast.spectra import Comparison
        >>> comparison = Comparison(Path("ethanol-spectrum"), results={}, bands=())
        >>> comparison.folder.name
        'ethanol-spectrum'
    """

    folder: Path
    results: dict[str, SpectrumResult]
    bands: tuple[Band, ...]


def compare(settings: SpectrumSettings, *, resume: bool = False, overwrite: bool = False) -> Comparison:
    """Compute the spectra of a molecule by each of `settings.methods`; the table of bands goes to stdout.

    Files: those of `run`, in a folder a method; harmonic.csv and harmonic.xyz, comparison.csv, comparison.png and .svg
    beside them.

    Args:
        settings: with several methods.
        resume: go on with an interrupted comparison; methods that are done are analysed anew.
        overwrite: replace what the folder holds.

    Returns:
        The results of all methods.

    Raises:
        PaiNNFastError: as `run`; if there is only one method.

    Example:
        >>> from painn_fast.spectra import SpectrumSettings, compare
        >>> settings = SpectrumSettings(model="ethanol", method="classical,t-rpmd")
        >>> settings.methods, settings.of("classical").beads, str(settings.of("classical").folder)
        (('classical', 't-rpmd'), 1, 'ethanol-spectrum/classical')
        >>> bands = compare(settings).bands  # doctest: +SKIP
        >>> compare(SpectrumSettings(model="ethanol"))
        Traceback (most recent call last):
        painn_fast.errors.PaiNNFastError: nothing to compare; where: methods; got: t-rpmd; expected: two or more
    """
    if not settings.methods:
        raise PaiNNFastError("nothing to compare", where="methods", got=settings.method, expected="two or more")
    with ranks("cpu", PATIENCE) as (group, _):
        folder, say = settings.folder, progress_console(group)
        overlays = read_overlays(settings.overlay, settings.highest)
        model, frames = model_and_structures(settings, None)
        assert model is not None
        about, listed, drawn = about_model(model), None, None
        if group.first:
            check_output(folder, resume or overwrite)
            listed = harmonic_lines(model, frames, say, settings, resume=resume)
            for one in (settings, *(settings.of(method) for method in settings.methods)):
                prepare_output(one, about, overwrite)
                listed = write_harmonic(one, listed, about)
            drawn = stick_lines(model, listed, settings, about, say)
        listed = group.broadcast_from_rank_0(listed)
        lines = listed.lines
        results: dict[str, SpectrumResult] = {}
        trajectories: list[Trajectory] = []
        for one in (settings.of(method) for method in settings.methods):
            trajectory = dynamics(one, model, listed, frames, group, resume=resume, overwrite=overwrite)
            result = analyse(trajectory, one, lines, SpectrumStreams.load(trajectory.path), listed)
            if group.first:
                result = replace(result, sticks=drawn)
                write(result, trajectory, one, about)
                report_torsions(result, one, listed, about, say)
            results[method_name(trajectory)] = result
            trajectories.append(trajectory)
        bands = tuple(compare_bands(lines, {name: (one.infrared, one.raman) for name, one in results.items()}))
        if not group.first:
            return Comparison(folder, results, bands)
        first = next(iter(results.values()))
        shared = _shared({name: conditions(one, settings) for name, one in zip(results, trajectories, strict=True)})
        header = {"what": "main bands by method", **about, **{key: shared[key] for key in CONDITIONS}}
        table.write_comparison(folder / COMPARISON[0], bands, header)
        if can_draw():
            draw_comparison(
                [folder / name for name in COMPARISON[1:]],
                {name: (one.infrared, one.raman, one.power) for name, one in results.items()},
                drawn,
                (first.infrared_peaks, first.raman_peaks),
                overlays=overlays,
                title=title(first, trajectories[0], about),
                subtitle=subtitle(first, settings, {**about, **shared}),
                reverse=settings.reverse_axis,
            )
        Console(file=sys.stdout).print(comparison_table(bands))
        say.print(f"wrote {folder / COMPARISON[1] if can_draw() else folder}")
        return Comparison(folder, results, bands)


def _shared(each: dict[str, dict[str, str]]) -> dict[str, str]:
    """Conditions of several methods, by their names: one value, or those of all methods."""
    names = list(next(iter(each.values())))
    values = {key: {method: of_one[key] for method, of_one in each.items()} for key in names}
    return {
        key: next(iter(of_all.values()))
        if len(set(of_all.values())) == 1
        else "; ".join(f"{value} ({method})" for method, value in of_all.items())
        for key, of_all in values.items()
    }
