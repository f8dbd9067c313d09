"""Polarizabilities of tblite: the derivative of its dipole by a uniform electric field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from painn_fast import units

STEP = 0.02
"""V/Å; from 0.001 to 0.1 polarizabilities of ethanol agree to 2e-5 of themselves."""
WARNING = (
    "polarizabilities of GFN1-xTB and GFN2-xTB are about half the true size (water a third), for lack of diffuse "
    "functions: Raman intensities of a model that learns them are good for teaching and tests alone"
)


class Field(list[float]):
    """A field that tblite's calculator converts and its library takes, which takes no array in version 0.8."""

    def __mul__(self, factor: Any) -> Self:
        return type(self)(factor * component for component in self)

    def __truediv__(self, divisor: Any) -> Self:
        return type(self)(component / divisor for component in self)


def polarizability(dipole: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The polarizability of a molecule, by central differences.

    Args:
        dipole: [3] e Å of the molecule in a field [3] V/Å.

    Returns:
        [3, 3] Å³, symmetric.

    Example:
        >>> import numpy as np
        >>> from painn_fast.label.finite_field import polarizability
        >>> float(round(polarizability(lambda field: 0.1 * field)[0, 0], 4))  # 0.1 e Å²/V in Å³
        1.44
    """
    slopes = [(dipole(field) - dipole(-field)) / (2 * STEP) for field in STEP * np.eye(3)]  # e Å²/V
    tensor = np.array(slopes) * (units.HARTREE * units.BOHR)  # e²/(4 pi epsilon_0) in eV Å
    return 0.5 * (tensor + tensor.T)
