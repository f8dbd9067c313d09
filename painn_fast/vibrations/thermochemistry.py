"""Thermochemistry of a molecule as an ideal gas of rigid rotors and harmonic oscillators, by ASE."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ase.thermochemistry import IdealGasThermo

from painn_fast.errors import PaiNNFastError
from painn_fast.graph.charge import charge_and_multiplicity
from painn_fast.units import EV_IN_CM, KB, require_temperature
from painn_fast.vibrations.harmonic import HarmonicSpectrum

TEMPERATURE, PRESSURE = 298.15, 101325.0
"""K and Pa, of standard tables."""


@dataclass(frozen=True)
class Thermochemistry:
    """Of one molecule; energies include the potential energy.

    Example:
        >>> from painn_fast.vibrations import Thermochemistry
        >>> one = Thermochemistry(298.15, 101325.0, 1, -10.0, 2.0, -7.9, -7.8, 0.003, -8.69)
        >>> round(one.free_energy - one.enthalpy, 2)
        -0.89
    """

    temperature: float  # K
    pressure: float  # Pa
    symmetry_number: int  # of rotation
    energy: float  # eV, at the minimum
    zero_point: float  # eV
    internal_energy: float  # eV
    enthalpy: float  # eV
    entropy: float  # eV/K
    free_energy: float  # of Gibbs, eV


def thermochemistry(
    lines: HarmonicSpectrum,
    energy: float,
    *,
    temperature: float = TEMPERATURE,
    pressure: float = PRESSURE,
    symmetry_number: int = 1,
) -> Thermochemistry:
    """Zero-point energy, enthalpy, entropy and free energy of an ideal gas.

    Args:
        lines: of `harmonic`; the spin multiplicity is read from the `info` of its structure.
        energy: at the minimum, eV.
        temperature: K.
        pressure: Pa.
        symmetry_number: rotations that leave the molecule as it is, 1 for ethanol, 2 for water.

    Returns:
        The quantities; low torsions count as harmonic, which makes the entropy an estimate.

    Raises:
        PaiNNFastError: for imaginary frequencies, and for a temperature, pressure or symmetry number that is none.

    Example:
        >>> import painn_fast as pf
        >>> from ase.build import molecule
        >>> from painn_fast.vibrations import harmonic, thermochemistry
        >>> lines = harmonic(pf.load("ethanol"), molecule("CH3CH2OH"))
        >>> round(thermochemistry(lines, 0.0).zero_point, 1)  # eV
        2.2
    """
    require_temperature(temperature)
    if not 0.0 < pressure < math.inf:
        raise PaiNNFastError("not a pressure", got=f"{pressure} Pa", expected="a finite number above 0")
    if symmetry_number < 1:
        raise PaiNNFastError("not a symmetry number", got=symmetry_number, expected="1 or more")
    if (lines.wavenumber <= 0).any():
        raise PaiNNFastError(
            "thermochemistry needs a minimum",
            where=lines.atoms.get_chemical_formula(),
            got=f"imaginary frequencies of {(lines.wavenumber <= 0).sum()} modes",
            fix="start from another structure",
        )
    _, multiplicity = charge_and_multiplicity(lines.atoms.info, where=lines.atoms.get_chemical_formula())
    gas = IdealGasThermo(
        vib_energies=lines.wavenumber / EV_IN_CM,
        geometry="linear" if len(lines.wavenumber) == 3 * len(lines.atoms) - 5 else "nonlinear",
        potentialenergy=energy,
        atoms=lines.atoms,
        symmetrynumber=symmetry_number,
        spin=(multiplicity - 1.0) / 2.0,
    )
    enthalpy = float(gas.get_enthalpy(temperature, verbose=False))
    return Thermochemistry(
        temperature=temperature,
        pressure=pressure,
        symmetry_number=symmetry_number,
        energy=energy,
        zero_point=float(lines.wavenumber.sum() / EV_IN_CM / 2.0),
        internal_energy=enthalpy - KB * temperature,
        enthalpy=enthalpy,
        entropy=float(gas.get_entropy(temperature, pressure, verbose=False)),
        free_energy=float(gas.get_gibbs_energy(temperature, pressure, verbose=False)),
    )
