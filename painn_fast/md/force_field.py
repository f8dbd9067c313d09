"""The protocol of force fields, and the check of what one returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from painn_fast.errors import PaiNNFastError

Evaluation = tuple[Tensor, Tensor, dict[str, Tensor]]
"""energy [B] eV, forces [B, N, 3] eV/Å, observed properties [B, ...]."""
Launches = Callable[[], list[tuple[Tensor, Tensor]]]
"""Gives energy [B] eV and forces [B, N, 3] eV/Å of each molecule."""
SPREAD = "forces_spread"
"""Observed by an ensemble at every evaluation: standard deviation of the force on each atom [B, N] eV/Å."""
PROPERTIES = {"dipole": ((3,), "e Å"), "polarizability": ((3, 3), "Å³")}
"""Shape of what `observe` gives of a copy, and its unit."""


class ForceField(Protocol):
    """Energies and forces of B copies of one structure; inherit for the defaults of all methods but `__call__`.

    Example:
        >>> import torch
        >>> from ase.build import molecule
        >>> from painn_fast.md import ForceField, MDSettings, Trajectory, run
        >>> class Spring(ForceField):
        ...     '''A bond of 0.75 Å between two atoms.'''
        ...     def __call__(self, positions):  # [B, 2, 3] Å
        ...         r = positions[:, 1] - positions[:, 0]
        ...         length = r.norm(dim=1, keepdim=True)
        ...         push = 30.0 * (length - 0.75) * r / length
        ...         return 15.0 * (length[:, 0] - 0.75) ** 2, torch.stack([push, -push], dim=1)  # eV, eV/Å
        >>> path = run(MDSettings(duration="5 fs"), force_field=Spring(), atoms=molecule("H2"))
        >>> bool(Trajectory(path).energies["conserved"].std() < 1e-5)
        True
    """

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energy [B] eV and forces [B, N, 3] eV/Å at positions [B, N, 3] Å, all float64."""
        ...

    def observe(self, positions: Tensor, properties: Sequence[str]) -> dict[str, Tensor]:
        """Properties of each copy: dipole [B, 3] e Å, polarizability [B, 3, 3] Å³, float64."""
        raise PaiNNFastError(
            f"the force field gives no {', '.join(properties)}", where=type(self).__name__,
            expected="a method observe(positions, properties) that returns a dict of them",
            fix=f"record none: without {', '.join(f'{name}_every' for name in properties)}",
        )  # fmt: skip

    def evaluate(self, positions: Tensor, properties: Sequence[str] = ()) -> Evaluation:
        """Energy, forces and properties of the same positions, in one pass where that saves work."""
        energy, forces = _pair(self, self(positions), positions)
        return energy, forces, self.observe(positions, properties) if properties else {}

    def together(self, positions: Sequence[Tensor], properties: Sequence[str] = ()) -> list[Evaluation]:
        """The same for copies of each molecule of a mixture, which a force field for mixtures knows by their order."""
        return [self.evaluate(x, properties) for x in positions]

    def launches(self, positions: Sequence[Tensor]) -> Launches | None:
        """What evaluates copies of each molecule at the positions that lie in these tensors when it is called.

        It must only launch work on a GPU, as a CUDA graph needs; None where that cannot be.
        """
        return None

    def state(self) -> dict[str, Tensor]:
        """What decides the last bit of the results besides positions; goes into restart files."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""


def checked(
    force_field: ForceField, evaluations: Any, positions: Sequence[Tensor], properties: Sequence[str]
) -> list[Evaluation]:
    """What `ForceField.together` returned for these positions.

    Raises:
        PaiNNFastError: unless it is energy, forces and properties of the right shapes.
    """
    if not isinstance(evaluations, list) or len(evaluations) != len(positions):
        raise _wrong(force_field, "evaluations", evaluations, f"a list of {len(positions)}, one a molecule")
    for evaluation, x in zip(evaluations, positions, strict=True):
        if not isinstance(evaluation, tuple) or len(evaluation) != 3:
            raise _wrong(force_field, "an evaluation", evaluation, "a tuple of energy, forces and a dict of properties")
        energy, forces, observed = evaluation
        _check(force_field, "energy", energy, x.shape[:1], "eV")
        _check(force_field, "forces", forces, x.shape, "eV/Å")
        if not isinstance(observed, dict):
            raise _wrong(force_field, "properties", observed, f"a dict of {', '.join(properties) or 'none'}")
        for name in properties:
            shape, unit = PROPERTIES[name]
            _check(force_field, name, observed.get(name), (len(x), *shape), unit)
    return evaluations


def _pair(force_field: ForceField, returned: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The energy and the forces that a force field returned, or PaiNNFastError."""
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        B, N = positions.shape[:2]
        raise _wrong(force_field, "energy and forces", returned, f"energy [{B}] eV and forces [{B}, {N}, 3] eV/Å")
    return returned[0], returned[1]


def _check(force_field: ForceField, name: str, value: Any, shape: Sequence[int], unit: str) -> None:
    if not isinstance(value, Tensor) or value.shape != shape:
        raise _wrong(force_field, name, value, f"a tensor {list(shape)} in {unit}")


def _wrong(force_field: ForceField, name: str, value: Any, expected: str) -> PaiNNFastError:
    return PaiNNFastError(
        f"the force field returned no valid {name}", where=type(force_field).__name__, got=_kind(value),
        expected=expected,
    )  # fmt: skip


def _kind(value: Any) -> str:
    """Type and shape of a value, of a tuple or list those of its members."""
    if value is None:
        return "None"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {', '.join(_kind(one) for one in value) or 'nothing'}"
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"{type(value).__name__} {list(shape)}"
