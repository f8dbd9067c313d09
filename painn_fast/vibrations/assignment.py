"""Kind of motion and name of a normal mode, from the energy in bonds, angles and torsions."""

from __future__ import annotations

import re

import ase
import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from painn_fast.vibrations.internal_coordinates import Coordinate, b_matrix, coordinates

RADII = {6: (0.75, 0.67, 0.60), 7: (0.71, 0.60, 0.54), 8: (0.63, 0.57, 0.53), 16: (1.03, 0.94, 0.95)}
"""Å, of single, double and triple bonds; Pyykkö and Atsumi, Chem. Eur. J. 15, 186 and 12770 (2009)."""
BONDS = ("-", "=", "≡")
COUNTS = 0.3
"""Share of the energy from which stretching of heavy bonds names a mode that also bends hydrogens."""
BESIDE = 0.4
"""Share, relative to the largest of its kind, from which a motion is named beside it."""


def character(atoms: ase.Atoms, hessian: np.ndarray, modes: np.ndarray) -> list[dict[str, float]]:
    """Share of the potential energy of each mode in each kind of motion, such as {"O-H stretch": 0.99, ...}.

    The Hessian in internal coordinates is F = (B^+)^T H B^+; the energy of a displacement s = B dR in coordinate i is
    s_i (F s)_i. Shares of coordinates with one name are added, and their magnitudes normalised.

    Args:
        atoms: n of them.
        hessian: [3 n, 3 n] eV/Å^2.
        modes: dR/dQ [K, n, 3].

    Returns:
        One dictionary a mode, largest share first.
    """
    internal = coordinates(atoms)
    b = b_matrix(atoms, internal)
    weight = np.repeat(atoms.get_masses() ** -0.5, 3)
    inverse = weight[:, None] * np.linalg.pinv(b * weight, rcond=1e-8)
    force_constants = inverse.T @ hessian @ inverse
    s = modes.reshape(len(modes), -1) @ b.T  # [K, C]
    energy = s * (s @ force_constants)
    labels = [label(atoms, coordinate) for coordinate in internal]
    return [_shares(row, labels) for row in energy]


def _shares(energy: np.ndarray, labels: list[str]) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, value in zip(labels, energy, strict=True):
        total[name] = total.get(name, 0.0) + float(value)
    norm = sum(abs(value) for value in total.values()) or 1.0
    return dict(sorted(((name, abs(value) / norm) for name, value in total.items()), key=lambda item: -item[1]))


def mode_name(shares: dict[str, float]) -> str:
    """The name of a mode, such as "O-H stretch" or "C-O/C-C stretch", from the shares of `character`."""
    if not shares:
        return "vibration"
    stretches = {name: share for name, share in shares.items() if name.endswith(" stretch")}
    kind = "stretch" if sum(stretches.values()) >= COUNTS else _kind(next(iter(shares)))
    same = {name: share for name, share in shares.items() if _kind(name) == kind}
    largest = max(same.values())
    leading = [name for name, share in same.items() if share >= BESIDE * largest][:2]
    return joined(leading)


def joined(names: list[str]) -> str:
    """Names of one kind as one, heavier atoms first: "C-O/C-C stretch"."""
    kind = _kind(names[0])
    parts = dict.fromkeys(part for name in names for part in name.removesuffix(f" {kind}").split("/"))
    return f"{'/'.join(sorted(parts, key=_weight))} {kind}"


def _weight(part: str) -> tuple[int, str]:
    return -sum(atomic_numbers[symbol] for symbol in re.findall(r"[A-Z][a-z]?", part)), part


def _kind(name: str) -> str:
    return name.split(" ", 1)[1]


def label(atoms: ase.Atoms, coordinate: Coordinate) -> str:
    """Name of a coordinate: "C=O stretch", "C-H bend", "C-C-O bend", "C-C torsion", "out of plane"."""
    symbols = [chemical_symbols[atoms.numbers[i]] for i in coordinate.atoms]
    if coordinate.kind == "stretch":
        return f"{bond(atoms, *coordinate.atoms)} stretch"
    if coordinate.kind == "out of plane":
        return f"{symbols[0]} {coordinate.kind}"
    if coordinate.kind == "torsion":
        return f"{bond(atoms, *coordinate.atoms)} torsion"
    left, centre, right = symbols
    if "H" in (left, right) and centre != "H":
        return f"{centre}-H bend"
    return f"{'-'.join([*sorted((left, right))[:1], centre, *sorted((left, right))[1:]])} bend"


def bond(atoms: ase.Atoms, i: int, j: int) -> str:
    """A bond with its order by length, the heavier atom of one with hydrogen first, such as "O-H", "C=O", "C-C"."""
    first, second = sorted((int(atoms.numbers[i]), int(atoms.numbers[j])), key=lambda z: (z == 1, z))
    sign = BONDS[0]
    if first in RADII and second in RADII:
        lengths = [a + b for a, b in zip(RADII[first], RADII[second], strict=True)]
        distance = float(np.linalg.norm(atoms.positions[i] - atoms.positions[j]))
        sign = BONDS[int(np.argmin(np.abs(np.array(lengths) - distance)))]
    return f"{chemical_symbols[first]}{sign}{chemical_symbols[second]}"
