"""From a file and what the settings say of it to labelled structures in our units."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.train.data import npz
from painn_fast.train.data.dataset import PER_ATOM, SHAPES, SPLITS, Dataset, by_row
from painn_fast.train.data.frames import Frames
from painn_fast.train.settings import CONFIGS, DataFile, SplitSizes

KIND = {"dipole_magnitude": "dipole", "spatial_extent": "area"}
"""Kind of unit of labels that are not called by it."""


def find_data(file: str, folder: str | Path) -> Path:
    """The file in `folder`, or the one of that name that comes with the shipped configurations.

    `folder` may be the file itself, where a configuration has only one.
    """
    own, shipped = Path(folder) / file, CONFIGS / file
    if Path(folder).is_file():
        return Path(folder)
    return shipped if shipped.is_file() and not own.is_file() else own


def read_frames(source: DataFile, folder: str | Path = ".") -> Frames:
    """The file as it stands.

    Raises:
        PaiNNFastError: for a file that is not there, is not understood or contradicts itself; names what and where.
    """
    path = find_data(source.file, folder)
    if not path.is_file():
        raise PaiNNFastError("no such data file", where=path, fix="say where the data are with --data")
    geometry = None if source.geometry is None else find_data(source.geometry, folder)
    return npz.read(path, geometry)


def read_file(source: DataFile, folder: str | Path = ".", names: tuple[str, ...] | None = None) -> Dataset:
    """All structures of one file with the labels `names` (None: the usual ones that it has) in our units.

    Raises:
        PaiNNFastError: as `read_frames`, and for an array that is missing or misshapen, a unit that nobody declares,
            positions that are not finite; names file, frame and array.
    """
    return to_dataset(read_frames(source, folder), source, find_data(source.file, folder), names)


def to_dataset(frames: Frames, source: DataFile, path: Path, names: tuple[str, ...] | None = None) -> Dataset:
    """Frames of `path` with their labels in our units."""
    n, length = len(frames.n_atoms), _unit(frames, source, "length", path)
    bad = ~np.isfinite(frames.positions).all(axis=1)
    if bad.any():
        row = int(np.searchsorted(np.cumsum(frames.n_atoms), np.flatnonzero(bad)[0], side="right"))
        raise PaiNNFastError("positions are not finite", where=f"{path}, frame {row}")
    for label in source.keys:
        if names is not None and label not in names:
            raise PaiNNFastError(
                "a key for a label that no head takes", where=f"{path}, keys.{label}", expected=" | ".join(names)
            )
    wanted = dict.fromkeys([*(names if names is not None else frames.keys), *source.keys])
    labels = {name: _label(frames, source, name, path) for name in wanted if name not in ("charge", "spin")}
    cell = np.zeros((n, 3, 3)) if frames.cell is None else frames.cell * length
    return Dataset(
        numbers=frames.numbers,
        positions=np.ascontiguousarray(frames.positions * length),
        n_atoms=frames.n_atoms,
        labels={name: values for name, values in labels.items() if values is not None},
        cell=cell,
        pbc=np.zeros((n, 3), dtype=bool) if frames.pbc is None else frames.pbc,
        charge=np.zeros(n) if frames.charge is None else frames.charge,
        spin=np.ones(n) if frames.spin is None else frames.spin,
        file=np.zeros(n, dtype=np.int64),
        frame=np.arange(n),
        files=(source.file,),
    )


def read_split(
    source: DataFile, folder: str | Path = ".", names: tuple[str, ...] | None = None, sizes: SplitSizes | None = None
) -> dict[str, Dataset]:
    """Training, validation and test structures of one file; those without any label are left out.

    The file's own split counts, else a draw by the seed of `sizes`.
    """
    frames, path = read_frames(source, folder), find_data(source.file, folder)
    data = to_dataset(frames, source, path, names)
    split = _split(frames, source, sizes or SplitSizes(), path)
    has_label = np.zeros(len(data), dtype=bool)
    for name, values in data.labels.items():
        known = ~np.isnan(by_row(values)).all(axis=1)
        has_label |= np.logical_or.reduceat(known, data.first[:-1]) if name in PER_ATOM else known
    return {name: data.select(np.flatnonzero((split == k) & has_label)) for k, name in enumerate(SPLITS)}


def size_of_unit(label: str, name: str) -> float:
    """A unit of a label in our own: eV, eV/Å, e Å, Å³, Å²; of other scalars eV, or 1 if it is no unit of energy."""
    if label in ("forces", "stress"):
        energy, _, length = name.rpartition("/")
        cube = re.fullmatch(r"(.*?)(?:\^3|³)", length)
        size = units.factor("length", cube[1] if cube else length)
        return units.factor("energy", energy) / (size**3 if label == "stress" else size)
    kind = KIND.get(label, label)
    return units.factor(kind, name) if kind in units.KINDS else units.ENERGY.get(name, 1.0)


def unit_of(frames: Frames, source: DataFile, label: str) -> tuple[str, str] | None:
    """Unit of a label, or "length", and who says so: the settings, else the file; None if nobody does."""
    array = key_of(frames, source, label)
    for table, by in ((source.units, "the settings"), (frames.units, frames.units_from)):
        for name in (label, *([array] if array else [])):
            if name in table:
                return table[name], by
        if label in ("forces", "stress") and "energy" in table:
            length = (source.units | {} if "length" in source.units else frames.units).get("length", "Ang")
            return f"{table['energy']}/{length}" + "^3" * (label == "stress"), by
        if KIND.get(label, label) in table:
            return table[KIND.get(label, label)], by
    return None


def key_of(frames: Frames, source: DataFile, label: str) -> str | None:
    """Name of the array that holds a label."""
    if label in source.keys:
        return source.keys[label] or None
    return next((key for key in frames.keys.get(label, (label,)) if key in frames.arrays), None)


def _unit(frames: Frames, source: DataFile, label: str, path: Path) -> float:
    """Size of a unit: the settings' word if there is one, else the file's."""
    said = unit_of(frames, source, label)
    if said is None:
        kind = KIND.get(label, label)
        raise PaiNNFastError(
            f"missing unit of {label}",
            where=path,
            expected=" | ".join(units.KINDS[kind]) if kind in units.KINDS else "a unit of energy, or any other name",
            fix=f'set units.{label} for this file in the settings (units = {{ {label} = "..." }}), or store '
            f"'{label}_unit' in the file",
        )
    return size_of_unit(label, said[0]) if label != "length" else units.factor("length", said[0])


def _label(frames: Frames, source: DataFile, name: str, path: Path) -> np.ndarray | None:
    key = key_of(frames, source, name)
    if key is None:
        return None
    if key not in frames.arrays:
        raise PaiNNFastError(
            "missing array", where=f"{path}, '{key}'", got=", ".join(frames.arrays), fix=f"correct keys.{name}"
        )
    raw = frames.arrays[key]
    n = len(frames.numbers) if name in PER_ATOM else len(frames.n_atoms)
    want = (n, *SHAPES.get(name, ()))
    try:
        values = raw.astype(np.float64)
    except ValueError:
        raise PaiNNFastError("not numbers", where=f"{path}, '{key}'", got=raw.dtype) from None
    if values.size != np.prod(want) or values.shape[:1] not in (want[:1], (len(frames.n_atoms),)):
        raise PaiNNFastError("wrong shape", where=f"{path}, '{key}'", got=values.shape, expected=want)
    values = values.reshape(want)
    if np.isinf(values).any():
        row = int(np.argwhere(np.isinf(values))[0, 0])
        frame = np.searchsorted(np.cumsum(frames.n_atoms), row, side="right") if name in PER_ATOM else row
        raise PaiNNFastError(
            "an infinite label", where=f"{path}, '{key}', frame {frame}", expected="NaN where a label is missing"
        )
    return values * _unit(frames, source, name, path)


def _split(frames: Frames, source: DataFile, sizes: SplitSizes, path: Path) -> np.ndarray:
    """0 training, 1 validation, 2 test."""
    n = len(frames.n_atoms)
    if source.use_as is not None:
        return np.full(n, SPLITS.index(source.use_as))
    if frames.split is None:
        return draw(n, sizes, path)
    if frames.split.shape != (n,) or not np.isin(frames.split, (0, 1, 2)).all():
        raise PaiNNFastError(
            "wrong split", where=f"{path}, 'split'", expected=f"{n} numbers: 0 train, 1 validation, 2 test"
        )
    return frames.split


def draw(n: int, sizes: SplitSizes, path: Path) -> np.ndarray:
    """A split [n] by seed: so many for training and validation, the rest to test."""
    train = sizes.train if sizes.train is not None else n - 2 * (n // 10)
    validation = sizes.validation if sizes.validation is not None else n // 10
    if train + validation > n:
        raise PaiNNFastError(
            "more structures asked for than there are",
            where=path,
            got=f"{train} for training and {validation} for validation",
            expected=f"at most {n}",
            fix="change split.train and split.validation in the settings",
        )
    order = np.random.default_rng(sizes.seed).permutation(n)
    split = np.full(n, 2)
    split[order[:train]], split[order[train : train + validation]] = 0, 1
    return split
