"""Reading a trajectory, finished, interrupted or still being written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ase
import h5py
import numpy as np
import torch

from painn_fast.errors import PaiNNFastError, reading
from painn_fast.graph.charge import charge_and_multiplicity
from painn_fast.io.structures import write_extxyz
from painn_fast.md.estimators import UNITS as ESTIMATES
from painn_fast.md.recorder import Known, open_file, trajectory_files
from painn_fast.md.settings import RECORDED
from painn_fast.md.state import System
from painn_fast.md.trajectory_header import checked_header
from painn_fast.runtime.folders import molecules_of, trajectory_folders
from painn_fast.runtime.hdf5 import read_dataset

ATTEMPTS = 3


class Trajectory:
    """What a run recorded. Every series has its own interval; rows of a trajectory are NaN once guards froze it.

    The trajectories of a run by several processes are read as one, in their order, as far as all have come.

    Args:
        path: folder of the run, or its trajectory.h5; of a run of several molecules the folder of one, such as
            "run/0-C2H6O".

    Raises:
        PaiNNFastError: if there is none, or it cannot be read.

    Example:
        >>> from painn_fast.md import MDSettings, Trajectory, run
        >>> run(MDSettings(model="ethanol", duration="2 fs", positions_every="1 fs", energies_every="1 fs"))
        PosixPath('md/trajectory.h5')
        >>> trajectory = Trajectory("md")
        >>> trajectory.positions.shape  # [T, S, P, N, 3] Å: frames, trajectories, beads, atoms
        (3, 1, 1, 9, 3)
        >>> trajectory.times("energies")  # fs
        array([0., 1., 2.])
        >>> trajectory.energies["conserved"].shape  # [T, S] eV
        (3, 1)
        >>> trajectory.atoms()[0].get_chemical_formula()
        'C2H6O'
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self.path = path.parent if path.name == "trajectory.h5" else path
        self.header: dict[str, Any] = {}
        self.names: tuple[str, ...] = ()
        self._known: Known = set()
        self._parts = (
            [path] if path.is_file() and path != self.path / "trajectory.h5" else trajectory_folders(self.path)
        )
        if not self._parts:
            self._complain()
        with reading("not a readable trajectory", self.path):
            headers = [self._read_header(part) for part in self._parts]
            self.header = headers[-1]
            if len(headers) > 1:
                self._join(headers)

    def _complain(self) -> None:
        molecules = molecules_of(self.path)
        if molecules:
            raise PaiNNFastError(
                "a run of several molecules", where=self.path, got=", ".join(molecules),
                fix=f"read one of them: {self.path / molecules[0]}",
            )  # fmt: skip
        raise PaiNNFastError(
            "no trajectory here", where=self.path, expected="the folder of a run, or its trajectory.h5"
        )

    def _read_header(self, part: Path) -> dict[str, Any]:
        header: dict[str, Any] = {}
        for file in _files(part, self._known):
            header = checked_header(file, part)
            self.names = tuple(name for name in RECORDED if name in self.names or name in file)
        return header

    def _join(self, headers: list[dict[str, Any]]) -> None:
        """One header of those of several processes."""
        counts = [int(header["trajectories"]) for header in headers]
        self.header["trajectories"] = sum(counts)
        self.header["trajectory"] = np.concatenate([header["trajectory"] for header in headers])
        self.header["frozen"] = json.dumps([event for header in headers for event in json.loads(header["frozen"])])
        self.header["notes"] = json.dumps([note for h in headers for note in json.loads(h.get("notes", "[]"))])
        for name in ("temperature", "time_step", "seed"):
            each = [np.broadcast_to(h[name], count) for h, count in zip(headers, counts, strict=True)]
            values = np.concatenate(each)
            self.header[name] = values[0] if (values == values[0]).all() else values

    @property
    def system(self) -> System:
        """Elements, masses, cell, charge, spin multiplicity and tags."""
        header, where = self.header, str(self.path)
        stated = {"charge": header.get("total_charge"), "spin": header.get("spin_multiplicity")}
        charge, multiplicity = charge_and_multiplicity(stated, where=where)
        tags = np.asarray(header["tags"]) if "tags" in header else None
        if tags is not None and (tags.shape != np.shape(header["numbers"]) or tags.dtype.kind not in "iu"):
            raise PaiNNFastError(
                "a damaged trajectory", where=f"{where}, 'tags'", got=tags.shape, expected=np.shape(header["numbers"])
            )
        return System(
            numbers=torch.from_numpy(np.array(self.header["numbers"])),
            masses=torch.from_numpy(np.array(self.header["masses"])),
            cell=torch.from_numpy(np.array(self.header["cell"])),
            pbc=torch.from_numpy(np.array(self.header["pbc"])),
            total_charge=torch.tensor(charge, dtype=torch.float64),
            spin_multiplicity=torch.tensor(multiplicity, dtype=torch.float64),
            tags=None if tags is None else torch.from_numpy(tags.astype(np.int64)),
        )

    @property
    def tells_charge(self) -> bool:
        """Whether charge and spin multiplicity are known; runs of earlier versions did not write them."""
        return "total_charge" in self.header

    @property
    def temperature(self) -> float:
        """K, of the thermostat and the springs.

        Raises:
            PaiNNFastError: if trajectories have different ones, see `temperatures`.
        """
        return self._only("temperature", "K")

    @property
    def temperatures(self) -> np.ndarray:
        """K, of each trajectory [S]."""
        return np.broadcast_to(self.header["temperature"], self.trajectories)

    @property
    def time_step(self) -> float:
        """fs.

        Raises:
            PaiNNFastError: if trajectories have different ones, see `time_steps`.
        """
        return self._only("time_step", "fs")

    @property
    def time_steps(self) -> np.ndarray:
        """fs, of each trajectory [S]."""
        return np.broadcast_to(self.header["time_step"], self.trajectories)

    @property
    def numbers(self) -> np.ndarray:
        """Numbers of the trajectories [S] among all of the run, those of other molecules included."""
        return np.array(self.header["trajectory"])

    def _only(self, name: str, unit: str) -> float:
        values = np.unique(self.header[name])
        if len(values) > 1:
            raise PaiNNFastError(
                f"trajectories of different {name}", where=self.path, got=f"{values} {unit}", expected="one for all"
            )
        return float(values[0])

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
        """What guards stopped: trajectory, step, atom, value, limit, cause."""
        return list(json.loads(self.header["frozen"]))

    @property
    def notes(self) -> list[dict[str, Any]]:
        """Bonds that broke in trajectories that went on, as in `frozen`."""
        return list(json.loads(self.header.get("notes", "[]")))

    @property
    def alive(self) -> np.ndarray:
        """Trajectories that no guard stopped [S] bool."""
        return ~np.isin(self.numbers, [event["trajectory"] for event in self.frozen])

    def read(self, series: str, column: str = "value") -> np.ndarray:
        """All frames of one column of a series.

        Raises:
            PaiNNFastError: if the run did not record it, or a file is damaged.
        """
        return self.read_columns(series, (column,))[column]

    def read_columns(self, series: str, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """The same frames of several columns of a series, also of a run that writes more at that moment.

        Raises:
            PaiNNFastError: as `read`.
        """
        if series not in self.names:
            raise PaiNNFastError(
                f"the run did not record {series}",
                where=self.path,
                expected=", ".join(self.names),
                fix=f'set {series}_every, for example "2 fs"',
            )
        parts = [self._read_part(part, series, columns) for part in self._parts]
        frames = min(len(part[column]) for part in parts for column in columns)
        result = {}
        for column in columns:
            each = [part[column][:frames] for part in parts]
            result[column] = each[0] if len(each) == 1 or column in ("step", "time") else np.concatenate(each, axis=1)
        return result

    def _read_part(self, part: Path, series: str, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Columns of one process, from files that are opened once."""
        pieces: dict[str, list[np.ndarray]] = {column: [] for column in columns}
        for file in _files(part, self._known):
            for column in columns if series in file else ():
                pieces[column].append(read_dataset(file, f"{series}/{column}"))
        return {column: np.concatenate(values) for column, values in pieces.items()}

    def times(self, series: str = "positions", trajectory: int | None = None) -> np.ndarray:
        """Times of the frames of a series [T] fs, from the start of the run (equilibration not counted).

        Of one trajectory, by its index in the arrays, or of all that have the longest time step of the run.
        """
        return self._own(self.read(series, "time"), trajectory)

    def _own(self, times: np.ndarray, trajectory: int | None) -> np.ndarray:
        """Times in the time step of one trajectory."""
        return times if trajectory is None else times * (self.time_steps[trajectory] / self._longest)

    def interval(self, series: str) -> float:
        """Time between frames of a series, fs.

        Raises:
            PaiNNFastError: if trajectories have different time steps.
        """
        return float(self.header[f"{series}_every"]) * (self._only("time_step", "fs") / self._longest)

    @property
    def _longest(self) -> float:
        return float(self.header["longest_time_step"])

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
        return self.read_columns("energies", list(ESTIMATES))

    @property
    def centroids(self) -> dict[str, np.ndarray]:
        """Each [T, S, N, 3]: positions of the centroids in Å, and forces, means over their beads, in eV/Å."""
        return self.read_columns("centroids", ("positions", "forces"))

    def atoms(self, trajectory: int = 0, bead: int | None = None) -> list[ase.Atoms]:
        """Frames of one trajectory: of a bead, or (None) of the centroid; `info["time_fs"]` is the time.

        They have masses, cell, charge, spin multiplicity and tags of the structure that the run started from.
        """
        columns = self.read_columns("positions", ("value", "time"))
        frames = columns["value"][:, trajectory]
        chosen = frames.mean(axis=1) if bead is None else frames[:, bead]
        system = self.system
        structures = [system.atoms(frame) for frame in chosen]
        for structure, time in zip(structures, self._own(columns["time"], trajectory), strict=True):
            structure.info["time_fs"] = float(time)
        return structures

    def write_extxyz(self, path: str | Path, trajectory: int = 0, bead: int | None = None) -> None:
        """Frames as in `atoms`, as an extended xyz file."""
        write_extxyz(path, self.atoms(trajectory, bead))


def _files(folder: Path, known: Known) -> Iterator[h5py.File]:
    """The files of a trajectory, opened in order; a run that is going on may fold them at the same time."""
    for attempt in range(ATTEMPTS):
        try:
            with ExitStack() as stack:
                paths = trajectory_files(folder) if folder.is_dir() else [folder]
                files = [stack.enter_context(open_file(path, known)) for path in paths]
                if not files:
                    raise FileNotFoundError
                yield from files
                return
        except FileNotFoundError:
            if attempt == ATTEMPTS - 1:
                raise PaiNNFastError("the trajectory has gone", where=folder) from None
