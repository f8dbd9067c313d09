"""Structures to label, from structure files, data files and trajectories."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
from ase.data import chemical_symbols

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.charge import CHARGE_KEYS, MULTIPLICITY_KEYS
from painn_fast.io.structures import read_structures
from painn_fast.runtime.progress import warn
from painn_fast.train.data import hdf5, npz
from painn_fast.train.data.dataset import Dataset
from painn_fast.train.data.frames import Frames
from painn_fast.train.data.names import looks_like
from painn_fast.train.data.read import to_dataset
from painn_fast.train.settings import DataFile


def structures(file: str | Path) -> list[ase.Atoms]:
    """All structures of a file that ASE reads, of `.npz` with R and z, of our HDF5 data, or all beads of a trajectory
    of ours.

    They have cell, periodicity, masses and tags of the file, and total charge (e) and spin multiplicity in `info`;
    positions in Å, which is also the default for a `.npz` that declares no unit.

    Raises:
        PaiNNFastError: if it cannot be read; names file and array.
    """
    path = Path(file)
    frames = _read(path)
    for k, atoms in enumerate(frames):
        bad = np.flatnonzero((atoms.numbers < 1) | (atoms.numbers >= len(chemical_symbols)))
        if len(bad):
            raise PaiNNFastError(
                "an atomic number of no element",
                where=f"{path}, frame {k}, atom {bad[0]}",
                got=int(atoms.numbers[bad[0]]),
                expected=f"1 to {len(chemical_symbols) - 1}",
                fix="leave out padding and dummy atoms",
            )
    return frames


def _read(path: Path) -> list[ase.Atoms]:
    if path.suffix == ".npz":
        return _of_data(npz.read(path), path)
    if path.is_dir() or path.suffix in (".h5", ".hdf5"):
        is_data = hdf5.attribute(path, "format") == hdf5.FORMAT
        return _of_data(hdf5.read(path), path) if is_data else _of_trajectory(path)
    return read_structures(path)


def _of_data(frames: Frames, path: Path) -> list[ase.Atoms]:
    unit = {} if "length" in frames.units else {"length": "Ang"}
    data = to_dataset(frames, DataFile(file=path.name, units=unit), path, ())
    _ask_for_totals(frames, data, path)
    masses, tags = (_of_atoms(frames, name, path) for name in ("masses", "tags"))
    labelled = [data.atoms(row) for row in range(len(data))]
    for atoms, a, b in zip(labelled, data.first[:-1], data.first[1:], strict=True):
        if masses is not None:
            atoms.set_masses(masses[a:b])
        if tags is not None:
            atoms.set_tags(tags[a:b].astype(int))
    return labelled


def _ask_for_totals(frames: Frames, data: Dataset, path: Path) -> None:
    """Warn of arrays of structures that may be charges or multiplicities by other names."""
    if (data.charge != 0).any() or (data.spin != 1).any():
        return
    for name, values in frames.arrays.items():
        known = name.lower() in (*CHARGE_KEYS, *MULTIPLICITY_KEYS)
        if not known and values.size == len(frames) and looks_like(name, ("charge", "multiplicity")):
            warn(f"{path}: {name} is not read; if it is the charge or the multiplicity, store it under that name")


def _of_atoms(frames: Frames, name: str, path: Path) -> np.ndarray | None:
    """Numbers [A] of the atoms of all structures; the file may have one set for all, of one composition."""
    values = frames.arrays.get(name)
    if values is None:
        return None
    n, atoms = len(frames), len(frames.numbers)
    if values.ndim == 1 and len(values) * n == atoms and (frames.n_atoms == len(values)).all():
        values = np.tile(values, n)
    if values.size != atoms or values.dtype.kind not in "iuf":
        raise PaiNNFastError(
            "wrong shape", where=f"{path}, '{name}'", got=values.shape, expected=f"a number for each of {atoms} atoms"
        )
    return values.reshape(atoms)


def _of_trajectory(path: Path) -> list[ase.Atoms]:
    from painn_fast.md import Trajectory

    trajectory = Trajectory(path)
    if "positions" not in trajectory.names:
        raise PaiNNFastError("a trajectory without positions", where=path, fix='run it with --positions-every "10 fs"')
    if not trajectory.tells_charge:
        warn(f"{path} was written by a version that did not record charge and spin: taken for a neutral singlet")
    system, positions = trajectory.system, np.asarray(trajectory.positions)
    beads = positions.reshape(-1, *positions.shape[-2:])
    return [system.atoms(bead) for bead in beads if np.isfinite(bead).all()]
