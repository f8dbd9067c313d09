"""Factors between classical, Kubo-transformed and quantum spectra."""

from __future__ import annotations

from typing import Literal

import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.units import EV_IN_CM, KB

QuantumCorrection = Literal["harmonic", "standard", "schofield", "mixed"]


def quantum_correction(name: str, wavenumber: np.ndarray, temperature: float) -> np.ndarray:
    """Factor on a classical spectrum, relative to the harmonic correction, which our intensities contain.

    With x = h c nu / kB T, the quantum correction factors of the correlation function are x / (1 - exp(-x)) (harmonic),
    2 / (1 + exp(-x)) (standard), exp(x / 2) (Schofield), and the root of the product of harmonic and Schofield (mixed);
    Ramírez et al., J. Chem. Phys. 121, 3973 (2004), Skinner and Park, J. Phys. Chem. B 105, 6716 (2001). Ring polymers
    give the Kubo-transformed correlation function, for which the harmonic factor is exact.

    Args:
        name: "harmonic", "standard", "schofield" or "mixed".
        wavenumber: [K] cm-1.
        temperature: K.

    Raises:
        PaiNNFastError: for an unknown name.
    """
    x = wavenumber / (EV_IN_CM * KB * temperature)
    safe = np.maximum(x, 1e-9)
    if name == "harmonic":
        return np.ones_like(x)
    if name == "standard":
        return 2.0 * np.tanh(0.5 * safe) / safe
    if name == "schofield":
        return 2.0 * np.sinh(0.5 * safe) / safe
    if name == "mixed":
        return np.sqrt(2.0 * np.sinh(0.5 * safe) / safe)
    expected = "harmonic | standard | schofield | mixed"
    raise PaiNNFastError("unknown quantum correction", got=repr(name), expected=expected)


def emission(wavenumber: np.ndarray, temperature: float) -> np.ndarray:
    """n + 1 = 1 / (1 - exp(-h c nu / kB T)), the factor of emission by a thermal oscillator."""
    return -1.0 / np.expm1(-np.asarray(wavenumber) / (EV_IN_CM * KB * temperature))
