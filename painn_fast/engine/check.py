"""An engine against the reference, on the first real positions."""

from __future__ import annotations

import torch
from torch import Tensor

from painn_fast.errors import PaiNNFastError
from painn_fast.graph import AtomicBatch
from painn_fast.nn import Potential

CHECKED_EDGES = 500_000
"""The first batch of at most so many edges is compared: the reference stores some 10 kB for each of them."""


def check_forces(potential: Potential, batch: AtomicBatch, got: Tensor, agreement: float) -> None:
    """Refuse to go on if forces [N, 3] eV/Å of an engine are not those of the reference.

    Args:
        agreement: allowed, relative to the largest force.

    Raises:
        PaiNNFastError: if they disagree. NaN, which both then give, is for the guards of the caller.
    """
    with torch.no_grad(), potential.reference():
        expected = potential(batch, ("forces",))["forces"].to(got.device)
    error = float((got - expected).abs().max())
    allowed = agreement * max(1.0, float(expected.abs().max()))
    if error > allowed:
        raise PaiNNFastError(
            "the fast engine disagrees with the reference",
            where=f"model '{potential.config.name}'",
            got=f"forces off by {error:.2e} eV/Å",
            expected=f"at most {allowed:.0e}",
            fix='use backend="reference", and please report it',
        )
