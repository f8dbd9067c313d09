"""Temperature, conserved quantity and its drift over a run, as a picture."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from painn_fast.md.trajectory import Trajectory
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.folders import molecules_of

NAME = "energies.png"
FEWEST = 3
"""Frames of a picture."""
MOST = 20
"""Trajectories that are drawn as lines of their own; the mean is of all."""


def drift(trajectory: Trajectory) -> tuple[float, float]:
    """Drift of the conserved quantity: slope of its least-squares line, mean over trajectories and standard error.

    Args:
        trajectory: with energies.

    Returns:
        meV/atom/ps, both; the error of a single trajectory is NaN.

    Example:
        >>> from painn_fast.md import MDSettings, Trajectory, run
        >>> from painn_fast.md.picture import drift
        >>> chosen = {"ensemble": "nve", "duration": "20 fs", "energies_every": "1 fs"}
        >>> value, error = drift(Trajectory(run(MDSettings(model="ethanol", **chosen))))
        >>> abs(value) < 50.0
        True
    """
    time, conserved = _conserved(trajectory)
    slopes = np.polyfit(time, conserved, 1)[0]
    count = len(slopes)
    return float(slopes.mean()), float(slopes.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")


def _conserved(trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Times [T] ps, and the conserved quantity of complete trajectories since the start [T, S], meV/atom."""
    columns = trajectory.read_columns("energies", ("time", "conserved"))
    values, atoms = columns["conserved"][:, trajectory.alive], len(trajectory.system.numbers)
    return columns["time"] / 1000.0, 1000.0 * (values - values[:1]) / atoms


def draw_runs(path: Path) -> list[Path]:
    """Draw a run, or each molecule of a run of several, into its folder.

    Args:
        path: as `run` returns it.

    Returns:
        Paths of the pictures; none without matplotlib, and of runs with fewer than three frames of energies.

    Raises:
        PaiNNFastError: if a trajectory cannot be read.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return []
    folder = path.parent if path.suffix == ".h5" else path
    runs = [Trajectory(folder / name) for name in molecules_of(folder)] or [Trajectory(path)]
    return [one.path / NAME for one in runs if _draw(one, one.path / NAME)]


def _draw(trajectory: Trajectory, path: Path) -> bool:
    """Draw one; False if there is too little to draw."""
    if "energies" not in trajectory.names or not trajectory.alive.any():
        return False
    if len(trajectory.times("energies")) < FEWEST:
        return False
    from matplotlib.figure import Figure

    time, conserved = _conserved(trajectory)
    temperature = trajectory.energies["temperature"][:, trajectory.alive]
    slope, error = drift(trajectory)
    figure = Figure(figsize=(8.0, 5.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axis, values, colour in ((upper, temperature, "#b5382a"), (lower, conserved, "#1f4e8c")):
        axis.plot(time, values[:, :MOST], color=colour, lw=0.6, alpha=0.3)
        axis.plot(time, values.mean(axis=1), color=colour, lw=1.6)
        axis.margins(x=0)
    wanted = np.unique(trajectory.temperatures)
    if len(wanted) == 1:
        upper.axhline(wanted[0], color="0.4", lw=0.8, ls="--")
    upper.set_ylabel("temperature / K")
    lower.plot(time, np.polyval(np.polyfit(time, conserved.mean(axis=1), 1), time), color="0.3", lw=1.0, ls=":")
    lower.set(xlabel="time / ps", ylabel="conserved quantity / meV atom$^{-1}$")
    spread = "" if np.isnan(error) else f" ± {error:.2g}"
    count = temperature.shape[1]
    upper.set_title(
        f"{trajectory.header['ensemble']}, {count} trajector{'y' if count == 1 else 'ies'}, mean temperature "
        f"{temperature.mean():.1f} K; thick lines are means",
        loc="left",
        fontsize=9,
    )
    lower.set_title(f"drift {slope:.2g}{spread} meV/atom/ps (dotted)", loc="left", fontsize=9)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    return True
