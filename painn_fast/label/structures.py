"""Structures to label, from whatever has some."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.io.structures import read_structures


def structures(file: str | Path) -> list[ase.Atoms]:
    """All structures of a file that ASE reads, of `.npz` with R and z, or all beads of a trajectory of ours.

    Raises:
        PaiNNFastError: if it cannot be read; names file and array.
    """
    path = Path(file)
    if path.is_dir() or path.suffix in (".h5", ".hdf5"):
        return _of_trajectory(path)
    if path.suffix != ".npz":
        return read_structures(path)
    from painn_fast.train.data import npz
    from painn_fast.train.data.read import to_dataset
    from painn_fast.train.settings import DataFile

    frames = npz.read(path)
    unit = {} if "length" in frames.units else {"length": "Ang"}
    data = to_dataset(frames, DataFile(file=path.name, units=unit), path, ())
    ends = zip(data.first[:-1], data.first[1:], strict=True)
    return [ase.Atoms(data.numbers[a:b], data.positions[a:b]) for a, b in ends]


def _of_trajectory(path: Path) -> list[ase.Atoms]:
    from painn_fast.md import Trajectory

    trajectory = Trajectory(path)
    if "positions" not in trajectory.names:
        raise PaiNNFastError("a trajectory without positions", where=path, fix="run it with --positions-every")
    positions = np.asarray(trajectory.positions)
    beads = positions.reshape(-1, *positions.shape[-2:])
    return [ase.Atoms(trajectory.header["numbers"], bead) for bead in beads if np.isfinite(bead).all()]
