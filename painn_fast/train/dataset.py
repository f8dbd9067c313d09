"""Labelled structures: `.npz` files with declared units, labels that may be missing, splits that stay as they are."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.graph import AtomicBatch, batch_arrays, concatenate
from painn_fast.train.settings import CONFIGS, LABELS, DataFile

SPLITS = ("train", "validation", "test")
DEFAULT_KEYS = {"energy": "E", "forces": "F", "dipole": "dipole", "polarizability": "polarizability"}
SHAPES = {"energy": (), "forces": (-1, 3), "dipole": (3,), "polarizability": (3, 3)}


@dataclass(frozen=True)
class Dataset:
    """Structures with labels in eV, eV/Å, e Å and Å³; NaN where a label is missing."""

    molecules: list[AtomicBatch]  # one structure each
    energy: Tensor  # [n]
    forces: list[Tensor]  # [atoms, 3] each
    dipole: Tensor  # [n, 3]
    polarizability: Tensor  # [n, 3, 3]

    def __len__(self) -> int:
        return len(self.molecules)

    def select(self, rows: Sequence[int] | np.ndarray) -> Dataset:
        """The structures of these rows."""
        index = torch.as_tensor(np.asarray(rows, dtype=np.int64))
        picked = index.tolist()
        return Dataset(
            molecules=[self.molecules[row] for row in picked],
            energy=self.energy[index],
            forces=[self.forces[row] for row in picked],
            dipole=self.dipole[index],
            polarizability=self.polarizability[index],
        )

    def batch(self, device: torch.device | str = "cpu") -> tuple[AtomicBatch, dict[str, Tensor]]:
        """All structures as one batch, and their labels."""
        labels = {"energy": self.energy, "forces": torch.cat(self.forces)}
        labels |= {"dipole": self.dipole, "polarizability": self.polarizability}
        return concatenate(self.molecules).to(device), {name: value.to(device) for name, value in labels.items()}

    def labelled(self, name: str) -> int:
        """How many structures have a label."""
        if name == "forces":
            return sum(not bool(torch.isnan(forces).any()) for forces in self.forces)
        return int((~torch.isnan(getattr(self, name)[..., None]).flatten(1).any(dim=1)).sum())


def join(parts: Sequence[Dataset]) -> Dataset:
    """One data set of several."""
    return Dataset(
        molecules=[molecule for part in parts for molecule in part.molecules],
        energy=torch.cat([part.energy for part in parts]),
        forces=[forces for part in parts for forces in part.forces],
        dipole=torch.cat([part.dipole for part in parts]),
        polarizability=torch.cat([part.polarizability for part in parts]),
    )


def read_npz(source: DataFile, folder: str | Path = ".", *, split_seed: int = 0) -> dict[str, Dataset]:
    """Training, validation and test rows of one file; rows without any label are left out.

    Raises:
        PaiNNFastError: naming the file and the key for a file that cannot be read, an array that is missing or
            misshapen, a unit that is not declared, positions that are not finite.
    """
    path = find_data(source.file, folder)
    arrays = _read(path)
    if source.geometry is not None:
        other = _read(find_data(source.geometry, folder))
        arrays = {**arrays, **{key: other[key] for key in ("R", "z") if key in other}}
    numbers, positions = _geometry(arrays, source, path)
    labels = {name: _label(arrays, source, name, positions.shape, path) for name in LABELS}
    split = _split(arrays, len(positions), split_seed, path)
    has_label = np.zeros(len(positions), dtype=bool)
    for values in labels.values():
        has_label |= ~np.isnan(values.reshape(len(positions), -1)).all(axis=1)
    everything = Dataset(
        molecules=[batch_arrays(numbers, one[None]) for one in positions],
        energy=torch.from_numpy(labels["energy"]),
        forces=list(torch.from_numpy(labels["forces"])),
        dipole=torch.from_numpy(labels["dipole"]),
        polarizability=torch.from_numpy(labels["polarizability"]),
    )
    return {name: everything.select(np.flatnonzero((split == k) & has_label)) for k, name in enumerate(SPLITS)}


def find_data(file: str, folder: str | Path) -> Path:
    """The file in `folder`, or the one of that name that comes with the shipped configurations."""
    own, shipped = Path(folder) / file, CONFIGS / file
    return shipped if shipped.is_file() and not own.is_file() else own


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise PaiNNFastError("no such data file", where=path) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, TypeError) as error:
        raise PaiNNFastError("not a readable .npz file", where=path, got=str(error)) from None


def _geometry(arrays: dict[str, np.ndarray], source: DataFile, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers [atoms] and positions [n, atoms, 3] Å."""
    for key in ("R", "z"):
        if key not in arrays:
            raise PaiNNFastError("missing array", where=f"{path}, '{key}'", got=", ".join(arrays), expected="R and z")
    numbers, positions = arrays["z"].astype(np.int64), arrays["R"].astype(np.float64)
    if positions.ndim != 3 or positions.shape[1:] != (len(numbers), 3):
        raise PaiNNFastError(
            "wrong shape",
            where=f"{path}, 'R'",
            got=positions.shape,
            expected=f"(n, {len(numbers)}, 3) for {len(numbers)} atoms",
        )
    if not np.isfinite(positions).all():
        row = int(np.argwhere(~np.isfinite(positions))[0, 0])
        raise PaiNNFastError("positions are not finite", where=f"{path}, row {row}")
    return numbers, positions * _unit(arrays, source, "length", path)


def _unit(arrays: dict[str, np.ndarray], source: DataFile, kind: str, path: Path) -> float:
    """Size of a unit: the settings' word if there is one, else the file's."""
    name = getattr(source, f"{kind}_unit") or (str(arrays[f"{kind}_unit"]) if f"{kind}_unit" in arrays else None)
    if name is None:
        raise PaiNNFastError(
            f"missing unit of {kind}",
            where=path,
            expected=" | ".join(units.KINDS[kind]),
            fix=f"set {kind}_unit for this file in the settings, or store it in the file",
        )
    return units.factor(kind, name)


def _label(
    arrays: dict[str, np.ndarray], source: DataFile, name: str, shape: tuple[int, ...], path: Path
) -> np.ndarray:
    own = {str(label): key for label, key in source.keys.items()}
    key = own.get(name, DEFAULT_KEYS[name])
    want = (shape[0], *(shape[1] if size == -1 else size for size in SHAPES[name]))
    if not key or (key not in arrays and name not in own):
        return np.full(want, np.nan)
    if key not in arrays:
        raise PaiNNFastError(
            "missing array", where=f"{path}, '{key}'", got=", ".join(arrays), fix=f"correct keys.{name}"
        )
    values = arrays[key].astype(np.float64)
    if values.shape != want:
        raise PaiNNFastError("wrong shape", where=f"{path}, '{key}'", got=values.shape, expected=want)
    if np.isinf(values).any():
        row = int(np.argwhere(np.isinf(values))[0, 0])
        raise PaiNNFastError(
            "an infinite label", where=f"{path}, '{key}', row {row}", expected="NaN where a label is missing"
        )
    match name:
        case "energy":
            return values * _unit(arrays, source, "energy", path)
        case "forces":
            return values * _unit(arrays, source, "energy", path) / _unit(arrays, source, "length", path)
        case _:
            return values * _unit(arrays, source, name, path)


def _split(arrays: dict[str, np.ndarray], n: int, seed: int, path: Path) -> np.ndarray:
    """0 training, 1 validation, 2 test: the file's own split, else by seed."""
    if "split" not in arrays:
        order = np.random.default_rng(seed).permutation(n)
        split = np.zeros(n, dtype=np.int64)
        split[order[: n // 10]], split[order[n // 10 : 2 * (n // 10)]] = 2, 1
        return split
    split = arrays["split"]
    if split.shape != (n,) or not np.isin(split, (0, 1, 2)).all():
        raise PaiNNFastError(
            "wrong split", where=f"{path}, 'split'", expected=f"{n} numbers: 0 train, 1 validation, 2 test"
        )
    return split
