"""The formats of ASE that are read from files of others.

ASE recognises a file by its first bytes and then runs the reader of that format, regardless of the name of the file.
Formats that are not listed are refused: some of them unpickle (old and bundled trajectories), run a program, open other
files that the file names, or connect to a server.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
import re
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import ase
import ase.io
from ase.io.formats import filetype, get_compression, open_with_compression

from painn_fast.errors import PaiNNFastError, reading

NAMES = """
abinit-in abinit-out acemolecule-input acemolecule-out aims aims-output castep-castep castep-cell castep-geom
castep-md castep-phonon cfg cif cjson cmdft cp2k-dcd cp2k-restart crystal cube dacapo-text db dftb dlp-history dlp4
dmol-arc dmol-car dmol-incoor elk elk-in eon espresso-in espresso-out exciting extxyz findsym gamess-us-in
gamess-us-out gamess-us-punch gaussian-in gaussian-out gen gpaw-out gpumd gromacs gromos json jsv lammps-data
lammps-dump-binary lammps-dump-text magres mol mustem netcdftrajectory nomad-json nwchem-in nwchem-out onetep-in
onetep-out orca-output prismatic proteindatabank qbox res rmc6f runnerdata sdf siesta-xv struct struct_out sys traj
turbomole turbomole-gradient v-sim vasp vasp-out vasp-xdatcar vasp-xml vti vtu wout xsd xsf xtd xyz
"""
FORMATS = frozenset(NAMES.split())
"""Text, XML, SQLite and ASE's own binary format: data alone."""
COMPRESSED: dict[str, Callable[..., Any]] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
MAX_UNPACKED = 4 * 2**30
"""Bytes of a compressed file, unpacked."""
BLOCK = 2**20
PROPERTIES = re.compile(r"properties\s*=\s*(\S+)", re.IGNORECASE)
TOO_MANY = re.compile(r":\s*[+_\d]{6,}")
"""Columns of one property."""


def iread(path: str | Path) -> Iterator[ase.Atoms]:
    """All frames of a file, one after another, if its format is one of `FORMATS`.

    Raises:
        PaiNNFastError: for another format, and for any error of ASE's reader.
    """
    with reading("not a readable structure file", path, expected="xyz, or another format of ASE"):
        _check_unpacked(Path(path))
        name = filetype(str(path))
        if name not in FORMATS:
            raise PaiNNFastError(
                "a format that is not read, as it may run code, unpickle or open other files",
                where=path,
                got=name,
                expected="xyz, traj, db, cif, vasp or another format that holds data alone",
                fix="convert it with ase, if you trust it: ase convert FILE FILE.xyz",
            )
        if name == "json":
            check_json(Path(path))
        if name in ("xyz", "extxyz"):
            _check_counts(Path(path))
        yield from ase.io.iread(str(path), index=":", format=name, do_not_split_by_at_sign=True)


def check_json(path: Path) -> None:
    """Raise PaiNNFastError for a JSON file of ASE with an array that has fewer numbers than its shape.

    ASE allocates the shape of an array before it fills in the numbers.
    """
    with reading("not a readable ASE database", path):
        json.loads(path.read_text(encoding="utf-8"), object_hook=_check_array)


def _check_array(values: dict[str, Any]) -> dict[str, Any]:
    if "__ndarray__" in values:
        shape, kind, flat = values["__ndarray__"]
        size = math.prod(shape if isinstance(shape, list) else [shape])
        if size * (2 if "complex" in str(kind) else 1) != len(flat):
            raise ValueError(f"an array of shape {shape} made of {len(flat)} numbers")
    return values


def _check_counts(path: Path) -> None:
    """Raise PaiNNFastError for an XYZ file that ends before the last atom, or states very many columns.

    ASE's reader takes a step for each atom and column that is promised, for minutes if such a number is wrong.
    """
    with open_with_compression(str(path), "rt") as file:
        for line in file:
            try:
                promised = int(line)
            except ValueError:  # the end, or vectors of a cell, or what ASE's reader has a message for
                continue
            columns = PROPERTIES.search(next(file, ""))
            if columns and TOO_MANY.search(columns[1]):
                raise PaiNNFastError("too many columns", where=path, got=columns[0], expected="name:type:count:...")
            rows = sum(1 for _ in islice(file, min(max(promised, 0), sys.maxsize)))
            if rows < promised:
                raise PaiNNFastError(
                    "an XYZ file that ends within a structure",
                    where=path,
                    got=f"{rows} atoms",
                    expected=f"{promised}, as its first line says",
                )


def _check_unpacked(path: Path) -> None:
    """Raise PaiNNFastError for a compressed file that unpacks to more than `MAX_UNPACKED`."""
    unpack = COMPRESSED.get(get_compression(path.name)[1] or "")
    if unpack is None:
        return
    size = 0
    with unpack(path, "rb") as stream:
        while block := stream.read(BLOCK):
            size += len(block)
            if size > MAX_UNPACKED:
                raise PaiNNFastError("too large a compressed file", where=path, expected=f"{MAX_UNPACKED} bytes")
