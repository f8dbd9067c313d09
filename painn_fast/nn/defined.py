"""Which properties a structure has: stress needs a crystal, dipoles and their like need a molecule in vacuum."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

NEEDS_CELL = {"stress"}
"""Properties of structures that are periodic in three directions."""
NEEDS_VACUUM = {"dipole", "charges", "dipole_magnitude", "polarizability", "spatial_extent"}
"""Properties of structures that are not periodic in any."""
SHAPES = {"stress": (6,), "dipole": (3,), "polarizability": (3, 3)}
"""Of the results of `painn_fast.evaluate` that may be undefined; others are numbers, charges one an atom."""

Array = TypeVar("Array", np.ndarray, "Tensor")


def depends_on_cell(name: str) -> bool:
    """Whether there are structures for which a property is not defined; `name` may be that of a spread."""
    return _base(name) in NEEDS_CELL | NEEDS_VACUUM


def defined(name: str, pbc: Array) -> Array:
    """Which structures [M] of periodic directions [M, 3] have a property."""
    all_, none = pbc[..., 0] & pbc[..., 1] & pbc[..., 2], ~(pbc[..., 0] | pbc[..., 1] | pbc[..., 2])
    if _base(name) in NEEDS_CELL:
        return all_
    return none if _base(name) in NEEDS_VACUUM else all_ | True


def undefined_entry(name: str, n_atoms: int) -> np.ndarray | float:
    """The result for a structure that does not have the property: NaN in its shape."""
    if name.startswith("charges"):
        return np.full(n_atoms, np.nan)
    return np.full(SHAPES[name], np.nan) if name in SHAPES else float("nan")


def _base(name: str) -> str:
    return name.removesuffix("_spread")
