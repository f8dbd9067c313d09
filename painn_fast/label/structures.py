"""Structures to label, from whatever has some."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
from ase.data import chemical_symbols

from painn_fast.errors import PaiNNFastError, reading
from painn_fast.graph.charge import CHARGE_KEYS, MULTIPLICITY_KEYS, set_charge_and_multiplicity
from painn_fast.io.structures import read_structures
from painn_fast.runtime.hdf5_guard import open_hdf5
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

    They have what the file says of cell, periodicity, masses and tags, and total charge (e) and spin multiplicity in
    `info`; positions in Å, which a `.npz` that says no unit is taken to be in.

    Raises:
        PaiNNFastError: if it cannot be read; names file and array.
    """
    path = Path(file)
    found = _read(path)
    for k, atoms in enumerate(found):
        bad = np.flatnonzero((atoms.numbers < 1) | (atoms.numbers >= len(chemical_symbols)))
        if len(bad):
            raise PaiNNFastError(
                "an atomic number of no element",
                where=f"{path}, frame {k}, atom {bad[0]}",
                got=int(atoms.numbers[bad[0]]),
                expected=f"1 to {len(chemical_symbols) - 1}",
                fix="leave out padding and dummy atoms",
            )
    return found


def _read(path: Path) -> list[ase.Atoms]:
    if path.suffix == ".npz":
        return _of_data(npz.read(path), path)
    if path.is_dir() or path.suffix in (".h5", ".hdf5"):
        return _of_data(hdf5.read(path), path) if _is_data(path) else _of_trajectory(path)
    return read_structures(path)


def _is_data(path: Path) -> bool:
    """Whether an HDF5 file is one of labelled data; one that cannot be opened is told of by the reader."""
    try:
        with reading("not a readable HDF5 file", path), open_hdf5(path) as opened:
            return bool(opened.attrs.get("format") == hdf5.FORMAT)
    except (PaiNNFastError, FileNotFoundError):
        return False


def _of_data(frames: Frames, path: Path) -> list[ase.Atoms]:
    unit = {} if "length" in frames.units else {"length": "Ang"}
    data = to_dataset(frames, DataFile(file=path.name, units=unit), path, ())
    _ask_for_totals(frames, data, path)
    masses, tags = (_of_atoms(frames, name, path) for name in ("masses", "tags"))
    found = []
    for row, (a, b) in enumerate(zip(data.first[:-1], data.first[1:], strict=True)):
        atoms = ase.Atoms(
            data.numbers[a:b],
            data.positions[a:b],
            masses=None if masses is None else masses[a:b],
            tags=None if tags is None else tags[a:b].astype(int),
        )
        _complete(atoms, data, row)
        found.append(atoms)
    return found


def _ask_for_totals(frames: Frames, data: Dataset, path: Path) -> None:
    """Say which arrays of structures may be charges or multiplicities under names that are not those of them."""
    if (data.charge != 0).any() or (data.spin != 1).any():
        return
    for name, values in frames.arrays.items():
        known = name.lower() in (*CHARGE_KEYS, *MULTIPLICITY_KEYS)
        if not known and values.size == len(frames) and looks_like(name, ("charge", "multiplicity")):
            warn(f"{path}: {name} is not read; if it is the charge or the multiplicity, store it under that name")


def _complete(atoms: ase.Atoms, data: Dataset, row: int) -> None:
    """Cell, periodicity, charge and spin of a structure."""
    if data.cell[row].any():
        atoms.cell, atoms.pbc = data.cell[row], data.pbc[row]
    set_charge_and_multiplicity(atoms.info, float(data.charge[row]), float(data.spin[row]))


def _of_atoms(frames: Frames, name: str, path: Path) -> np.ndarray | None:
    """Numbers [A] of the atoms of all structures, which the file may have once for one composition."""
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
        raise PaiNNFastError("a trajectory without positions", where=path, fix="run it with --positions-every")
    if not trajectory.tells_charge:
        warn(f"{path} was written by a version that did not record charge and spin: taken for a neutral singlet")
    system, positions = trajectory.system, np.asarray(trajectory.positions)
    beads = positions.reshape(-1, *positions.shape[-2:])
    return [system.atoms(bead) for bead in beads if np.isfinite(bead).all()]
