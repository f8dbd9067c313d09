"""Models for LAMMPS: forces through its `fix external`, called back in the process that runs LAMMPS as a library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase
import numpy as np
from ase.data import atomic_numbers

from painn_fast.ensemble import Several
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate_again
from painn_fast.graph.kept import KeptGraph
from painn_fast.nn import Potential
from painn_fast.units import KCAL_PER_MOL

if TYPE_CHECKING:
    from lammps import lammps

UNITS = {"metal": 1.0, "real": KCAL_PER_MOL}
"""LAMMPS's unit of energy in eV, by its style of units; lengths are Å in both."""
MARGIN = 10.0
"""Å; empty space beside a slab is a multiple of it, so that the cell changes seldom."""


class FixExternal:
    """A model as a fix of LAMMPS, with energy and virial; keep it as long as LAMMPS runs.

    Directions that LAMMPS has as periodic are periodic for the model. An error in a callback ends the run, and is the
    message of the exception that `lmp.command` raises.

    Args:
        lmp: LAMMPS on one process, with units metal or real and a box; the fix is added to it.
        model: a potential, an ensemble or a sum of them, or what `painn_fast.load` takes.
        elements: symbols, one for each type of atoms, in their order.
        group: the atoms that the model acts on.
        name: the ID of the fix.
        charge: total charge of these atoms, e.
        multiplicity: their spin multiplicity 2S + 1.
        device: "cpu", "cuda", ...; None uses the model where it is.
        backend: "auto", "fused" or "reference".
        dtype: "float32" or "float64", of the network; None keeps the model's.
        load_options: further arguments of `painn_fast.load`, such as energy_unit.

    Raises:
        PaiNNFastError: for more than one process, other units, a number of elements that is not that of types, symbols
            that are no elements, elements that the model does not know, and an unknown group.

    Example:
        >>> from lammps import lammps
        >>> from painn_fast.adapters.lammps import FixExternal
        >>> lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
        >>> lmp.commands_string('''
        ... units metal
        ... boundary f f f
        ... atom_modify map array
        ... region box block -20 20 -20 20 -20 20
        ... create_box 2 box
        ... mass 1 16.0
        ... mass 2 1.0
        ... comm_modify cutoff 3.0
        ... create_atoms 1 single 0 0 0.1
        ... create_atoms 2 single 0 0.76 -0.5
        ... create_atoms 2 single 0 -0.76 -0.5
        ... ''')
        >>> painn = FixExternal(lmp, "ethanol", ["O", "H"])
        >>> lmp.command("run 0")
        >>> lmp.numpy.extract_atom("f").shape  # eV/Å
        (3, 3)
    """

    def __init__(
        self, lmp: lammps, model: Potential | Several | str | Path, elements: Sequence[str], *, group: str = "all",
        name: str = "painn", charge: float = 0.0, multiplicity: float = 1.0, device: Any = None, backend: str = "auto",
        dtype: Any = None, **load_options: Any,
    ) -> None:  # fmt: skip
        from painn_fast.ase import PaiNNCalculator

        self.lmp, self.name, self.backend = lmp, name, backend
        self.model = PaiNNCalculator(model, device, backend, dtype=dtype, **load_options).potential
        self.numbers = _numbers(elements, int(lmp.extract_global("ntypes")))
        for one in self.model.members if isinstance(self.model, Several) else [self.model]:
            one.require_elements(set(self.numbers[1:].tolist()))
        self.unit = _unit(lmp)
        self.bit = _bit(lmp, group)
        neutral = (charge, multiplicity) == (0.0, 1.0)  # what info means without an entry, read in no time
        self.info = {} if neutral else {"charge": charge, "spin_multiplicity": multiplicity}
        self._atoms, self._kept = ase.Atoms(), KeptGraph()
        lmp.command(f"fix {name} {group} external pf/callback 1 1")
        lmp.command(f"fix_modify {name} energy yes virial yes")
        lmp.set_fix_external_callback(name, self._call)

    def _call(self, _caller: Any, _step: int, n_atoms: int, tags: np.ndarray, x: np.ndarray, f: np.ndarray) -> None:
        """Fill forces f [n_atoms, 3]; an exception would be lost between Python and LAMMPS, which would go on."""
        try:
            energy, virial = self._evaluate(n_atoms, tags, x, f)
        except Exception as error:
            f[:] = np.nan
            self._end(str(error) if isinstance(error, PaiNNFastError) else f"{type(error).__name__}: {error}")
        else:
            self.lmp.fix_external_set_energy_global(self.name, energy)
            self.lmp.fix_external_set_virial_global(self.name, virial.tolist())

    def _end(self, message: str) -> None:
        """End the run with an error: LAMMPS keeps one of its own, which quotes an ID of a fix that it does not have.

        Its function for errors ends the whole process when it is called in a run.
        """
        self.lmp.force_timeout()
        text = f"{self.name} has ended the run: {message}; a fix of that name"
        self.lmp.lib.lammps_fix_external_set_energy_global(self.lmp.lmp, text.encode(), 0.0)

    def _evaluate(self, n_atoms: int, tags: np.ndarray, x: np.ndarray, f: np.ndarray) -> tuple[float, np.ndarray]:
        """Fill f; energy, and virial xx, yy, zz, xy, xz, yz, in LAMMPS's units."""
        inside = (self.lmp.numpy.extract_atom("mask")[:n_atoms] & self.bit) != 0
        rows = np.flatnonzero(inside)
        rows = rows[tags[rows].argsort()]  # LAMMPS sorts atoms by where they are
        numbers = self.numbers[self.lmp.numpy.extract_atom("type")[rows]]
        cell, pbc = _cell(self.lmp.extract_box(), x[rows], self.model.cutoff)
        atoms = self._atoms
        if not np.array_equal(atoms.numbers, numbers):
            self._atoms = atoms = ase.Atoms(numbers, pbc=pbc, info=self.info)
        atoms.positions = x[rows]
        if pbc:
            atoms.cell = cell
        names = ("energy", "forces", "stress") if pbc else ("energy", "forces")
        results = evaluate_again(self.model, atoms, names, self._kept, backend=self.backend)
        values = {key: one for key, (one,) in results.items()}
        f[:] = 0.0
        f[rows] = values["forces"] / self.unit
        if pbc:
            virial = -atoms.get_volume() * values["stress"][[0, 1, 2, 5, 4, 3]]
        else:
            outer = (atoms.positions - atoms.positions.mean(axis=0)).T @ values["forces"]
            virial = outer[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
        return values["energy"] / self.unit, virial / self.unit


def _numbers(elements: Sequence[str], n_types: int) -> np.ndarray:
    """Atomic numbers by type [n_types + 1]; types count from 1."""
    if isinstance(elements, str) or len(elements) != n_types:
        raise PaiNNFastError(
            "elements are not those of LAMMPS's types", where="elements", got=repr(elements),
            expected=f"symbols in a list, one for each of {n_types} types",
        )  # fmt: skip
    unknown = [symbol for symbol in elements if symbol not in atomic_numbers]
    if unknown:
        raise PaiNNFastError("no such element", where="elements", got=unknown[0], expected="symbols such as H, C, O")
    return np.array([0, *(atomic_numbers[symbol] for symbol in elements)])


def _unit(lmp: lammps) -> float:
    """LAMMPS's unit of energy, eV."""
    if lmp.extract_setting("world_size") != 1:
        raise PaiNNFastError(
            "LAMMPS runs on several processes", got=lmp.extract_setting("world_size"), expected="1",
            fix="run without mpirun; the model uses the threads of torch",
        )  # fmt: skip
    style = lmp.extract_global("units")
    if style not in UNITS:
        raise PaiNNFastError("other units of LAMMPS", where="units", got=style, expected=" | ".join(UNITS))
    return UNITS[style]


def _bit(lmp: lammps, group: str) -> int:
    """The bit of a group in the masks of atoms."""
    groups = lmp.available_ids("group")
    if group not in groups:
        known = [one for one in groups if one]
        raise PaiNNFastError("LAMMPS has no such group", where="group", got=repr(group), expected=" | ".join(known))
    return 1 << groups.index(group)


def _cell(box: Sequence[Any], positions: np.ndarray, cutoff: float) -> tuple[np.ndarray | None, bool]:
    """The vectors, in rows, and whether they are periodic; a direction that is not gets space beside the atoms."""
    low, high, xy, yz, xz, periodic, _ = box
    if not any(periodic):
        return None, False
    cell = np.diag(np.subtract(high, low))
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    for direction in np.flatnonzero(np.logical_not(periodic)):
        empty = np.ptp(positions[:, direction]) + cutoff
        cell[direction, direction] = MARGIN * (np.floor(empty / MARGIN) + 1.0)
    return cell, True
