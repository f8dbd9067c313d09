"""A batch of molecules: atoms one after another, edges sorted by receiver (CSR)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Self

import ase
import numpy as np
import torch
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.cells import FARTHEST, check_cells, check_far, check_finite
from painn_fast.graph.charge import charge_and_multiplicity
from painn_fast.graph.neighbors import Edges, joined, molecule_lists, neighbor_list

ALL_PAIRS_UP_TO = 32
"""Largest molecule whose list is every pair by default: it need not be rebuilt when atoms move."""
EACH_WITH_EACH_UP_TO = 1000
"""Largest molecule whose pairs are found by comparing all atoms with each other; a cell list costs less beyond."""
CLOSEST = 0.1
"""Å; atoms nearer than this are taken for a mistake in the input."""

OF_MOLECULES = ("cell", "pbc", "total_charge", "spin_multiplicity")


@dataclass(frozen=True)
class AtomicBatch:
    """M molecules of N atoms in all with E directed edges; an edge points from `sender` j to `receiver` i.

    Edges are complete, symmetric and sorted by receiver: those of atom i are `row_ptr[i]:row_ptr[i + 1]`.
    The vector of an edge is `positions[sender] - positions[receiver] + shift`.

    Example:
        >>> from ase.build import molecule
        >>> from painn_fast.graph import batch_atoms
        >>> batch = batch_atoms([molecule("H2O"), molecule("CH4")], cutoff=5.0)
        >>> batch.n_molecules, batch.n_total, len(batch.sender)
        (2, 8, 26)
        >>> batch.row_ptr.tolist()  # edges of each atom
        [0, 2, 4, 6, 10, 14, 18, 22, 26]
    """

    numbers: Tensor  # [N] int64
    positions: Tensor  # [N, 3] float64, Å
    molecule: Tensor  # [N] int64, ascending
    n_atoms: Tensor  # [M] int64
    receiver: Tensor  # [E] int64, ascending
    sender: Tensor  # [E] int64
    shift: Tensor  # [E, 3] float64, Å
    row_ptr: Tensor  # [N + 1] int64
    cell: Tensor  # [M, 3, 3] float64, Å, rows are the vectors
    pbc: Tensor  # [M, 3] bool
    total_charge: Tensor  # [M] float64, e
    spin_multiplicity: Tensor  # [M] float64

    @classmethod
    def of(cls, n_atoms: Tensor, edges: Edges, **given: Tensor) -> AtomicBatch:
        """The batch of molecules of `n_atoms` [M] atoms with these edges; `given`: what these do not determine."""
        sizes, receiver = n_atoms.cpu().numpy(), edges.receiver.cpu().numpy()  # NumPy is faster for small ones
        molecule, row_ptr = (
            np.repeat(np.arange(len(sizes)), sizes),
            np.searchsorted(receiver, np.arange(sizes.sum() + 1)),
        )
        return cls(
            n_atoms=n_atoms,
            molecule=torch.from_numpy(molecule).to(n_atoms.device),
            receiver=edges.receiver,
            sender=edges.sender,
            shift=edges.shift,
            row_ptr=torch.from_numpy(row_ptr).to(n_atoms.device),
            **given,
        ).knowing(edges.mirror)

    @property
    def n_total(self) -> int:
        """N, atoms in the whole batch."""
        return self.numbers.shape[0]

    @property
    def n_molecules(self) -> int:
        """M."""
        return self.n_atoms.shape[0]

    def to(self, device: torch.device | str) -> AtomicBatch:
        """The same batch on another device."""
        if torch.device(device) == self.positions.device:
            return self
        moved = AtomicBatch(**{f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)})
        for name in ("elements", "periodic"):
            if name in self.__dict__ or self.positions.device.type == "cpu":
                moved.__dict__[name] = getattr(self, name)
        return moved.knowing(self.mirror.to(device)) if "mirror" in self.__dict__ else moved

    def with_positions(self, positions: Tensor) -> AtomicBatch:
        """The same graph with other positions [N, 3] Å; the caller vouches for the neighbour list."""
        moved = object.__new__(type(self))  # a third of the time of dataclasses.replace
        moved.__dict__.update(self.__dict__, positions=positions)
        return moved

    def knowing(self, mirror: Tensor) -> Self:
        """This batch with its `mirror` [E], which then need not be computed."""
        self.__dict__["mirror"] = mirror
        return self

    @cached_property
    def elements(self) -> frozenset[int]:
        """Atomic numbers in the batch. Read once: on a GPU that waits for all that was launched before."""
        return frozenset(self.numbers.tolist())

    @cached_property
    def periodic(self) -> np.ndarray:
        """`pbc` [M, 3] in main memory, read once."""
        return self.pbc.cpu().numpy()

    @cached_property
    def mirror(self) -> Tensor:
        """Index [E] of the edge that points the other way; it exists because the list is symmetric."""
        i, j, shift = self.receiver.cpu().numpy(), self.sender.cpu().numpy(), self.shift.cpu().numpy()
        order = np.lexsort((shift[:, 2], shift[:, 1], shift[:, 0], j, i))
        opposite = np.lexsort((-shift[:, 2], -shift[:, 1], -shift[:, 0], i, j))
        mirror = np.empty_like(order)
        mirror[order] = opposite
        return torch.from_numpy(mirror).to(self.receiver.device)

    def edge_vectors(self) -> Tensor:
        """r_ij = R_j - R_i + shift [E, 3] Å."""
        return self.positions[self.sender] - self.positions[self.receiver] + self.shift

    def sum_over_atoms(self, values: Tensor) -> Tensor:
        """Sum of atomic values [N, ...] over each molecule [M, ...], in float64."""
        total = torch.zeros(self.n_molecules, *values.shape[1:], dtype=torch.float64, device=values.device)
        return total.index_add(0, self.molecule, values.double())


def batch_arrays(
    numbers: np.ndarray | Tensor, positions: np.ndarray | Tensor, *, total_charge: float = 0.0, spin: float = 1.0
) -> AtomicBatch:
    """Many copies of one molecule in vacuum, every pair an edge.

    Args:
        numbers: atomic numbers [n].
        positions: [M, n, 3] Å.
        total_charge: e, of each copy.
        spin: spin multiplicity 2S + 1 of each copy.

    Returns:
        The batch, M molecules of n atoms with n (n - 1) edges each.

    Raises:
        PaiNNFastError: for arrays of other shapes or types.

    Example:
        >>> import numpy as np
        >>> from ase.build import molecule
        >>> from painn_fast.graph import batch_arrays
        >>> water = molecule("H2O")
        >>> batch = batch_arrays(water.numbers, np.stack([water.positions] * 5))
        >>> batch.n_molecules, len(batch.sender)
        (5, 30)
    """
    number, place = _number_array(numbers), _number_array(positions).double()
    if place.ndim != 3 or number.shape != place.shape[1:2] or place.shape[2] != 3 or number.is_floating_point():
        raise PaiNNFastError(
            "not a molecule and positions of its copies",
            got=f"numbers {list(number.shape)} {number.dtype}, positions {list(place.shape)}",
            expected="whole numbers [n], positions [M, n, 3]",
        )
    number = number.long()
    copies, n = place.shape[:2]
    sizes = np.full(copies, n)
    return AtomicBatch.of(
        torch.from_numpy(sizes),
        molecule_lists(place.detach().reshape(-1, 3).numpy(), sizes, np.inf),
        numbers=number.repeat(copies),
        positions=place.reshape(-1, 3),
        cell=torch.zeros(copies, 3, 3, dtype=torch.float64),
        pbc=torch.zeros(copies, 3, dtype=torch.bool),
        total_charge=torch.full((copies,), float(total_charge), dtype=torch.float64),
        spin_multiplicity=torch.full((copies,), float(spin), dtype=torch.float64),
    )


def batch_atoms(molecules: Sequence[ase.Atoms], cutoff: float, *, neighbors: str = "auto") -> AtomicBatch:
    """Batch `ase.Atoms` (or subclasses) with their neighbour lists.

    Args:
        molecules: structures; total charge (e) and spin multiplicity (2S + 1) are read from `info`, by the names in
            `painn_fast.graph.charge`.
        cutoff: Å.
        neighbors: "all_pairs" for molecules in vacuum, "list" for pairs within the cut-off, "auto" to choose:
            every pair up to 32 atoms, a list for larger or periodic structures.

    Returns:
        The batch, structures in the order of `molecules`, on the CPU.

    Raises:
        PaiNNFastError: for what is no list of structures, an empty molecule, positions that are not finite or absurdly
            large, atoms on top of each other, a periodic direction without a cell vector, parallel cell vectors, more
            neighbours than there can be, a charge or a spin that cannot be read.

    Example:
        >>> from ase.build import bulk, molecule
        >>> from painn_fast.graph import batch_atoms
        >>> batch = batch_atoms([molecule("H2O"), bulk("Cu")], cutoff=3.0)
        >>> batch.n_atoms.tolist(), (batch.row_ptr[4] - batch.row_ptr[3]).item()  # copper has 12 neighbours
        ([3, 1], 12)
    """
    if not len(molecules):
        raise PaiNNFastError("nothing to evaluate", got="an empty list", expected="at least one ase.Atoms")
    if neighbors not in ("auto", "all_pairs", "list"):
        raise PaiNNFastError("unknown kind of neighbour list", got=repr(neighbors), expected="auto | all_pairs | list")
    n_atoms, numbers, positions, cell, pbc = _arrays(molecules)
    ends = np.append(0, np.cumsum(n_atoms))
    _check(molecules, n_atoms, positions, cell, pbc)
    parts, sizes = [], []
    for first, last in _alike(n_atoms, pbc, neighbors):
        place = positions[ends[first] : ends[last]]
        if pbc[first].any() or n_atoms[first] > EACH_WITH_EACH_UP_TO:
            part = neighbor_list(place, cell[first], pbc[first], cutoff, partial(_name, molecules, first))
        else:
            every = neighbors == "all_pairs" or (neighbors == "auto" and n_atoms[first] <= ALL_PAIRS_UP_TO)
            part = molecule_lists(place, n_atoms[first:last], np.inf if every else cutoff)
        parts.append(part)
        sizes.append(len(place))
    edges = joined(parts, sizes)
    charge, multiplicity = _electronic(molecules)
    _check_overlap(molecules, ends, positions, edges)
    arrays = {"numbers": numbers, "positions": positions, "cell": cell, "pbc": pbc}
    given = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return AtomicBatch.of(
        torch.from_numpy(n_atoms), edges, **given, total_charge=charge, spin_multiplicity=multiplicity
    )


def _electronic(molecules: Sequence[ase.Atoms]) -> tuple[Tensor, Tensor]:
    """Total charges [M] e and spin multiplicities [M]."""
    if not any(atoms.info for atoms in molecules):
        m = len(molecules)
        return torch.from_numpy(np.zeros(m)), torch.from_numpy(np.ones(m))
    both = [
        charge_and_multiplicity(atoms.info, where=_name(molecules, k)) if atoms.info else (0.0, 1.0)
        for k, atoms in enumerate(molecules)
    ]
    charge, multiplicity = torch.tensor(both, dtype=torch.float64).T.contiguous()
    return charge, multiplicity


def concatenate(batches: Sequence[AtomicBatch]) -> AtomicBatch:
    """One batch of all molecules of several batches.

    Args:
        batches: one or more, on one device.

    Returns:
        Their molecules in order, with the edges that they have.

    Example:
        >>> from ase.build import molecule
        >>> from painn_fast.graph import batch_atoms, concatenate
        >>> parts = [batch_atoms([molecule(name)], cutoff=5.0) for name in ("H2O", "CH4")]
        >>> concatenate(parts).numbers.tolist()
        [8, 1, 1, 6, 1, 1, 1, 1]
    """
    parts = [Edges(batch.receiver, batch.sender, batch.shift, batch.mirror) for batch in batches]
    whole = {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name in ("n_atoms", "numbers", "positions", *OF_MOLECULES)
    }
    return AtomicBatch.of(edges=joined(parts, [batch.n_total for batch in batches]), **whole)


def _alike(n_atoms: np.ndarray, pbc: np.ndarray, neighbors: str) -> Iterator[tuple[int, int]]:
    """First and last + 1 of runs of molecules whose lists are made together."""
    alone = pbc.any(1) | (n_atoms > EACH_WITH_EACH_UP_TO)
    kind = np.where(alone, np.arange(2, len(alone) + 2), (neighbors == "auto") & (n_atoms <= ALL_PAIRS_UP_TO))
    ends = (np.flatnonzero(kind[1:] != kind[:-1]) + 1).tolist()
    return zip([0, *ends], [*ends, len(kind)], strict=True)


def _number_array(values: np.ndarray | Tensor) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise PaiNNFastError("not an array of numbers", got=type(values).__name__, expected="numbers") from None


def require_structures(molecules: Sequence[object]) -> None:
    """Raise PaiNNFastError for the first of them that is not `ase.Atoms`."""
    for k, atoms in enumerate(molecules):
        if not isinstance(atoms, ase.Atoms):
            got = type(atoms).__name__
            raise PaiNNFastError("not a structure", where=f"structure {k}", got=got, expected="ase.Atoms")


def _arrays(molecules: Sequence[ase.Atoms]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of atoms [M], atomic numbers [N], positions [N, 3], cells [M, 3, 3] and periodic directions [M, 3]."""
    require_structures(molecules)
    try:  # numbers of another kind are not converted
        arrays = (
            np.array([len(atoms) for atoms in molecules]),
            np.concatenate([atoms.numbers for atoms in molecules], dtype=np.int64),
            np.concatenate([atoms.positions for atoms in molecules], dtype=np.float64),
            np.array([atoms.cell.array for atoms in molecules], dtype=np.float64),
            np.array([atoms.pbc for atoms in molecules], dtype=bool),
        )
        shapes = [array.shape for array in arrays]
        m, n = len(molecules), len(arrays[1])
        if shapes[2:] == [(n, 3), (m, 3, 3), (m, 3)] and arrays[0].sum() == n:
            return arrays
    except (TypeError, ValueError, AttributeError, KeyError):
        pass
    for k, atoms in enumerate(molecules):
        if len(molecules) > 1:
            try:
                _arrays([atoms])
            except PaiNNFastError as error:
                raise error.replaced(where=f"structure {k}") from None
    kinds = {name: f"{getattr(a, 'dtype', '')}{list(np.shape(a))}" for name, a in molecules[0].arrays.items()}
    raise PaiNNFastError(
        "arrays of a structure that are not what they should be",
        where="structure 0",
        got=", ".join(f"{name} {kinds.get(name)}" for name in ("numbers", "positions")),
        expected="whole numbers [n], real positions [n, 3], cell [3, 3]",
    )


def _check(
    molecules: Sequence[ase.Atoms], n_atoms: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
) -> None:
    if not n_atoms.all():
        where = _name(molecules, int(n_atoms.argmin()))
        raise PaiNNFastError("a molecule without atoms", where=where, expected="at least one atom")
    near = np.abs(positions) <= FARTHEST  # NaN is not
    if not near.all():
        atom = int((~near).any(axis=1).argmax())
        index = int(np.searchsorted(np.cumsum(n_atoms), atom, side="right"))
        own = positions[int(n_atoms[:index].sum()) :][: n_atoms[index]]
        check_finite(own, lambda: _name(molecules, index))
        check_far(own, lambda: _name(molecules, index))
    check_cells(cell, pbc, lambda index: _name(molecules, index))


def _check_overlap(molecules: Sequence[ase.Atoms], ends: np.ndarray, positions: np.ndarray, edges: Edges) -> None:
    receiver, sender, shift = (tensor.numpy() for tensor in edges[:3])
    r = positions.take(sender, axis=0)
    r -= positions.take(receiver, axis=0)
    r += shift
    square = np.einsum("ec,ec->e", r, r)
    if square.min(initial=np.inf) < CLOSEST**2:
        edge = int(square.argmin())
        index = int(np.searchsorted(ends, receiver[edge], side="right")) - 1
        i, j = receiver[edge] - ends[index], sender[edge] - ends[index]
        raise PaiNNFastError(
            "atoms on top of each other",
            where=f"{_name(molecules, index)}, atoms {i} and {j}",
            got=f"a distance of {square[edge] ** 0.5:.3g} Å",
            expected=f"at least {CLOSEST} Å",
            fix="check the structure and its length unit (Å)",
        )


def _name(molecules: Sequence[ase.Atoms], index: int) -> str:
    atoms = molecules[index]
    try:
        formula = atoms.get_chemical_formula() if len(atoms) else "empty"
    except (IndexError, KeyError):  # no elements
        formula = f"{len(atoms)} atoms"
    return f"structure {index} ({formula})"
