"""The original archive of QM9, `dsgdb9nsd.xyz.tar.bz2`: a file for each molecule, also as a plain tar or a folder.

Second line: `gdb`, number, A B C (GHz), mu (D), alpha (a0³), homo lumo gap (Ha), r2 (a0²), zpve U0 U H G (Ha), Cv
(cal/mol/K). Then element, x, y, z (Å) and Mulliken charge of each atom; frequencies, SMILES and InChI. Raghunathan
Ramakrishnan et al., Scientific Data 1, 140022 (2014).
"""

from __future__ import annotations

import dataclasses
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from painn_fast.errors import PaiNNFastError, reading
from painn_fast.runtime.progress import counted
from painn_fast.train.data.frames import Frames, Gather, Keys

UNITS = {
    **dict.fromkeys(("A", "B", "C"), "GHz"),
    "mu": "D",
    "alpha": "a0^3",
    **dict.fromkeys(("homo", "lumo", "gap"), "Ha"),
    "r2": "a0^2",
    **dict.fromkeys(("zpve", "u0", "u298", "h298", "g298"), "Ha"),
    "cv": "cal/mol/K",
}
"""Properties in their order, and their units."""
KEYS: Keys = {"dipole_magnitude": ("mu",), "spatial_extent": ("r2",)}
LEFT = ("Mulliken charges of atoms", "frequencies", "SMILES", "InChI")
"""What the files hold beside these."""
MOLECULES = 133885
LARGEST = 2**20
"""Bytes of the file of a molecule; some thousand are usual."""


def read(path: Path) -> Frames:
    """All molecules; `index` is their number.

    Raises:
        PaiNNFastError: naming archive, file and line.
    """
    gather, index = Gather(path), []
    for name, text in counted(_texts(path), f"reading {path.name}: molecules", MOLECULES):
        index.append(_molecule(text, f"{path}, {name}", gather))
    frames = gather.frames()
    return dataclasses.replace(
        frames,
        keys=KEYS,
        units={"length": "Ang"},
        units_from="QM9",
        array_units={name: (unit, "QM9") for name, unit in UNITS.items()},
        index=np.array(index),
        left=LEFT,
        cell=None,
        pbc=None,
    )


def is_archive(path: Path) -> bool:
    """Whether this is a tar or a folder of such files."""
    if path.is_dir():
        return next(path.glob("dsgdb9nsd_*.xyz"), None) is not None
    return path.name.lower().endswith((".tar", ".tar.bz2", ".tbz2", ".tar.gz", ".tgz", ".tar.xz"))


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    if path.is_dir():
        for file in sorted(path.glob("*.xyz")):
            yield file.name, file.read_text(encoding="utf-8", errors="replace")
        return
    with reading("not a readable archive", path), tarfile.open(path) as archive:
        for member in archive:
            if member.size > LARGEST:
                raise PaiNNFastError("not an archive of QM9", where=f"{path}, {member.name[:100]}", got=member.size)
            stream = archive.extractfile(member) if member.name.endswith(".xyz") else None
            if stream is not None:
                yield member.name, stream.read().decode(errors="replace")


def _molecule(text: str, where: str, gather: Gather) -> int:
    """Add the molecule; its number."""
    lines = text.split("\n")
    try:
        n = int(lines[0])
        words = lines[1].split()
        values = [_number(word) for word in words[2 : 2 + len(UNITS)]]
        rows = [line.split() for line in lines[2 : 2 + max(n, 0)]]
        numbers = np.array([atomic_numbers[row[0]] for row in rows])
        positions = np.array([[_number(word) for word in row[1:4]] for row in rows])
        index = int(words[1])
    except (ValueError, IndexError, KeyError) as error:
        raise PaiNNFastError("not a molecule of QM9", where=where, got=f"{type(error).__name__}: {error}") from None
    if len(values) != len(UNITS) or positions.shape != (n, 3) or words[0] != "gdb":
        expected = f"{n} atoms, and gdb, number and {len(UNITS)} properties in line 2"
        raise PaiNNFastError("not a molecule of QM9", where=where, expected=expected)
    gather.add(numbers, positions, {name: np.array([v]) for name, v in zip(UNITS, values, strict=True)}, {})
    return index


def _number(word: str) -> float:
    """Also as Fortran writes it: 6.0*^-6."""
    return float(word.replace("*^", "e"))
