"""Which thermostat acts on which normal mode of the ring polymer, and how strongly.

PILE-L and PILE-G: Ceriotti, Parrinello, Markland, Manolopoulos, J. Chem. Phys. 133, 124104 (2010).
T-RPMD: Rossi, Ceriotti, Manolopoulos, J. Chem. Phys. 140, 234116 (2014), lambda = 1/2 and a free centroid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Ensemble = Literal["nve", "langevin", "rpmd", "t-rpmd", "pile-l", "pile-g"]
"""nve and langevin are the names of rpmd and pile-l with one bead; pile-g of one bead rescales velocities."""

LAMBDA = {"pile-l": 1.0, "pile-g": 1.0, "langevin": 1.0, "t-rpmd": 0.5}


def friction(ensemble: Ensemble, omega: Tensor, tau0: float) -> Tensor | None:
    """Friction of each mode by white noise, None without a thermostat.

    Args:
        ensemble: which.
        omega: frequencies of the modes [S, P], 1/fs.
        tau0: time constant of the centroid, fs.

    Returns:
        gamma [S, P] in 1/fs: 2 lambda omega_k, and 1 / tau0 or nothing on the centroid, which pile-g rescales instead.
    """
    if ensemble not in LAMBDA:
        return None
    gamma = 2.0 * LAMBDA[ensemble] * omega
    gamma[:, 0] = 0.0 if ensemble in ("t-rpmd", "pile-g") else 1.0 / tau0
    return gamma
