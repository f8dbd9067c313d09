"""Cells that a neighbour list can be made for; the others are refused in words before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from painn_fast.errors import PaiNNFastError

FARTHEST = 1e8
"""Å; positions and cell vectors beyond have too few digits left for distances."""
MOST_NEIGHBORS = 10_000
"""Neighbours of an atom, on average: in diamond at 20 Å there are 6,000."""
MOST_EDGES = 50_000_000
"""Edges of a structure; a list of so many takes about 5 GB while it is made."""
CROWD = 1000
"""Atoms from which on it is counted how many are near each other: fewer make a short list wherever they are."""
MOST_IMAGES = 3_000_000
"""Images of the cell that are searched, which takes some tenths of a second."""
SLIM = 1e-6
"""Sine of the angle below which cell vectors count as parallel."""
GRID = 100_000
"""Boxes that vesin sorts atoms into, at most."""
Name = Callable[[], str] | None
"""Names the structure, if an error needs it."""


def check_finite(positions: np.ndarray, where: Name = None) -> None:
    """Refuse positions [n, 3] Å that are not finite.

    Raises:
        PaiNNFastError: naming the first such atom.
    """
    finite = np.isfinite(positions)
    if not finite.all():
        raise _of_atom("positions are not finite", positions, finite, "numbers in Å", where)


def check_far(positions: np.ndarray, where: Name = None) -> None:
    """Refuse positions [n, 3] Å that are absurdly far away.

    Raises:
        PaiNNFastError: naming the first such atom.
    """
    near = np.abs(positions) <= FARTHEST
    if not near.all():
        raise _of_atom("positions are absurdly large", positions, near, f"Å, at most {FARTHEST:g}", where)


def heights(box: np.ndarray) -> np.ndarray:
    """Of a cell [3, 3] with a volume over its three faces."""
    height: np.ndarray = 1.0 / np.sqrt(np.square(np.linalg.inv(box)).sum(axis=0))
    return height


def check_cell(cell: np.ndarray, pbc: np.ndarray, where: Name = None) -> None:
    """Refuse a cell [3, 3] Å whose vectors in periodic directions [3] do not span them.

    Raises:
        PaiNNFastError: for vectors that are not finite, absurdly long, zero, or parallel.
    """
    if cell.shape != (3, 3) or not np.isfinite(cell).all():
        raise _error("the cell is not finite" if cell.shape == (3, 3) else "not a cell", cell, where, "numbers [3, 3]")
    vectors = cell[np.asarray(pbc, dtype=bool)]
    if np.abs(vectors).max(initial=0.0) > FARTHEST:
        raise _error("the cell is absurdly large", cell, where, f"vectors of at most {FARTHEST:g} Å")
    length = np.sqrt(np.square(vectors).sum(axis=1))
    if not length.all():
        raise PaiNNFastError(
            "periodic without a cell vector",
            where=where() if where else None,
            got=f"pbc={np.asarray(pbc, dtype=bool).tolist()}, cell={cell.tolist()}",
            fix="set atoms.cell, or atoms.pbc = False for a molecule in vacuum",
        )
    unit = vectors / length[:, None]
    if len(unit) > 1 and np.linalg.det(unit @ unit.T) < SLIM**2:
        raise _error("the cell vectors are parallel", cell, where, "vectors that span a volume")


def check_cells(cells: np.ndarray, pbc: np.ndarray, where: Callable[[int], str]) -> None:
    """`check_cell` of many [M, 3, 3]; `where` names a structure by its index.

    Raises:
        PaiNNFastError: for the first cell that is refused.
    """
    if not pbc.any() and np.isfinite(cells).all():
        return
    vectors = np.where(pbc[:, :, None], cells, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.sqrt(np.square(vectors).sum(axis=2))
        unit = vectors / np.where(length > 0.0, length, 1.0)[:, :, None]
        angles = unit @ unit.swapaxes(1, 2) + np.eye(3) * ~pbc[:, :, None]
        valid = (length > 0.0) & (np.abs(vectors).max(axis=2, initial=0.0) <= FARTHEST) | ~pbc
        valid &= np.isfinite(cells).all(axis=2)
    angles[~valid.all(axis=1)] = np.eye(3)
    for k in np.flatnonzero(~valid.all(axis=1) | (np.linalg.det(angles) < SLIM**2)):
        check_cell(cells[k], pbc[k], partial(where, int(k)))


def check_size(box: np.ndarray, pbc: np.ndarray, positions: np.ndarray, cutoff: float, where: Name = None) -> None:
    """Refuse a list that would be too long, or too long to search for.

    Args:
        box: [3, 3] Å, a cell with a volume, whatever the directions.
        pbc: [3] periodic directions.
        positions: [n, 3] Å.
        cutoff: Å.

    Raises:
        PaiNNFastError: with the cell, the cut-off, and how many neighbours or images are expected.
    """
    height = heights(box) if pbc.any() else np.ptp(positions, axis=0) + 1.0
    images = math.prod(2 * math.ceil(cutoff / float(h)) + 1 for h in height[pbc])
    if images > MOST_IMAGES:
        raise _error(
            "the cell is too small or too oblique for this cut-off", box, where, f"at most {MOST_IMAGES:.0e}",
            f"{images:.1e} images within {cutoff:g} Å",
            "check the cell and its length unit (Å); reduce an oblique one with ase.build.niggli_reduce",
        )  # fmt: skip
    n = len(positions)
    neighbors = max(_by_volume(box, pbc, n, cutoff), _by_crowding(positions, cutoff) if n > CROWD else 0.0)
    if neighbors > MOST_NEIGHBORS or n * neighbors > MOST_EDGES:
        raise _error(
            "too many neighbours within the cut-off", box, where,
            f"at most {MOST_NEIGHBORS} an atom and {MOST_EDGES:.0e} in all",
            f"about {neighbors:.0f} an atom within {cutoff:g} Å, {n * neighbors:.1e} in all",
            "check the cell, the positions and their length unit (Å)",
        )  # fmt: skip
    grid = [max(1, int(h / cutoff)) for h in height]
    if math.prod(grid) > GRID:  # vesin takes fewer, in the same proportions
        last = (GRID * grid[2] ** 2 / (grid[0] * grid[1])) ** (1 / 3)
        if min(last * grid[k] / grid[2] for k in range(3)) < 2:
            raise _error(
                "too long and thin for a neighbour list", box, where, "a more even cell, or atoms nearer to each other",
                f"{' x '.join(f'{h:.3g}' for h in height)} Å with a cut-off of {cutoff:g} Å",
            )  # fmt: skip


def _by_volume(box: np.ndarray, pbc: np.ndarray, n: int, cutoff: float) -> float:
    """Neighbours of an atom, if atoms lie evenly in the volume, area or length that is repeated."""
    vectors = box[pbc]
    size = math.sqrt(abs(float(np.linalg.det(vectors @ vectors.T)))) if len(vectors) else math.inf
    ball = {0: 0.0, 1: 2.0, 2: math.pi, 3: 4.0 / 3.0 * math.pi}[len(vectors)] * cutoff ** len(vectors)
    return n * ball / size


def _by_crowding(positions: np.ndarray, cutoff: float) -> float:
    """Neighbours of an atom, by how many share a cube whose diagonal is the cut-off; a sphere holds 22 of these."""
    edge = cutoff / math.sqrt(3.0)
    place = np.floor((positions - positions.min(axis=0)) / edge).astype(np.int64)
    _, count = np.unique(place @ np.array([1, 1_000_003, 998_244_353 * 1_000_003]), return_counts=True)
    inside = float((count.astype(np.float64) * (count - 1)).sum()) / len(positions)
    return inside * 4.0 / 3.0 * math.pi * 3.0**1.5


def _of_atom(what: str, positions: np.ndarray, right: np.ndarray, expected: str, where: Name) -> PaiNNFastError:
    atom = int((~right).any(axis=1).argmax())
    place = f"{where()}, atom {atom}" if where else f"atom {atom}"
    return PaiNNFastError(what, where=place, got=positions[atom], expected=expected)


def _error(
    what: str, cell: np.ndarray, where: Name, expected: str, got: str | None = None, fix: str | None = None
) -> PaiNNFastError:
    numbers = f"cell {np.round(cell, 6).tolist()} Å"
    got = f"{got}, {numbers}" if got else numbers
    return PaiNNFastError(what, where=where() if where else None, got=got, expected=expected, fix=fix)
