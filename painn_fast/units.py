"""Units: eV, Å, fs, K, amu, e Å, Å³ and cm⁻¹ inside, whatever a user or a model file says outside.

Values are those of `ase.units` (CODATA 2014), so that numbers agree with ASE to the last digit.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

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
STRESS = {"eV/Ang^3": 1.0, "eV/Å^3": 1.0, "Ha/Bohr^3": HARTREE / BOHR**3, "GPa": _ase.GPa}
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
    "stress": STRESS,
    "time": TIME,
    "temperature": TEMPERATURE,
    "wavenumber": WAVENUMBER,
    "wavelength": WAVELENGTH,
    "duration": DURATION,
}


DIMENSIONS = {
    "energy": (1, 0, 0),
    "length": (0, 1, 0),
    "area": (0, 2, 0),
    "polarizability": (0, 3, 0),
    "force": (1, -1, 0),
    "stress": (1, -3, 0),
    "dipole": (0, 1, 1),
}
"""Powers of energy, length and charge, of the kinds that expressions such as "kcal/mol/Ang" may stand for."""
_Part = tuple[float, tuple[int, int, int, int]]
"""Size in our own unit; powers of energy, length, charge and amount of substance, of which none may be left."""


def _parts() -> dict[str, _Part]:
    """The words of which units are products, in lower case."""
    energies = {name: size for name, size in ENERGY.items() if "/" not in name} | {"Rydberg": 0.5 * HARTREE}
    molar = {"cal": 1e-3 * _ase.kcal, "kcal": _ase.kcal, "kJ": _ase.kJ}
    lengths = LENGTH | {"Angstroms": 1.0, "\u212b": 1.0, "pm": 0.01}
    pressures = {"GPa": _ase.GPa, "kbar": 1e3 * _ase.bar, "bar": _ase.bar}
    found: dict[str, _Part] = {"mol": (_ase.mol, (0, 0, 0, 1)), "e": (1.0, (0, 0, 1, 0)), "|e|": (1.0, (0, 0, 1, 0))}
    for table, powers in (
        (energies, (1, 0, 0, 0)),
        (molar, (1, 0, 0, 1)),
        (lengths, (0, 1, 0, 0)),
        (pressures, (1, -3, 0, 0)),
        ({"D": DEBYE, "Debye": DEBYE}, (0, 1, 1, 0)),
        ({f"e{name}": size for name, size in lengths.items()}, (0, 1, 1, 0)),
    ):
        found |= {name.casefold(): (size, powers) for name, size in table.items()}
    return found


_PARTS = _parts()
_PART = re.compile(r"([^\s*/·^()]+)(?:(?:\^|\*\*)\(?([-+]?\d)\)?)?")
_ATOMIC_WORDS = ("au", "a.u.", "atomic units")
_LONGEST = 60
"""Characters of an expression."""


def factor(kind: str, name: str) -> float:
    """Size of the unit `name` in our own unit of that `kind`, e.g. factor("energy", "kcal/mol") in eV.

    Case does not matter. Units of energies, lengths, dipoles, ... may be products and quotients: "kcal mol-1", "eAng",
    "Ha/Bohr^3", "a0 a0 a0".

    Raises:
        PaiNNFastError: if the unit is unknown, or one of something else; names those that are known.
    """
    size = _size(kind, name)
    if size is None:
        raise PaiNNFastError(f"unknown unit of {kind}", got=repr(name[:_LONGEST]), expected=" | ".join(KINDS[kind]))
    return size


@lru_cache(maxsize=256)
def _size(kind: str, name: str) -> float | None:
    size = {key.casefold(): value for key, value in KINDS[kind].items()}.get(name.strip().casefold())
    return _expression(name, kind) if size is None else size


def size_of(kind: str, name: str) -> float | None:
    """As `factor`, None for a word that is no unit of that `kind`; "au" may be gold."""
    return None if name.strip().casefold() in _ATOMIC_WORDS else _size(kind, name)


def energy_size(name: str) -> float | None:
    """Size in eV of the unit of any scalar, None if it is no unit of energy; "a.u." may be that of anything."""
    return size_of("energy", name)


def _expression(text: str, kind: str) -> float | None:
    """Size of a product such as "kcal/mol/Ang", None if it is not one of that kind."""
    if kind not in DIMENSIONS or len(text) > _LONGEST:
        return None
    text = text.replace("³", "^3").replace("²", "^2").replace("⋅", "·").strip()
    if text.casefold() in _ATOMIC_WORDS:
        return HARTREE ** DIMENSIONS[kind][0] * BOHR ** DIMENSIONS[kind][1]
    size, total, sign, at = 1.0, [0, 0, 0, 0], 1, 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None:  # between parts; "/" divides by the next one alone
            sign = -1 if text[at] == "/" else sign
            at += 1
            continue
        name, power = match[1].casefold(), int(match[2] or 1) * sign
        if name not in _PARTS and (ending := re.fullmatch(r"(.*?[^\d+-])([-+]?\d)", name)):  # "mol-1", "ang3"
            name, power = ending[1], int(ending[2]) * power
        if name not in _PARTS:
            return None
        size *= _PARTS[name][0] ** power
        total = [a + power * b for a, b in zip(total, _PARTS[name][1], strict=True)]
        sign, at = 1, match.end()
    return size if total == [*DIMENSIONS[kind], 0] else None


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


def require_temperature(kelvin: float) -> None:
    """Raise PaiNNFastError unless a temperature (K) is positive and finite."""
    if not 0.0 < kelvin < math.inf:
        raise PaiNNFastError("not a temperature", got=f"{kelvin:g} K", expected="a finite number above 0")


def format_quantity(value: float, kind: str) -> str:
    """The inverse of `parse_quantity`, in our own unit."""
    return f"{value!r} {next(iter(KINDS[kind]))}"
