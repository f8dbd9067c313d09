"""Models for i-PI: as a client of its `ffsocket`, or in its process as the custom PES of its `ffdirect`.

Either way all beads that i-PI has sent are evaluated as one batch. i-PI uses atomic units: bohr, hartree, and in the
extras "dipole" in e a0, "polarizability" in a0^3 and the spreads of an ensemble in the units of their property.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from scipy.spatial import cKDTree

from painn_fast.adapters.ipi_protocol import Result, Structures
from painn_fast.ensemble import SPREAD, Ensemble, Several
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.graph.batch import CLOSEST
from painn_fast.graph.cells import check_far
from painn_fast.io import load
from painn_fast.io.find import AFTER_MODEL
from painn_fast.io.load import dtype_of
from painn_fast.io.minima import minima_of, start_structures
from painn_fast.io.structures import refuse_constraints
from painn_fast.md.forces import ModelForces
from painn_fast.nn import Potential
from painn_fast.units import BOHR, HARTREE

_UNITS = {"energy": HARTREE, "forces": HARTREE / BOHR, "dipole": BOHR, "polarizability": BOHR**3}
EXTRAS = {name: _UNITS[name] for name in ("dipole", "polarizability")}
EXTRAS |= {f"{name}{SPREAD}": unit for name, unit in _UNITS.items()}
"""Properties that go into the extras, with their atomic units in ours."""


class Driver:
    """A model as i-PI calls it, in atomic units; of the shape of the classes in `ipi.pes`, none of which it needs.

    Args:
        model: a potential, or what `painn_fast.load` takes, or an ensemble or a sum of them.
        structure: elements in i-PI's order, and whether the structure is periodic: atoms, or a file that ASE reads; a
            bundled model has its own. Cells come from i-PI; a molecule only has to be smaller than half of its. Charge
            and spin multiplicity are those in `info`; momenta and constraints are i-PI's, so the latter are refused.
        properties: names out of `EXTRAS`, in a list, or in a text with commas or blanks.
        dtype: "float32" or "float64", of the network; None keeps the file's.
        device: "cpu", "cuda", ...; None is the CPU.
        verbosity: i-PI's; ignored.
        members: more models, in a list, or in a text with commas or blanks; `model` and these make an ensemble, whose
            forces are the means over the members and whose spreads can be asked for, such as "forces_spread", [N].
        load_options: further arguments of `painn_fast.load`, such as energy_unit.

    Raises:
        PaiNNFastError: for a property or an element that the model does not know, and for constraints.

    Example:
        >>> import numpy as np
        >>> from painn_fast.adapters import Driver
        >>> from painn_fast.units import BOHR
        >>> driver = Driver("ethanol", properties="dipole")
        >>> cell, positions = 50 * np.eye(3), driver.atoms.positions / BOHR
        >>> energy, forces, virial, extras = driver(cell, positions)
        >>> forces.shape, virial.shape, extras[:10]
        ((9, 3), (3, 3), '{"dipole":')
    """

    def __init__(
        self,
        model: Potential | Several | str | Path,
        structure: ase.Atoms | str | Path | None = None,
        properties: str | Iterable[str] = (),
        dtype: str | None = None,
        device: str | None = None,
        verbosity: Any = None,
        members: str | Iterable[Potential | str | Path] = (),
        **load_options: Any,
    ) -> None:
        dtype_of(dtype)
        self.atoms = _structure(model, structure)
        refuse_constraints([self.atoms], "the driver of i-PI", fix="i-PI fixes atoms itself, with <fixatoms>")
        self.potential = _loaded(model, _listed(members), dtype, device, load_options)
        self.properties = tuple(_listed(properties))
        self.periodic = bool(self.atoms.pbc.any())
        self._check()
        self._molecule = None if self.periodic else ModelForces(self.potential, self.atoms)

    def __call__(self, cell: Any, pos: Any) -> Any:
        """i-PI's call, with one structure or a list of them.

        Args:
            cell: [3, 3] bohr, columns are the vectors; or a list.
            pos: positions [N, 3] bohr; or a list.

        Returns:
            Energy (hartree), forces [N, 3] (hartree/bohr), virial [3, 3] (hartree) and extras (JSON, or ""); of a list
            a list of them.
        """
        if isinstance(cell, list):
            return [tuple(result) for result in self.evaluate(_structures(cell, pos))]
        return tuple(self.evaluate(_structures([cell], [pos]))[0])

    def evaluate(self, beads: Structures) -> list[Result]:
        """Evaluate all of `beads` in one batch.

        Returns:
            The result of each, in their order.

        Raises:
            PaiNNFastError: for another number of atoms, positions or a cell that are not finite, atoms at one position,
                a molecule that is torn, and for results that are not finite: i-PI would go on with them.
        """
        if beads.positions.shape[1] != len(self.atoms):
            raise PaiNNFastError(
                "i-PI has another structure", got=f"{beads.positions.shape[1]} atoms", expected=f"{len(self.atoms)}",
                fix="give the structure that i-PI was initialised with",
            )  # fmt: skip
        if not np.isfinite(beads.positions).all():
            raise PaiNNFastError("i-PI sent positions that are not finite", fix="try a shorter time step")
        if not np.isfinite(beads.cells).all():
            raise PaiNNFastError("i-PI sent a cell that is not finite", got=beads.cells[0].tolist())
        if not self.periodic:
            _check_whole(beads)
        positions = beads.positions * BOHR
        for bead in positions:
            check_far(bead)
        values = self._crystals(beads.cells, positions) if self.periodic else self._molecules(positions)
        energy, forces, virial = (
            values["energy"] / HARTREE,
            values["forces"] * (BOHR / HARTREE),
            values["virial"] / HARTREE,
        )
        extras = {name: values[name] / EXTRAS[name] for name in self.properties}
        texts = [json.dumps({name: value[k].tolist() for name, value in extras.items()}) for k in range(len(positions))]
        return [
            Result(float(e), f, v, text if extras else "")
            for e, f, v, text in zip(energy, forces, virial, texts, strict=True)
        ]

    def warm_up(self, beads: int) -> None:
        """Compile, and raise errors of the model, before i-PI waits."""
        cell = self.atoms.cell.array.T * (self.periodic / BOHR)
        self.evaluate(Structures(np.stack([cell] * beads), np.stack([self.atoms.positions / BOHR] * beads)))

    def _molecules(self, positions: np.ndarray) -> dict[str, np.ndarray]:
        assert self._molecule is not None
        _require_apart(positions)
        energy, forces, others = self._molecule.evaluate(torch.from_numpy(positions), self.properties)
        results = {"energy": energy, "forces": forces, **others}
        values = {name: value.numpy() for name, value in results.items()}
        _require_finite(values)
        away = positions - positions.mean(axis=1, keepdims=True)
        return values | {"virial": np.einsum("bnx,bny->bxy", away, values["forces"])}

    def _crystals(self, cells: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
        beads = []
        for cell, coordinates in zip(cells, positions, strict=True):
            bead = self.atoms.copy()
            bead.cell, bead.positions = cell.T * BOHR, coordinates
            beads.append(bead)
        results = evaluate(self.potential, beads, ("energy", "forces", "stress", *self.properties))
        values = {name: np.array(entries) for name, entries in results.items()}
        full = values["stress"][:, [[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
        volume = np.array([bead.get_volume() for bead in beads])
        return values | {"virial": -full * volume[:, None, None]}

    def _check(self) -> None:
        for name in self.properties:
            if name not in EXTRAS or name not in self.potential.properties:
                known = [extra for extra in EXTRAS if extra in self.potential.properties]
                raise PaiNNFastError(
                    "no such extra",
                    where="properties",
                    got=repr(name),
                    expected=" | ".join(known) or "none of this model",
                )


def _loaded(
    model: Potential | Several | str | Path, members: Sequence[Potential | str | Path], dtype: str | None,
    device: str | None, options: Mapping[str, Any],
) -> Potential | Several:  # fmt: skip
    """The model, or the ensemble of it and members."""
    ready = [one for one in (model, *members) if isinstance(one, Potential | Several)]
    if ready and (dtype or device or options):
        got = ", ".join((f"dtype={dtype}, device={device}", *options))
        raise PaiNNFastError("a model that is loaded has its type, device and units", got=got)
    if not isinstance(model, Several):
        of_files: dict[str, Any] = {} if ready else {"dtype": dtype, "device": device or "cpu", **options}
        if members:
            return Ensemble([model, *members], **of_files)
        return model if isinstance(model, Potential) else load(model, **of_files)
    if members:
        raise PaiNNFastError("members beside several models", fix="make one painn_fast.Ensemble of all of them")
    return model


def _listed(names: str | Iterable[Any]) -> list[Any]:
    """Names of a text with commas or blanks, or what a list has."""
    return re.findall(r"[^,\s]+", names) if isinstance(names, str) else list(names)


def _structures(cells: Sequence[Any], positions: Sequence[Any]) -> Structures:
    """Cells [B, 3, 3] and positions [B, N, 3] of a call."""
    try:
        whole = Structures(np.array(cells, dtype=np.float64), np.array(positions, dtype=np.float64))
    except (TypeError, ValueError):
        raise PaiNNFastError("not cells and positions", expected="numbers [3, 3] and [N, 3]") from None
    beads = len(whole.positions)
    if whole.positions.shape != (beads, *whole.positions.shape[1:2], 3) or whole.cells.shape != (beads, 3, 3):
        got = f"{list(whole.cells.shape[1:])} and {list(whole.positions.shape[1:])}"
        raise PaiNNFastError("not cells and positions", got=got, expected="numbers [3, 3] and [N, 3]")
    return whole


def _require_apart(positions: np.ndarray) -> None:
    """Raise PaiNNFastError for the first bead two of whose atoms are on top of each other; positions [B, N, 3] Å."""
    for bead, own in enumerate(positions):
        pairs = cKDTree(own).query_pairs(CLOSEST, output_type="ndarray")
        if len(pairs):
            i, j = pairs[np.linalg.norm(own[pairs[:, 0]] - own[pairs[:, 1]], axis=1).argmin()]
            raise PaiNNFastError(
                "i-PI sent atoms on top of each other", where=f"bead {bead}, atoms {i} and {j}",
                got=f"a distance of {np.linalg.norm(own[i] - own[j]):.3g} Å",
                fix="check the structure, or try a shorter time step",
            )  # fmt: skip


def _require_finite(values: Mapping[str, np.ndarray]) -> None:
    """Raise PaiNNFastError for the first bead whose values [B, ...] are not finite."""
    bad = {name: ~np.isfinite(value.reshape(len(value), -1)).all(axis=1) for name, value in values.items()}
    wrong = np.any(list(bad.values()), axis=0)
    if wrong.any():
        bead = int(wrong.argmax())
        raise PaiNNFastError(
            "the model gives no finite numbers", where=f"bead {bead}",
            got=", ".join(name for name, beads in bad.items() if beads[bead]),
            fix="check the model and the structure",
        )  # fmt: skip


def _check_whole(beads: Structures) -> None:
    """Raise PaiNNFastError for what looks like a molecule whose atoms i-PI has folded into the cell."""
    shortest, largest = np.linalg.norm(beads.cells, axis=1).min(), np.ptp(beads.positions, axis=1).max()
    if largest > 0.5 * shortest > 0.0:
        raise PaiNNFastError(
            "a molecule that is as large as half of i-PI's cell: its atoms may have been folded into it",
            got=f"{largest * BOHR:.1f} Å, a cell of {shortest * BOHR:.1f} Å",
            fix="write pbc='False' in i-PI's force field, or a larger cell",
        )


def _structure(model: Potential | Several | str | Path, structure: ase.Atoms | str | Path | None) -> ase.Atoms:
    if isinstance(structure, ase.Atoms):
        return structure.copy()
    if isinstance(model, Several):
        model = model.members[0]
    if structure is None and isinstance(model, Potential) and (minima := minima_of(model)):
        return minima[0]
    return start_structures(structure, "" if isinstance(model, Potential) else str(model), fix=AFTER_MODEL)[0]
