"""Whatever else ASE reads: energies, forces and stress of its calculators, numbers in `info` and `arrays`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ase
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.io.ase_formats import iread
from painn_fast.progress import counted
from painn_fast.train.data.extxyz import labelled
from painn_fast.train.data.frames import Frames, Gather


def read(path: Path) -> Frames:
    """All frames of a file.

    Raises:
        PaiNNFastError: naming file and frame.
    """
    gather, units = Gather(path, strict=False), dict[str, str]()
    try:
        for atoms in counted(iread(path), f"reading {path.name}: structures"):
            found = {**atoms.info, **_others(atoms), **(atoms.calc.results if atoms.calc else {})}
            units |= {key.removesuffix("_unit"): str(found[key]) for key in found if key.endswith("_unit")}
            add(gather, atoms, found)
    except PaiNNFastError:
        raise
    except Exception as error:  # every reader of ASE fails in its own way
        raise PaiNNFastError(
            "not a readable structure file",
            where=f"{path}, frame {len(gather)}",
            got=f"{type(error).__name__}: {error}",
            expected="npz, npy, xyz, h5, QM9's archive, or another format of ASE",
        ) from None
    return labelled(gather, units)


def add(gather: Gather, atoms: ase.Atoms, found: Mapping[str, Any]) -> None:
    """One structure with all numbers that were found with it."""
    values, atom_values = {}, {}
    for name, value in found.items():
        array = _numbers(value)
        if array is None:
            continue
        if array.shape == (len(atoms), 3) and (len(atoms) not in (1, 3) or "force" in name.lower()):
            atom_values[name] = array
        else:
            values[name] = array.ravel()
    periodic = bool(atoms.pbc.any())
    cell, pbc = (np.array(atoms.cell), atoms.pbc) if periodic else (None, None)
    gather.add(atoms.numbers, atoms.positions, values, atom_values, cell, pbc)


def _others(atoms: ase.Atoms) -> dict[str, np.ndarray]:
    return {name: values for name, values in atoms.arrays.items() if name not in ("numbers", "positions")}


def _numbers(value: Any) -> np.ndarray | None:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return array if array.size and not isinstance(value, bool | str | bytes) else None
