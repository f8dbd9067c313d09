"""XYZ and extended XYZ: ten times as fast as through ASE, and an error names frame and line.

The comment line holds pairs such as `energy=-1.5 dipole="0 0 1" Properties=species:S:1:pos:R:3:forces:R:3`. Energies,
forces, stress and dipoles are in ASE's units; anything else has the unit that `<name>_unit` or the settings declare.
The notes list what is not understood, or not used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from ase.data import atomic_numbers

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.graph.charge import CHARGE_KEYS, MULTIPLICITY_KEYS
from painn_fast.runtime.progress import counted
from painn_fast.train.data import comment_line
from painn_fast.train.data.comment_line import numbers, real, truths
from painn_fast.train.data.frames import CONVENTION, UNIT, Frames, Gather, Keys, units_of_nothing

KEYS: Keys = {
    "energy": ("energy",),
    "forces": ("forces", "force"),
    "stress": ("stress",),
    "dipole": ("dipole", "mu"),
    "polarizability": ("polarizability", "alpha"),
}
ASE_UNITS = {
    "energy": ("eV", CONVENTION),
    "forces": ("eV/Ang", CONVENTION),
    "stress": ("eV/Ang^3", CONVENTION),
    "dipole": ("e Ang", CONVENTION),
}
"""Units of what ASE defines as results of its calculators, by ASE's names."""
IMPORTANT = {*CHARGE_KEYS, *MULTIPLICITY_KEYS, *(name for names in KEYS.values() for name in names)}
"""Names whose values must be numbers, of the same shape in all frames."""
NONE = ("none", "null", "na", "n/a", "-", "")
"""Words for a value that is missing, in lower case."""
SPLIT_NAMES = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "0": 0, "1": 1, "2": 2}
MOST_DIGITS = 12
"""Of a number of atoms."""
FREE_TEXT = "text that is no key=value"
PLAIN = "species:S:1:pos:R:3"
COLUMNS = {"symbols": "species", "element": "species", "numbers": "Z", "positions": "pos"}
"""Other names of columns, which ASE reads too."""
THEORY = "theory"
"""Name of the level of theory of the labels."""
VOIGT = [0, 5, 4, 5, 1, 3, 4, 3, 2]  # xx yy zz yz xz xy to rows


class Frame(NamedTuple):
    """One frame as text."""

    line: int  # of its number of atoms, from 1
    info: dict[str, str]
    words: list[str]  # of the comment line, that belong to no pair
    rows: list[str]

    def pop(self, name: str) -> str | None:
        """Take a value of the comment line, whatever the case of its name."""
        if name in self.info:
            return self.info.pop(name)
        return next((self.info.pop(key) for key in self.info if key.lower() == name.lower()), None)


def read(path: Path) -> Frames:
    """All frames of a file.

    Raises:
        PaiNNFastError: naming file, frame and line.
    """
    gather, texts = Gather(path, strict=lambda name: name.lower() in IMPORTANT), Texts(path)
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        for k, frame in enumerate(counted(_frames(stream, path), f"reading {path.name}: structures")):
            properties = frame.pop("Properties") or PLAIN
            elements, positions, atom_values = _atoms(frame, properties, texts, k)
            cell, pbc = _cell(frame, texts, k)
            values = texts.numbers(frame.info, k, frame.line + 1)
            texts.add_words(frame.words, k)
            gather.add(elements, positions, values, atom_values, cell, pbc, frame.line + 1)
    return labelled(gather, texts, ASE_UNITS)


def labelled(gather: Gather, texts: Texts, conventions: dict[str, tuple[str, str]], keys: Keys = KEYS) -> Frames:
    """Frames with the labels `keys`; units are those of the texts, else those by convention."""
    frames = gather.frames()
    arrays, declared = frames.arrays, texts.units
    if "energy" in declared:  # the file does not follow ASE's convention: forces and stress are those of this energy
        conventions = {name: unit for name, unit in conventions.items() if name not in ("forces", "stress")}
    if "stress" in arrays and arrays["stress"].shape[1:] == (6,):
        arrays["stress"] = arrays["stress"][:, VOIGT]
    return dataclasses.replace(
        frames,
        keys=keys,
        units={"length": declared.get("length", "Ang")},
        units_from="the file" if "length" in declared else CONVENTION,
        array_units=conventions | {name: (unit, "the file") for name, unit in declared.items()},
        split=texts.split(len(gather)),
        notes=(*frames.notes, *texts.notes(len(gather))),
        theory=tuple(texts.theory),
        left=tuple(name for name in (*texts.left, *units_of_nothing(declared, arrays, keys)) if name not in arrays),
        loose_units=texts.loose_units,
    )


def _frames(stream: TextIO, path: Path) -> Iterator[Frame]:
    line, k, ahead = 0, 0, ""
    while head := ahead or stream.readline():
        ahead = ""
        line += 1
        number = head.strip()
        if not number:
            continue
        where = f"{path}, frame {k}, line {line}"
        if not number.isdecimal() or len(number) > MOST_DIGITS or int(number) < 1:
            raise PaiNNFastError(
                "not a readable structure file", where=where, got=head[:60], expected="a number of atoms"
            )
        n = int(number)
        body = list(islice(stream, n + 1))
        if len(body) <= n:
            raise PaiNNFastError(
                "not a readable structure file: it ends within a frame", where=where, expected=f"{n} atoms"
            )
        vectors = []
        while (ahead := stream.readline()).lstrip().startswith("VEC"):
            vectors.append(ahead.split()[1:])
        pairs, words = comment_line.parse(body[0], f"{path}, frame {k}, line {line + 1}")
        yield Frame(line, pairs | _cell_of(vectors), words, body[1:])
        line, k = line + n + 1 + len(vectors), k + 1


def _cell_of(vectors: list[list[str]]) -> dict[str, str]:
    """Lines VEC1 to VEC3 after the atoms as a lattice: each vector is a periodic direction."""
    if not vectors:
        return {}
    text = [" ".join(vector) for vector in vectors] + ["0 0 0"] * (3 - len(vectors))
    return {"Lattice": " ".join(text), "pbc": " ".join(["T"] * len(vectors) + ["F"] * (3 - len(vectors)))}


def _atoms(frame: Frame, properties: str, texts: Texts, k: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Atomic numbers, positions and other columns of numbers."""
    where = f"{texts.path}, frame {k}"
    columns = _columns(properties, f"{where}, line {frame.line + 1}")
    width = sum(size for _, _, size in columns)
    texts.count_columns(len(frame.rows[0].split()) - width, k)
    words = [row.split()[:width] for row in frame.rows]
    for row, parts in enumerate(words):
        if len(parts) < width:
            line = f"{where}, line {frame.line + 2 + row}"
            raise PaiNNFastError("too few columns", where=line, got=frame.rows[row][:60], expected=width)
    elements, positions, values, first = None, None, {}, 0
    for name, kind, size in columns:
        part = [row[first : first + size] for row in words]
        first += size
        if name in ("species", "Z"):
            found = _elements([row[0] for row in part], frame, where)
            if elements is not None and (found != elements).any():
                row = int(np.flatnonzero(found != elements)[0])
                line, got = f"{where}, line {frame.line + 2 + row}", frame.rows[row].strip()[:60]
                raise PaiNNFastError("species and Z contradict each other", where=line, got=got, expected="one element")
            elements = found
        elif name == "pos":
            positions = _floats(part, frame, where)
        elif kind in "RI":
            values[name] = _floats(part, frame, where)
        else:
            texts.left.setdefault(name)
    if elements is None or positions is None or positions.shape[1] != 3:
        raise PaiNNFastError("no elements or no positions", where=where, got=properties, expected=PLAIN)
    return elements, positions, values


def _columns(properties: str, where: str) -> list[tuple[str, str, int]]:
    words = properties.split(":")
    if len(words) % 3 or not all(size.isdecimal() and int(size) for size in words[2::3]):
        raise PaiNNFastError("cannot read Properties", where=where, got=properties, expected=PLAIN)
    names = [COLUMNS.get(name, name) for name in words[::3]]
    if len(set(names)) < len(names):
        raise PaiNNFastError("two columns of one name", where=where, got=properties[:200])
    return [(name, kind.upper(), int(size)) for name, kind, size in zip(names, words[1::3], words[2::3], strict=True)]


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
    except ValueError:
        pass  # a number as Fortran writes it, or none
    values = [[real(word) for word in row] for row in rows]
    for k, row in enumerate(values):
        if None in row:
            line = frame.line + 2 + k
            raise PaiNNFastError("not numbers", where=f"{where}, line {line}", got=" ".join(rows[k])[:200])
    return np.array(values, dtype=np.float64)


def _cell(frame: Frame, texts: Texts, k: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Vectors as rows, and in which directions they count; a lattice of zeros is none."""
    lattice, directions = frame.pop("Lattice"), frame.pop("pbc")
    periodic = [True] * 3 if directions is None else truths(directions)
    if lattice is None and periodic is not None:
        if directions is not None and any(periodic):
            texts.count_without_cell(k)
        return None, None
    vectors = None if lattice is None else numbers(lattice)
    if vectors is None or vectors.shape != (9,) or periodic is None:
        raise PaiNNFastError(
            "cannot read the cell",
            where=f"{texts.path}, frame {k}, line {frame.line + 1}",
            got=f"{lattice} {directions}"[:200],
            expected="9 numbers, 3 T or F",
        )
    if directions is not None and any(periodic) and not vectors.any():
        texts.count_without_cell(k)
    return vectors.reshape(3, 3), np.array(periodic)


class Texts:
    """Entries of frames beside numbers: units, splits, and what is not understood."""

    def __init__(self, path: Path) -> None:
        self.path, self.units = path, dict[str, str]()
        self.theory: dict[str, None] = {}
        """Levels of theory."""
        self.left: dict[str, None] = {}
        """Names of entries that are no numbers."""
        self.loose_units: dict[str, str] = {}
        """Units in free text that are not ASE's, by their kind."""
        self._split: dict[int, int] = {}
        self._units_in: dict[str, int] = {}  # frames that declare the unit
        self._seen: dict[str, tuple[int, int, str]] = {}  # how often, first frame, text

    def numbers(self, info: dict[str, str], k: int, line: int) -> dict[str, np.ndarray]:
        """Numbers [n] of the pairs of a comment line by their names."""
        found = {}
        for name, text in info.items():
            if self.add_unit(name, text, f"{self.path}, frame {k}, line {line}"):
                continue
            if name == "split":
                self.add_split(text, k)
            elif name == THEORY and text.strip():
                self.theory.setdefault(text.strip())
            elif (values := numbers(text)) is not None:
                found[name] = values
            elif name.lower() in IMPORTANT and text.strip().lower() not in NONE:
                where = f"{self.path}, '{name}', frame {k}, line {line}"
                raise PaiNNFastError("not numbers", where=where, got=repr(text[:60]), expected="numbers, or nothing")
            else:
                self.left.setdefault(name)
        return found

    def add_unit(self, entry: str, unit: str, where: str) -> bool:
        """Take an entry that declares the unit of an array or a kind, the same in all frames; False for another entry.

        `formula_units=4` is a number of units.
        """
        match, unit = UNIT.fullmatch(entry), unit.strip()
        if match is None or match[1] is None or (match[2] and real(unit) is not None):
            return False
        name = match[1]
        self._units_in[name] = self._units_in.get(name, 0) + 1
        if self.units.setdefault(name, unit) != unit:
            raise PaiNNFastError(f"two units of {name}", where=where, got=unit, expected=self.units[name])
        return True

    def add_split(self, name: str, k: int) -> None:
        """Split of a frame."""
        self._split[k] = SPLIT_NAMES.get(name.strip().lower(), -1)

    def add_words(self, words: list[str], k: int) -> None:
        """Words of a comment line that belong to no pair; those of the first frame that has some may be units."""
        if not words:
            return
        if FREE_TEXT not in self._seen:
            for word in " ".join(words).split():
                for kind in ("energy", "length", "force"):
                    if units.size_of(kind, word.strip(",;:()[]#")) not in (None, 1.0):
                        self.loose_units.setdefault(kind, word)
        self._count(FREE_TEXT, k, " ".join(words)[:60])

    def count_columns(self, more: int, k: int) -> None:
        """Columns of atoms that Properties does not name."""
        if more > 0:
            self._count("columns of atoms that Properties does not name", k, f"{more} of them")

    def count_without_cell(self, k: int) -> None:
        """A frame that declares periodic directions and has no cell."""
        self._count("periodic without a cell, read as a molecule", k, "")

    def _count(self, what: str, k: int, text: str) -> None:
        n, first, before = self._seen.get(what, (0, k, text))
        self._seen[what] = n + 1, first, before

    def notes(self, n: int) -> tuple[str, ...]:
        """What was not understood in n frames, or declared in some of them only, a line each."""
        some = tuple(
            f"{self.path.name}: {name}_unit = {self.units[name]} stands in {count} of {n} frames and is taken for all"
            for name, count in self._units_in.items()
            if count < n
        )
        return some + tuple(
            f"{self.path.name}: {what}, in {n} frames, first in frame {first}{f': {text!r}' if text else ''}"
            for what, (n, first, text) in self._seen.items()
        )

    def split(self, n: int) -> np.ndarray | None:
        """0, 1, 2, or -1 for a frame that names none or another; None if no frame names one."""
        return np.array([self._split.get(k, -1) for k in range(n)]) if self._split else None
