"""An engine against the reference, on the first real batch; and its results, which have to be numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.graph import AtomicBatch
from painn_fast.graph.batch import CLOSEST
from painn_fast.graph.cells import FARTHEST
from painn_fast.kernels.edges.reference import edge_forces
from painn_fast.nn import Potential

CHECKED_EDGES = 500_000
"""The first batch of at most so many edges is compared: the reference stores some 10 kB for each of them."""
AGREEMENT = 1e-4
"""Relative to the largest derivative of the energy by an edge: far above rounding in float32, far below a mistake."""
OF_ENERGIES = 0.1
"""What is allowed for atomic energies, in units of that for forces: they are no derivatives."""
RATTLE = 0.1
"""Å that atoms are moved by for the comparison: forces and vectors that cancel by symmetry would be rounding alone."""
NEAR = 0.6
"""Of the cut-off: molecules whose atoms are all farther apart are contracted, since the filter vanishes there."""
ROUNDING = 8.0
"""Times the rounding of the reference itself that an engine may be off by, where a model amplifies it."""
EXACT = 1e-9
"""In place of `AGREEMENT` where an engine has no error but the rounding of float64."""
ROTATIONS = 2
"""Rotated copies of the batch by which that rounding is measured."""


class _Values(NamedTuple):
    """Of the reference: atomic energies [N] eV, forces [N, 3] eV/Å, and derivatives of the energy by edges [E, 3]."""

    energies: Tensor
    forces: Tensor
    pull: Tensor


def check_engine(
    evaluate: Callable[[AtomicBatch], Mapping[str, Tensor]], potential: Potential, batch: AtomicBatch,
    agreement: float = AGREEMENT, rounding: float = 1.0,
) -> bool:  # fmt: skip
    """Refuse to go on if energies and forces of an engine are not those of the reference.

    They are compared molecule by molecule at positions a little off those of `batch`, where nothing cancels by
    symmetry, and not in the sum over edges but relative to its terms.

    Args:
        evaluate: "energies" [N] eV and "forces" [N, 3] eV/Å of a batch by the engine.
        agreement: allowed for forces, relative to the largest derivative of the energy by an edge of the molecule, and
            a tenth of it for atomic energies, relative to the largest; at least that times 1 eV/Å and 1 eV.
        rounding: of the engine's arithmetic in units of that of the reference.

    Returns:
        Whether there was something to compare: not where positions are not finite, or two atoms coincide.

    Raises:
        PaiNNFastError: if they disagree, or if one is finite where the other is not.
    """
    with torch.no_grad():
        generic = _generic(batch, potential.cutoff)
    if generic is None:
        return False
    got = {name: value.to(batch.positions.device).double() for name, value in evaluate(generic).items()}
    expected = _reference(potential, generic)
    noise: _Values | None = None
    compared = False
    for name, unit, share in (("energies", "eV", OF_ENERGIES), ("forces", "eV/Å", 1.0)):
        right = getattr(expected, name)
        _check_pattern(potential, generic, name, got[name], right)
        error = _per_molecule(generic, got[name] - right)
        allowed = share * agreement * _scale(potential, generic, expected, name).clamp(min=1.0)
        if bool((error > allowed).any()):
            noise = noise or _noise(potential, generic, expected)
            allowed = allowed + ROUNDING * rounding * _per_molecule(generic, getattr(noise, name))
        _require_within(potential, name, error, allowed, unit)
        compared |= bool(torch.isfinite(right).any())
    return compared


@torch.no_grad()
def check_features(
    evaluate: Callable[[AtomicBatch], tuple[Tensor, Tensor]], potential: Potential, batch: AtomicBatch, agreement: float
) -> bool:
    """As `check_engine` for a model without an energy, whose features are compared.

    Args:
        evaluate: s [N, F] and v [N, 3, F] of a batch by the engine.
        agreement: allowed, relative to the largest feature of the molecule.
    """
    generic = _generic(batch, potential.cutoff)
    if generic is None:
        return False
    got, expected = evaluate(generic), _features(potential, generic)
    scale = torch.maximum(*(_per_molecule(generic, right) for right in expected))
    for name, ours, right in zip(("scalar features", "vector features"), got, expected, strict=True):
        _check_pattern(potential, generic, name, ours, right)
        error, allowed = _per_molecule(generic, ours.double() - right), agreement * scale
        if bool((error > allowed).any()):
            for turn in _rotations(batch.positions):
                s, v = _features(potential, _rotated(generic, turn))
                other = s if right.ndim == 2 else torch.einsum("ij,njf->nif", turn, v)
                allowed = torch.maximum(allowed, ROUNDING * _per_molecule(generic, other - right))
        _require_within(potential, name, error, allowed)
    return bool(torch.isfinite(expected[0]).any())


def _features(potential: Potential, batch: AtomicBatch) -> tuple[Tensor, Tensor]:
    length = units.factor("length", potential.config.length_unit)
    s, v = potential.representation(batch, (batch.edge_vectors() / length).to(potential.dtype))
    return s.double(), v.double()


def _require_within(potential: Potential, name: str, error: Tensor, allowed: Tensor, unit: str = "") -> None:
    """Refuse errors [M] of molecules that are larger than allowed [M]."""
    if bool((error > allowed).any()):
        worst = int((error / allowed).argmax())
        raise PaiNNFastError(
            "the fast engine disagrees with the reference",
            where=f"model '{potential.config.name}'",
            got=f"{name} off by {float(error[worst]):.2e} {unit}".rstrip(),
            expected=f"at most {float(allowed[worst]):.0e}",
            fix='use backend="reference", and please report it',
        )


def largest_pull(potential: Potential, batch: AtomicBatch) -> float:
    """Largest derivative of the energy by an edge, eV/Å: the measure of what forces may be off by."""
    return float(_reference(potential, batch).pull.abs().max())


def require_near(batch: AtomicBatch, positions: Tensor) -> None:
    """Refuse positions [N, 3] Å that are absurdly far away; those that are not finite are left to `require_finite`.

    Raises:
        PaiNNFastError: naming the molecule and the atom.
    """
    if not len(positions) or float(positions.detach().abs().max()) <= FARTHEST:  # false for NaN
        return
    far = torch.isfinite(positions) & (positions.abs() > FARTHEST)
    if bool(far.any()):
        atom = int(far.any(1).int().argmax())
        batch = batch.to("cpu")
        raise PaiNNFastError(
            "positions are absurdly large", where=f"molecule {int(batch.molecule[atom])}, {_atom(batch, atom)}",
            got=str(positions[atom].tolist()), expected=f"Å, at most {FARTHEST:g}",
        )  # fmt: skip


def require_finite(results: Mapping[str, Tensor], batch: AtomicBatch, positions: Tensor) -> None:
    """Refuse results that are not finite, or whose positions are not.

    Args:
        results: tensors over atoms, molecules or both.
        batch: the graph.
        positions: [N, 3] Å where they were evaluated.

    Raises:
        PaiNNFastError: naming the molecule, and if they are the cause the atoms.
    """
    bad = [name for name, value in results.items() if not bool(torch.isfinite(value).all())]
    if not bad and bool(torch.isfinite(positions).all()):
        return
    batch, positions = batch.to("cpu"), positions.cpu()
    off = ~torch.isfinite(positions).all(dim=1)
    if bool(off.any()):
        atom = int(off.int().argmax())
        where = f"molecule {int(batch.molecule[atom])}, {_atom(batch, atom)}"
        got = str(positions[atom].tolist())
        raise PaiNNFastError("positions are not finite", where=where, got=got, expected="numbers in Å")
    r = positions[batch.sender] - positions[batch.receiver] + batch.shift
    close = r.square().sum(1) < CLOSEST**2
    if bool(close.any()):
        edge = int(close.int().argmax())
        i, j = int(batch.receiver[edge]), int(batch.sender[edge])
        raise PaiNNFastError(
            "atoms on top of each other",
            where=f"molecule {int(batch.molecule[i])}, {_atom(batch, i)} and {_atom(batch, j)}",
            got=f"a distance of {float(r[edge].square().sum().sqrt()):.3g} Å",
            expected=f"at least {CLOSEST} Å",
        )
    raise PaiNNFastError(
        "the model gives no finite numbers",
        where=f"molecule {_first_bad(batch, results[bad[0]].cpu())}",
        got=", ".join(bad),
        fix="check the structure and the weights of the model",
    )


def require_call(potential: Potential, batch: AtomicBatch, positions: Any, properties: Sequence[str]) -> None:
    """Refuse positions that are not those of the batch, and properties that no engine or the model does not have.

    Raises:
        PaiNNFastError: saying what was given.
    """
    shape = (batch.n_total, 3)
    if not isinstance(positions, Tensor) or positions.shape != shape or not positions.is_floating_point():
        tensor = isinstance(positions, Tensor)
        got = f"{list(positions.shape)} {positions.dtype}" if tensor else type(positions).__name__
        raise PaiNNFastError("positions of another batch", got=got, expected=f"a tensor {list(shape)} float64, Å")
    if isinstance(properties, str) or not potential.known.issuperset(properties):
        potential.check(batch, [properties] if isinstance(properties, str) else properties)
        raise PaiNNFastError("one name where a list is expected", got=repr(properties), fix=f"write [{properties!r}]")
    if "stress" in properties:
        potential.check(batch, properties)


def require_graph(potential: Potential, batch: AtomicBatch) -> None:
    """Refuse a batch whose arrays do not belong together, or with elements that the model does not know.

    Raises:
        PaiNNFastError: saying what does not fit.
    """
    n, e = len(batch.numbers), len(batch.sender)
    sizes = {
        "positions": (n, 3), "molecule": (n,), "receiver": (e,), "shift": (e, 3), "row_ptr": (n + 1,),
        "cell": (batch.n_molecules, 3, 3), "pbc": (batch.n_molecules, 3),
    }  # fmt: skip
    for name, size in sizes.items():
        if tuple(getattr(batch, name).shape) != size:
            got = f"{name} {list(getattr(batch, name).shape)}"
            raise PaiNNFastError("a batch whose arrays do not fit", got=got, expected=f"{list(size)}")
    for name, found, right in (("atoms", int(batch.n_atoms.sum()), n), ("edges", int(batch.row_ptr[-1]), e)):
        if found != right:
            raise PaiNNFastError("a batch whose arrays do not fit", got=f"{found} {name}", expected=f"{right}")
    for name, atoms in (("receiver", batch.receiver), ("sender", batch.sender)):
        if e and not 0 <= int(atoms.min()) <= int(atoms.max()) < n:
            limits = f"{name} from {int(atoms.min())} to {int(atoms.max())}"
            raise PaiNNFastError("a batch whose arrays do not fit", got=limits, expected=f"atoms 0 to {n - 1}")
    potential.require_elements(batch.elements)


def _generic(batch: AtomicBatch, cutoff: float) -> AtomicBatch | None:
    """The same edges at positions without symmetry, and near enough; None where there are no such positions."""
    draw = torch.rand(batch.positions.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = batch.positions.double() + (RATTLE * (2.0 * draw - 1.0)).to(batch.positions.device)
    r = moved[batch.sender] - moved[batch.receiver] + batch.shift
    d = torch.linalg.vector_norm(r, dim=1)
    if not bool(torch.isfinite(moved).all()) or bool((d < CLOSEST).any()) or not bool(torch.isfinite(d).all()):
        return None
    nearest = torch.full((batch.n_molecules,), torch.inf, dtype=torch.float64, device=d.device)
    nearest = nearest.scatter_reduce(0, batch.molecule[batch.receiver], d, "amin")
    factor = torch.where(nearest < torch.inf, (NEAR * cutoff / nearest).clamp(max=1.0), 1.0)
    shift = batch.shift * factor[batch.molecule[batch.receiver]][:, None]
    made = dataclasses.replace(batch, positions=moved * factor[batch.molecule][:, None], shift=shift)
    return made.knowing(batch.mirror)


def _reference(potential: Potential, batch: AtomicBatch) -> _Values:
    shift = batch.edge_vectors().detach().requires_grad_()
    bare = dataclasses.replace(batch, positions=torch.zeros_like(batch.positions), shift=shift)
    with torch.enable_grad(), potential.reference():
        energies = potential(bare, ("energies",))["energies"]
        (pull,) = torch.autograd.grad(energies.sum(), shift, allow_unused=True)
    pull = torch.zeros_like(shift) if pull is None else pull
    forces, _ = edge_forces(pull, pull, batch.receiver, batch.sender, batch.n_total)
    return _Values(energies.detach().double(), forces, pull)


def _noise(potential: Potential, batch: AtomicBatch, expected: _Values) -> _Values:
    """How far the reference is from itself where the batch is rotated, at most: nothing but rounding."""
    energies, forces = torch.zeros_like(expected.energies), torch.zeros_like(expected.forces)
    for turn in _rotations(batch.positions):
        other = _reference(potential, _rotated(batch, turn))
        energies = torch.maximum(energies, (other.energies - expected.energies).abs())
        forces = torch.maximum(forces, (other.forces @ turn.T - expected.forces).abs())
    return _Values(energies, forces, expected.pull)


def _rotated(batch: AtomicBatch, turn: Tensor) -> AtomicBatch:
    return dataclasses.replace(batch, positions=batch.positions @ turn, shift=batch.shift @ turn)


def _rotations(like: Tensor) -> Iterator[Tensor]:
    for seed in range(ROTATIONS):
        draw = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        yield torch.linalg.qr(draw).Q.to(like)


def _scale(potential: Potential, batch: AtomicBatch, expected: _Values, name: str) -> Tensor:
    """Size [M] of what is summed: derivatives by edges, or what the network adds to an energy."""
    if name == "forces":
        return _per_molecule(batch, expected.pull, batch.receiver)
    head: Any = potential.heads["energy"]
    offset = (head.atomic_reference[batch.numbers] + head.mean) * units.factor("energy", potential.config.energy_unit)
    return _per_molecule(batch, expected.energies - offset)


def _per_molecule(batch: AtomicBatch, values: Tensor, atom: Tensor | None = None) -> Tensor:
    """Largest finite magnitude [M] of values [N, ...] of atoms, or of those of `atom`."""
    size = values.detach().double().abs().nan_to_num(0.0, 0.0, 0.0)
    size = size.reshape(len(values), math.prod(values.shape[1:])).amax(1)  # -1 is ambiguous where there is no edge
    molecule = batch.molecule if atom is None else batch.molecule[atom]
    return size.new_zeros(batch.n_molecules).scatter_reduce(0, molecule, size, "amax")


def _check_pattern(potential: Potential, batch: AtomicBatch, name: str, got: Tensor, expected: Tensor) -> None:
    """Finite where the reference is; the reverse a molecule: pairs beyond the cut-off spread NaN in the reference."""
    ours, theirs = (torch.isfinite(values).reshape(len(values), -1).all(1) for values in (got, expected))
    lost = int((theirs & ~ours).sum())
    ours, theirs = (_per_molecule(batch, (~finite).double()) == 0 for finite in (ours, theirs))
    made_up = int((ours & ~theirs).sum())
    if lost or made_up:
        raise PaiNNFastError(
            "the fast engine disagrees with the reference",
            where=f"model '{potential.config.name}'",
            got=f"{name} of {lost} atoms are not finite" if lost else f"finite {name} in {made_up} molecules",
            expected="numbers, as the reference gives" if lost else "none, as the reference gives",
            fix='use backend="reference", and please report it',
        )


def _atom(batch: AtomicBatch, atom: int) -> str:
    """Its number in its molecule."""
    return f"atom {atom - int(batch.n_atoms[: int(batch.molecule[atom])].sum())}"


def _first_bad(batch: AtomicBatch, value: Tensor) -> int:
    row = int((~torch.isfinite(value).reshape(len(value), -1).all(1)).int().argmax())
    return row if len(value) == batch.n_molecules else int(batch.molecule[row])
