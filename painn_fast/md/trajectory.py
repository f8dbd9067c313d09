"""Reading a trajectory, finished, interrupted or still being written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ase
import ase.io
import h5py
import numpy as np
import torch

from painn_fast.atomic import atomic_write
from painn_fast.errors import PaiNNFastError
from painn_fast.md.estimators import UNITS as ESTIMATES
from painn_fast.md.segments import open_file, trajectory_files
from painn_fast.md.settings import RECORDED
from painn_fast.md.state import System

ATTEMPTS = 3


class Trajectory:
    """What a run recorded. Every series has its own interval; a frozen trajectory's rows are NaN from its trip on.

    Args:
        path: folder of the run, or its trajectory.h5.

    Raises:
        PaiNNFastError: if there is none, or it cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self.path = path.parent if path.name == "trajectory.h5" else path
        self.header: dict[str, Any] = {}
        self.names: tuple[str, ...] = ()
        for file in self._files():
            self.header = dict(file.attrs)
            self.names = tuple(name for name in RECORDED if name in self.names or name in file)

    def _files(self) -> Iterator[h5py.File]:
        """The files of the run, opened in order; a run that is going on may fold them at the same time."""
        for attempt in range(ATTEMPTS):
            try:
                with ExitStack() as stack:
                    paths = trajectory_files(self.path) if self.path.is_dir() else [self.path]
                    files = [stack.enter_context(open_file(path)) for path in paths]
                    if not files:
                        raise FileNotFoundError
                    yield from files
                    return
            except FileNotFoundError:
                if attempt == ATTEMPTS - 1:
                    raise PaiNNFastError(
                        "no trajectory here", where=self.path, expected="the folder of a run, or its trajectory.h5"
                    ) from None

    @property
    def system(self) -> System:
        """Elements, masses and cell."""
        return System(
            numbers=torch.from_numpy(np.array(self.header["numbers"])),
            masses=torch.from_numpy(np.array(self.header["masses"])),
            cell=torch.from_numpy(np.array(self.header["cell"])),
            pbc=torch.from_numpy(np.array(self.header["pbc"])),
        )

    @property
    def temperature(self) -> float:
        """K, of the thermostat and the springs."""
        return float(self.header["temperature"])

    @property
    def beads(self) -> int:
        """P."""
        return int(self.header["beads"])

    @property
    def trajectories(self) -> int:
        """S."""
        return int(self.header["trajectories"])

    @property
    def frozen(self) -> list[dict[str, Any]]:
        """What the guards saw: trajectory, step, atom, value, cause."""
        return list(json.loads(self.header["frozen"]))

    @property
    def alive(self) -> np.ndarray:
        """Trajectories that no guard stopped [S] bool."""
        alive = np.ones(self.trajectories, dtype=bool)
        alive[[trip["trajectory"] for trip in self.frozen]] = False
        return alive

    def read(self, series: str, column: str = "value") -> np.ndarray:
        """All frames of one column of a series.

        Raises:
            PaiNNFastError: if the run did not record it.
        """
        if series not in self.names:
            raise PaiNNFastError(
                f"the run did not record {series}",
                where=self.path,
                expected=", ".join(self.names),
                fix=f'set {series}_every, for example "2 fs"',
            )
        return np.concatenate([file[series][column][()] for file in self._files() if series in file])

    def times(self, series: str = "positions") -> np.ndarray:
        """Times of the frames of a series [T] fs, from the start of the run (equilibration not counted)."""
        return self.read(series, "time")

    def interval(self, series: str) -> float:
        """Time between frames of a series, fs."""
        return float(self.header[f"{series}_every"])

    @property
    def positions(self) -> np.ndarray:
        """[T, S, P, N, 3] Å, as they came: not wrapped into a cell."""
        return self.read("positions")

    @property
    def velocities(self) -> np.ndarray:
        """[T, S, P, N, 3] Å/fs."""
        return self.read("velocities")

    @property
    def dipole(self) -> np.ndarray:
        """[T, S, 3] e Å, mean over beads."""
        return self.read("dipole")

    @property
    def polarizability(self) -> np.ndarray:
        """[T, S, 3, 3] Å³, mean over beads."""
        return self.read("polarizability")

    @property
    def energies(self) -> dict[str, np.ndarray]:
        """Each [T, S]: potential, kinetic, kinetic_primitive, kinetic_virial, conserved in eV, temperature in K."""
        return {name: self.read("energies", name) for name in ESTIMATES}

    def atoms(self, trajectory: int = 0, bead: int | None = None) -> list[ase.Atoms]:
        """Frames of one trajectory: of a bead, or (None) of the centroid; `info["time_fs"]` is the time."""
        frames = self.positions[:, trajectory]
        chosen = frames.mean(axis=1) if bead is None else frames[:, bead]
        system = self.system
        structures = [system.atoms(frame) for frame in chosen]
        for structure, time in zip(structures, self.times("positions"), strict=True):
            structure.info["time_fs"] = float(time)
        return structures

    def write_extxyz(self, path: str | Path, trajectory: int = 0, bead: int | None = None) -> None:
        """Frames as in `atoms`, as an extended xyz file."""
        with atomic_write(path) as temporary:
            ase.io.write(temporary, self.atoms(trajectory, bead), format="extxyz")
