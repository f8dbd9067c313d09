"""Conformers in a spectrum: lines of each, trajectories that start in all, and their populations in dynamics."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import ase
import numpy as np
from rich.console import Console
from rich.table import Table

from painn_fast.io.structures import read_structures, write_extxyz
from painn_fast.md import Trajectory
from painn_fast.nn import Potential
from painn_fast.spectra.report import plain_table
from painn_fast.spectra.settings import SpectrumSettings
from painn_fast.spectra.table import Columns, write_table
from painn_fast.vibrations.conformers import Conformers, conformers
from painn_fast.vibrations.torsions import angles, apart

MINIMA = "harmonic.xyz"
RARE = 0.01
"""Conformers with at least this population have a trajectory of their own."""
SAME = 1e-3
"""Å between minima of one run, relaxed twice."""
ERRORS = 2.0
"""Standard errors by which populations of an equilibrated run may differ."""
FEW = 3
"""Conformers; of fewer the population of one tells that of the other."""
CLEAR = 0.1
"""Least difference of populations that counts."""


@dataclass(frozen=True)
class TorsionPopulations:
    """Populations of conformers in dynamics, by the torsions of centroids; K conformers, S trajectories.

    Example:
        >>> import numpy as np
        >>> from painn_fast.spectra.conformers import TorsionPopulations
        >>> visits = np.zeros((10, 4), dtype=int)  # of 10 frames, 4 trajectories: all stay where they began
        >>> visits[:, :2] = 1
        >>> stuck = TorsionPopulations(("gauche", "trans"), np.array([0.7, 0.3]), visits)
        >>> stuck.dynamics.tolist(), stuck.equilibrated
        ([0.5, 0.5], False)
    """

    names: tuple[str, ...]
    expected: np.ndarray  # [K] by free energies
    visits: np.ndarray  # [T, S] number of the conformer in each frame

    @property
    def shares(self) -> np.ndarray:
        """Share of the time that each trajectory spends in each conformer [S, K]."""
        return _shares(self.visits, len(self.names))

    @property
    def dynamics(self) -> np.ndarray:
        """Populations [K]."""
        return self.shares.mean(axis=0)

    @property
    def error(self) -> np.ndarray:
        """Standard error of the populations over trajectories [K], NaN of a single one."""
        count = len(self.shares)
        return self.shares.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.full(len(self.names), np.nan)

    @property
    def changes(self) -> float:
        """Changes of the conformer, of a trajectory in the mean."""
        return float((np.diff(self.visits, axis=0) != 0).sum(axis=0).mean())

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why torsions are not equilibrated: populations that depend on start or time, or differ from free energies."""
        halves = [_shares(part, len(self.names)) for part in np.array_split(self.visits, 2)]
        moved, off = _beyond(halves[1] - halves[0]), _beyond(self.shares - self.expected)
        lines = []
        for k, name in enumerate(self.names[: max(len(self.names) - 1, 1) if len(self.names) < FEW else None]):
            here, others = self._by_start(k)
            if here != others:
                lines.append(f"{name} {here:.0%} of the time where it was the start, {others:.0%} elsewhere")
            if moved[k]:
                lines.append(
                    f"{name} {halves[0].mean(0)[k]:.0%} in the first half, {halves[1].mean(0)[k]:.0%} in the second"
                )
            if off[k]:
                lines.append(f"{name} {self.dynamics[k]:.0%}, {self.expected[k]:.0%} by free energy")
        return tuple(lines)

    @property
    def equilibrated(self) -> bool:
        """Whether there is no doubt."""
        return not self.doubts

    def __str__(self) -> str:
        each = zip(self.names, self.dynamics, self.error, self.expected, strict=True)
        shares = ", ".join(f"{n} {100 * a:.0f} ± {100 * e:.0f} % ({100 * b:.0f} %)" for n, a, e, b in each)
        state = "equilibrated" if self.equilibrated else "NOT equilibrated"
        return f"torsions {state}: {shares} in dynamics (by free energy), {self.changes:.1f} changes a trajectory"

    def _by_start(self, k: int) -> tuple[float, float]:
        """Populations of a conformer where it is the start and elsewhere; equal if no difference is clear."""
        here, others = (self.shares[(self.visits[0] == k) == own, k] for own in (True, False))
        if not (len(here) and len(others)):
            return 0.0, 0.0
        within = ((here - here.mean()) ** 2).sum() + ((others - others.mean()) ** 2).sum()
        freedom = max(len(here) + len(others) - 2, 1)
        error = np.sqrt(within / freedom * (1.0 / len(here) + 1.0 / len(others)))
        clear = abs(here.mean() - others.mean()) > max(ERRORS * error, CLEAR)
        return (float(here.mean()), float(others.mean())) if clear else (0.0, 0.0)


def _shares(visits: np.ndarray, count: int) -> np.ndarray:
    return np.stack([(visits == k).mean(axis=0) for k in range(count)], axis=-1)


def _beyond(difference: np.ndarray) -> np.ndarray:
    """Columns whose mean over trajectories [S, K] is not zero."""
    count = len(difference)
    error = difference.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else 0.0
    return np.abs(difference.mean(axis=0)) > np.maximum(ERRORS * error, CLEAR)


def find_conformers(model: Potential, frames: list[ase.Atoms], settings: SpectrumSettings, say: Console) -> Conformers:
    """The conformers that the settings ask for, with warnings on the console."""
    one = settings.conformers == "one"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        listed = conformers(
            model,
            frames[0] if one else frames,
            temperature=settings.temperature,
            quantum=settings.quantum_dynamics,
            search=settings.conformers == "search",
            seed=settings.seed % 2**32,
            method=settings.hessian,
        )
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        say.print(f"warning: {text}", style="yellow")
    return listed


def as_before(listed: Conformers, path: Path) -> Conformers:
    """Minima with the positions on file, from which a run starts whether or not it is resumed.

    Relaxed anew, and in text, they differ by rounding.
    """
    before = {frame.info.get("conformer"): frame for frame in read_structures(path)} if path.exists() else {}
    members = []
    for one in listed.members:
        frame = before.get(one.name)
        if (
            frame is not None
            and len(frame) == len(one.atoms)
            and np.abs(frame.positions - one.atoms.positions).max() < SAME
        ):
            atoms = one.atoms.copy()
            atoms.positions = frame.positions
            members.append(replace(one, lines=replace(one.lines, atoms=atoms)))
        else:
            members.append(one)
    return replace(listed, members=tuple(members))


def torsion_populations(trajectory: Trajectory, listed: Conformers | None) -> TorsionPopulations | None:
    """Populations from recorded positions: each frame counts for the conformer whose torsions are nearest."""
    if listed is None or len(listed) == 1 or not listed.torsions or "positions" not in trajectory.names:
        return None
    centroids = trajectory.positions[:, trajectory.alive].mean(axis=2)  # [T, S, n, 3]
    now = angles(centroids, list(listed.torsions))
    distances = [np.min([(apart(now, well) ** 2).sum(axis=-1) for well in one.wells], axis=0) for one in listed.members]
    names = tuple(one.name for one in listed.members)
    return TorsionPopulations(names, listed.populations, np.argmin(distances, axis=0))


def write_conformers(
    path: Path, listed: Conformers, trajectories: int | None, visits: TorsionPopulations | None, about: dict[str, str]
) -> None:
    """Conformers with energies, populations by free energy and, as far as recorded, in dynamics.

    Trajectories that start from them are None where they are given.
    """
    columns: Columns = {
        "conformer": [one.name for one in listed.members],
        **{
            f"torsion {torsion.name} / degree": [float(one.wells[0, k]) for one in listed.members]
            for k, torsion in enumerate(listed.torsions)
        },
        "degeneracy": [one.degeneracy for one in listed.members],
        "symmetry number": [one.symmetry for one in listed.members],
        "energy / meV": [1000.0 * one.energy for one in listed.members],
        "free energy / meV": [1000.0 * one.free_energy for one in listed.members],
        "population by free energy": listed.populations,
    }
    if trajectories is not None:
        columns["trajectories started"] = allotted(listed.populations, trajectories).tolist()
    if visits is not None:
        columns |= {"population in dynamics": visits.dynamics, "standard error": visits.error}
    write_table(path, columns, about)


def conformer_table(listed: Conformers, trajectories: int | None) -> Table:
    """For the terminal."""
    oscillators = "quantum" if listed.quantum else "classical"
    caption = f"harmonic free energies at {listed.temperature:g} K, {oscillators} oscillators; {listed.starts} starts"
    caption += "; torsions taken as harmonic" if listed.torsions else ""
    title = ["conformer", "torsions", "energy meV", "free energy meV", "degeneracy", "share %"]
    rows = []
    for one in listed.members:
        turned = " ".join(f"{angle:.0f}°" for angle in one.wells[0])
        numbers = f"{1000 * one.energy:.1f}", f"{1000 * one.free_energy:.1f}", str(one.degeneracy)
        rows.append([one.name, turned, *numbers, f"{100 * one.population:.1f}"])
    if trajectories is not None:
        title.append("started")
        for row, count in zip(rows, allotted(listed.populations, trajectories), strict=True):
            row.append(str(count))
    table = plain_table("conformers", title, caption)
    for row in rows:
        table.add_row(*row)
    return table


def allotted(populations: np.ndarray, trajectories: int) -> np.ndarray:
    """Trajectories of each conformer [K]: by population, but one at least of each that has 1 %."""
    counts = np.zeros(len(populations), dtype=int)
    common = np.flatnonzero(populations >= RARE)[:trajectories]
    counts[common] = 1
    for _ in range(trajectories - len(common)):
        counts[int(np.argmax(populations * trajectories - counts))] += 1
    return counts


def start_structures(listed: Conformers, trajectories: int) -> list[ase.Atoms]:
    """The minimum that each trajectory starts from."""
    counts = allotted(listed.populations, trajectories)
    return [one.atoms for one, count in zip(listed.members, counts, strict=True) for _ in range(count)]


def write_minima(path: Path, listed: Conformers, trajectories: int | None) -> None:
    """All minima in one file; energies, populations and numbers of trajectories beside them."""
    frames = []
    counts = None if trajectories is None else allotted(listed.populations, trajectories)
    for k, one in enumerate(listed.members):
        frame = one.atoms.copy()
        frame.info |= {
            "conformer": one.name,
            "relative_energy_eV": one.energy,
            "relative_free_energy_eV": one.free_energy,
            "population": one.population,
            **({} if counts is None else {"trajectories": int(counts[k])}),
        }
        frames.append(frame)
    write_extxyz(path, frames)
