"""Units: eV, Å, fs, K, amu, e Å, Å³ and cm⁻¹ inside, whatever a user or a model file says outside.

Values are those of `ase.units` (CODATA 2014), so that numbers agree with ASE to the last digit.
"""

from __future__ import annotations

import re

from ase import units as _ase

from painn_fast.errors import PaiNNFastError

KB = _ase.kB
"""Boltzmann constant, eV/K."""
HBAR = _ase._hbar * _ase._e**-1 * 1e15
"""Reduced Planck constant, eV fs."""
SPEED_OF_LIGHT = _ase._c * 100 * 1e-15
"""Speed of light, cm/fs."""
AMU_A2_PER_FS2 = _ase._amu * 1e10 / _ase._e
"""amu Å²/fs² in eV: acceleration [Å/fs²] = force [eV/Å] / mass [amu] / AMU_A2_PER_FS2."""
EV_IN_CM = 1.0 / _ase.invcm
"""1 eV in cm⁻¹."""
DEBYE = _ase.Debye
"""1 Debye in e Å."""
BOHR = _ase.Bohr
"""1 bohr in Å."""
HARTREE = _ase.Hartree
"""1 hartree in eV."""
KCAL_PER_MOL = _ase.kcal / _ase.mol
"""1 kcal/mol in eV."""
KJ_PER_MOL = _ase.kJ / _ase.mol
"""1 kJ/mol in eV."""

ENERGY = {
    "eV": 1.0,
    "meV": 1e-3,
    "Ha": HARTREE,
    "Hartree": HARTREE,
    "mHa": 1e-3 * HARTREE,
    "Ry": 0.5 * HARTREE,
    "kcal/mol": KCAL_PER_MOL,
    "kJ/mol": KJ_PER_MOL,
}
LENGTH = {"Ang": 1.0, "Å": 1.0, "A": 1.0, "Angstrom": 1.0, "Bohr": BOHR, "a0": BOHR, "nm": 10.0}
DIPOLE = {"e Ang": 1.0, "e*Ang": 1.0, "e Å": 1.0, "D": DEBYE, "Debye": DEBYE, "e a0": BOHR, "a.u.": BOHR}
POLARIZABILITY = {"Ang^3": 1.0, "Å^3": 1.0, "Å³": 1.0, "Bohr^3": BOHR**3, "a0^3": BOHR**3, "a.u.": BOHR**3}
AREA = {"Ang^2": 1.0, "Å^2": 1.0, "Å²": 1.0, "Bohr^2": BOHR**2, "a0^2": BOHR**2, "a.u.": BOHR**2}
FORCE = {
    "eV/Ang": 1.0,
    "eV/Å": 1.0,
    "kcal/mol/Ang": KCAL_PER_MOL,
    "kcal/mol/Å": KCAL_PER_MOL,
    "Ha/Bohr": HARTREE / BOHR,
}
TIME = {"fs": 1.0, "ps": 1e3, "ns": 1e6, "as": 1e-3}
TEMPERATURE = {"K": 1.0}
WAVENUMBER = {"cm-1": 1.0, "cm^-1": 1.0, "1/cm": 1.0}
WAVELENGTH = {"nm": 1.0, "um": 1e3}
DURATION = {"s": 1.0, "min": 60.0, "h": 3600.0}

LONGEST = 200
"""Characters of a number and its unit."""
KINDS = {
    "energy": ENERGY,
    "length": LENGTH,
    "dipole": DIPOLE,
    "polarizability": POLARIZABILITY,
    "area": AREA,
    "force": FORCE,
    "time": TIME,
    "temperature": TEMPERATURE,
    "wavenumber": WAVENUMBER,
    "wavelength": WAVELENGTH,
    "duration": DURATION,
}


def factor(kind: str, name: str) -> float:
    """Size of the unit `name` in our own unit of that `kind`, e.g. factor("energy", "kcal/mol") in eV.

    Raises:
        PaiNNFastError: if the unit is unknown; names those that are known.
    """
    table = KINDS[kind]
    folded = {key.casefold(): value for key, value in table.items()}
    if name.casefold() not in folded:
        raise PaiNNFastError(f"unknown unit of {kind}", got=repr(name), expected=" | ".join(table))
    return folded[name.casefold()]


def parse_quantity(text: str, kind: str) -> float:
    """A quantity such as "0.5 fs" as a number in our own unit of that `kind`.

    Raises:
        PaiNNFastError: if there is no number, no unit, or a unit of something else.
    """
    own = next(iter(KINDS[kind]))
    if len(str(text)) > LONGEST:
        raise PaiNNFastError(f"not a {kind}", got=repr(str(text)[:40]), expected=f'such as "1 {own}"')
    match = re.fullmatch(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*", str(text))
    if match is None:
        raise PaiNNFastError(f"not a {kind}", got=repr(text), expected=f'a number and a unit, such as "1 {own}"')
    if not match[2]:
        raise PaiNNFastError(
            f"missing unit of {kind}", got=repr(text), expected=" | ".join(KINDS[kind]), fix=f'write "{text} {own}"'
        )
    return float(match[1]) * factor(kind, match[2])


def format_quantity(value: float, kind: str) -> str:
    """The inverse of `parse_quantity`, in our own unit."""
    return f"{value!r} {next(iter(KINDS[kind]))}"
