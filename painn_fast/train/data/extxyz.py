"""XYZ and extended XYZ: ten times as fast as through ASE, and an error names frame and line.

The comment line holds pairs such as `energy=-1.5 dipole="0 0 1" Properties=species:S:1:pos:R:3:forces:R:3`. Energies,
forces and stress are in ASE's units; what else there is has the unit that `<name>_unit` or the settings declare.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from ase.data import atomic_numbers

from painn_fast.errors import PaiNNFastError
from painn_fast.progress import counted
from painn_fast.train.data.frames import Frames, Gather, Keys

KEYS: Keys = {
    "energy": ("energy",),
    "forces": ("forces", "force"),
    "stress": ("stress",),
    "dipole": ("dipole", "mu"),
    "polarizability": ("polarizability", "alpha"),
}
CONVENTION = "ASE's convention"
ASE_UNITS = {
    "energy": ("eV", CONVENTION),
    "forces": ("eV/Ang", CONVENTION),
    "force": ("eV/Ang", CONVENTION),
    "stress": ("eV/Ang^3", CONVENTION),
}
CHARGE, SPIN = ("charge", "total_charge"), ("spin", "multiplicity", "spin_multiplicity")
SPLIT_NAMES = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "0": 0, "1": 1, "2": 2}
PLAIN = "species:S:1:pos:R:3"
PAIR = re.compile(r"""([^\s=]+)=("[^"]*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|[^\s"']*)""")
TRUTH = {"t": True, "true": True, "f": False, "false": False}
VOIGT = [0, 5, 4, 5, 1, 3, 4, 3, 2]  # xx yy zz yz xz xy to rows


class Frame(NamedTuple):
    """One frame as text."""

    line: int  # of its number of atoms, from 1
    info: dict[str, str]
    rows: list[str]


def read(path: Path) -> Frames:
    """All frames of a file.

    Raises:
        PaiNNFastError: naming file, frame and line.
    """
    gather, texts = Gather(path), _Texts(path)
    with open(path, encoding="utf-8", errors="replace") as stream:
        for frame in counted(_frames(stream, path), f"reading {path.name}: structures"):
            properties = frame.info.pop("Properties", PLAIN)
            numbers, positions, atom_values = _atoms(frame, properties, f"{path}, frame {len(gather)}")
            cell, pbc = _cell(frame, f"{path}, frame {len(gather)}, line {frame.line + 1}")
            values = texts.numbers(frame, len(gather))
            gather.add(numbers, positions, values, atom_values, cell, pbc, frame.line + 1)
    return labelled(gather, texts.units, texts.split(len(gather)))


def labelled(gather: Gather, said: dict[str, str], split: np.ndarray | None = None) -> Frames:
    """Frames with the labels that ASE defines and others, whose units are `said`."""
    frames = gather.frames()
    arrays = frames.arrays
    if "stress" in arrays and arrays["stress"].shape[1:] == (6,):
        arrays["stress"] = arrays["stress"][:, VOIGT]
    charge, spin = (next((arrays[name] for name in names if name in arrays), None) for names in (CHARGE, SPIN))
    return dataclasses.replace(
        frames,
        keys=KEYS,
        units={"length": said.get("length", "Ang")},
        units_from="the file" if "length" in said else CONVENTION,
        array_units=ASE_UNITS | {name: (unit, "the file") for name, unit in said.items()},
        split=split,
        charge=None if charge is None else np.nan_to_num(charge, nan=0.0),
        spin=None if spin is None else np.nan_to_num(spin, nan=1.0),
    )


def _frames(stream: TextIO, path: Path) -> Iterator[Frame]:
    line, k = 0, 0
    for head in stream:
        line += 1
        if not head.strip():
            continue
        where = f"{path}, frame {k}, line {line}"
        if not head.strip().isdecimal() or int(head) < 1:
            raise PaiNNFastError(
                "not a readable structure file", where=where, got=head[:60], expected="a number of atoms"
            )
        n = int(head)
        body = list(islice(stream, n + 1))
        if len(body) <= n:
            raise PaiNNFastError(
                "not a readable structure file: it ends within a frame", where=where, expected=f"{n} atoms"
            )
        yield Frame(line, dict(PAIR.findall(body[0])), body[1:])
        line, k = line + n + 1, k + 1


def _atoms(frame: Frame, properties: str, where: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Atomic numbers, positions and other columns of numbers."""
    columns = _columns(properties, f"{where}, line {frame.line + 1}")
    width = sum(size for _, _, size in columns)
    words = [row.split()[:width] for row in frame.rows]
    for k, row in enumerate(words):
        if len(row) < width:
            raise PaiNNFastError(
                "too few columns", where=f"{where}, line {frame.line + 2 + k}", got=frame.rows[k][:60], expected=width
            )
    numbers, positions, values, first = None, None, {}, 0
    for name, kind, size in columns:
        part = [row[first : first + size] for row in words]
        first += size
        if name in ("species", "Z"):
            numbers = _elements([row[0] for row in part], frame, where)
        elif name == "pos":
            positions = _floats(part, frame, where)
        elif kind in "RI":
            values[name] = _floats(part, frame, where)
    if numbers is None or positions is None or positions.shape[1] != 3:
        raise PaiNNFastError("no elements or no positions", where=where, got=properties, expected=PLAIN)
    return numbers, positions, values


def _columns(properties: str, where: str) -> list[tuple[str, str, int]]:
    words = properties.strip("\"'").split(":")
    if len(words) % 3 or not all(size.isdecimal() and int(size) for size in words[2::3]):
        raise PaiNNFastError("cannot read Properties", where=where, got=properties, expected=PLAIN)
    return [(name, kind, int(size)) for name, kind, size in zip(words[::3], words[1::3], words[2::3], strict=True)]


def _elements(words: list[str], frame: Frame, where: str) -> np.ndarray:
    try:
        return np.array([atomic_numbers[word] for word in words])
    except KeyError:
        pass
    known = [atomic_numbers.get(word.capitalize(), int(word) if word.isdecimal() else 0) for word in words]
    if 0 in known:
        k = known.index(0)
        raise PaiNNFastError("unknown element", where=f"{where}, line {frame.line + 2 + k}", got=words[k])
    return np.array(known)


def _floats(rows: list[list[str]], frame: Frame, where: str) -> np.ndarray:
    try:
        return np.array([[float(word) for word in row] for row in rows])
    except ValueError as error:
        for k, row in enumerate(rows):
            if _number(row) is None:
                line = frame.line + 2 + k
                raise PaiNNFastError("not numbers", where=f"{where}, line {line}", got=" ".join(row)) from None
        raise AssertionError from error


def _number(words: list[str]) -> list[float] | None:
    try:
        return [float(word) for word in words]
    except ValueError:
        return None


def _cell(frame: Frame, where: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Vectors as rows, and in which directions they count; a lattice of zeros is none."""
    lattice, directions = frame.info.pop("Lattice", None), frame.info.pop("pbc", "T T T")
    if lattice is None:
        return None, None
    numbers = _number(_bare(lattice).split())
    periodic = [TRUTH.get(word.lower()) for word in _bare(directions).split()]
    if numbers is None or len(numbers) != 9 or len(periodic) != 3 or None in periodic:
        raise PaiNNFastError(
            "cannot read the cell", where=where, got=f"{lattice} {directions}", expected="9 numbers, 3 T or F"
        )
    return np.array(numbers).reshape(3, 3), np.array(periodic)


def _bare(text: str) -> str:
    return text.strip("\"'{}[]").replace(",", " ")


class _Texts:
    """What comment lines say beside numbers: units and splits."""

    def __init__(self, path: Path) -> None:
        self.path, self.units = path, dict[str, str]()
        self._split: dict[int, int] = {}

    def numbers(self, frame: Frame, k: int) -> dict[str, np.ndarray]:
        """Numbers [n] of a comment line by their names."""
        found = {}
        for name, text in frame.info.items():
            bare = _bare(text)
            if name.endswith("_unit"):
                self._unit(name.removesuffix("_unit"), bare.strip(), f"{self.path}, frame {k}, line {frame.line + 1}")
            elif name == "split":
                self._split[k] = SPLIT_NAMES.get(bare.strip().lower(), -1)
            elif (numbers := _number(bare.split())) is not None and numbers:
                found[name] = np.array(numbers)
        return found

    def _unit(self, name: str, unit: str, where: str) -> None:
        if self.units.setdefault(name, unit) != unit:
            raise PaiNNFastError(f"two units of {name}", where=where, got=unit, expected=self.units[name])

    def split(self, n: int) -> np.ndarray | None:
        """0, 1, 2, or -1 where a frame says none or another; None if no frame says one."""
        return np.array([self._split.get(k, -1) for k in range(n)]) if self._split else None
