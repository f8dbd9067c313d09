"""Conditions of a run, for the headers of tables and pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ase

from painn_fast.correlation.series import SpectrumStreams
from painn_fast.md import Trajectory
from painn_fast.spectra.analyse import SpectrumResult, available
from painn_fast.spectra.density import nyquist
from painn_fast.spectra.settings import SpectrumSettings
from painn_fast.units import parse_quantity

TEST = "MAE, test"
"""Key of a model's provenance."""
METHODS = {
    "t-rpmd": "T-RPMD",
    "rpmd": "RPMD",
    "pile-l": "PILE-L",
    "nve": "classical NVE",
    "langevin": "classical Langevin",
}


def conditions(trajectory: Trajectory, settings: SpectrumSettings) -> dict[str, str]:
    """Method, sampling and analysis of the spectra, for the headers of tables."""
    streams, chosen = SpectrumStreams.load(trajectory.path), settings.analysis
    series = available(trajectory, streams)[0]
    if series in trajectory.names:
        every = trajectory.interval(series)
        length = every * (len(trajectory.times(series)) - 1) / 1000.0
    else:
        assert streams is not None
        every, length = streams.intervals[series], streams.length(series) / 1000.0
    count = int(trajectory.alive.sum())
    lost = trajectory.trajectories - count
    return {
        "method": _method(trajectory),
        "beads": str(trajectory.beads),
        "temperature": f"{trajectory.temperature:g} K",
        "sampling": f"{count} trajectories of {length:g} ps, {count * length:g} ps in all"
        + (f" ({lost} more stopped by guards)" if lost else ""),
        "time step": f"{trajectory.time_step:g} fs, its shift of frequencies corrected",
        "frames": f"one every {every:g} fs, Nyquist {nyquist(every):.0f} cm-1",
        "window": f"{chosen.window}, correlation depth {chosen.depth / 1000:g} ps",
        "resolution": f"{chosen.resolution:.1f} cm-1 (full width at half maximum)",
        "quantum correction": settings.quantum_correction if trajectory.beads == 1 else "none (Kubo-transformed)",
    }


def method_name(trajectory: Trajectory) -> str:
    """Such as "T-RPMD, 16 beads"."""
    return _method(trajectory) + (f", {trajectory.beads} beads" if trajectory.beads > 1 else "")


def _method(trajectory: Trajectory) -> str:
    ensemble = str(trajectory.header["ensemble"])
    settings = json.loads(str(trajectory.header.get("settings", "{}")))
    added = [Path(one).stem for one in settings.get("add", ())]
    name = METHODS.get(ensemble, ensemble)
    if ensemble == "langevin" and "tau" in settings:
        name += f" (tau {parse_quantity(settings['tau'], 'time') / 1000:g} ps)"
    return " + ".join([name, *added])


def title(result: SpectrumResult, trajectory: Trajectory, about: dict[str, str]) -> str:
    """First line of a picture."""
    named = {"infrared": result.infrared, "Raman": result.raman, "power": result.power}
    kinds = [name for name, spectrum in named.items() if spectrum is not None]
    what = f"{', '.join(kinds[:-1])} and {kinds[-1]} spectra" if len(kinds) > 1 else f"{kinds[0]} spectrum"
    system = trajectory.system
    formula = re.sub(r"(\d+)", r"$_{\1}$", ase.Atoms(system.numbers.numpy()).get_chemical_formula())
    name = about.get("model", "")
    return f"{name or formula}: {what}" + (f" ({formula})" if name else "")


def subtitle(result: SpectrumResult, settings: SpectrumSettings, about: dict[str, str], method: str = "") -> str:
    """Conditions in a picture, from those of the tables; without the method if there are several."""
    laser = f"; laser {settings.laser:g} nm" if result.raman is not None else ""
    first = f"{about['temperature']}, {about['sampling']}{laser}"
    second = f"window {about['window']}, resolution {settings.analysis.resolution:.0f} cm-1; {about['frames']}"
    lines = [f"{method}, {first}".removeprefix(", "), second]
    lines += [f"mean absolute errors of the model, test: {', '.join(about[TEST].split('  '))}"] if TEST in about else []
    lines += [about["committee"]] if "committee" in about else []
    lines += [about["torsions"]] if "torsions" in about else []
    return "\n".join(lines).replace("cm-1", "cm$^{-1}$")
