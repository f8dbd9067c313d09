"""Total charge and spin multiplicity of a structure: the one list of their names and how their values are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from painn_fast.errors import PaiNNFastError, shown

CHARGE_KEYS = ("charge", "total_charge")
"""Names of the total charge in e, in any case."""
MULTIPLICITY_KEYS = ("spin", "multiplicity", "spin_multiplicity")
"""Names of the spin multiplicity 2S + 1, in any case."""
AMBIGUOUS_KEY = "total_spin"
"""Means 2S, S or 2S + 1, depending on the package."""


def charge_and_multiplicity(info: Mapping[str, Any], *, where: str) -> tuple[float, float]:
    """Total charge (e) and spin multiplicity (2S + 1) of one structure.

    Args:
        info: values of the structure as a whole, such as `atoms.info`; None counts as absent. Arrays of atoms
            (`atoms.arrays`: initial charges, magnetic moments, ...) are no totals and do not belong here.
        where: the structure, for messages.

    Returns:
        0.0 and 1.0 where nothing is given.

    Raises:
        PaiNNFastError: for a value that is not one finite number, a multiplicity that is no positive integer, names
            that contradict each other, and `total_spin` alone, as packages differ on what it counts.
    """
    if not info:
        return 0.0, 1.0
    given: dict[str, list[tuple[str, Any]]] = {}
    for key, value in info.items():
        if isinstance(key, str) and value is not None:
            given.setdefault(key.lower(), []).append((key, value))
    charge = _one("charge", CHARGE_KEYS, given, where)
    multiplicity = _one("multiplicity", MULTIPLICITY_KEYS, given, where)
    if multiplicity is None and AMBIGUOUS_KEY in given:
        key, value = given[AMBIGUOUS_KEY][0]
        raise PaiNNFastError(
            "is this 2S, S or the multiplicity 2S + 1? Packages differ on what total_spin counts",
            where=f"{where}, '{key}'",
            got=_short(value),
            expected="the multiplicity 2S + 1 by an unambiguous name",
            fix=f"store spin_multiplicity (2S + 1) instead of {key}",
        )
    return 0.0 if charge is None else charge, 1.0 if multiplicity is None else multiplicity


def _one(kind: str, keys: tuple[str, ...], given: Mapping[str, list[tuple[str, Any]]], where: str) -> float | None:
    """The value that all names agree on, None if none of them is given."""
    found = [(key, _number(value, kind, f"{where}, '{key}'")) for name in keys for key, value in given.get(name, ())]
    for key, value in found[1:]:
        if value != found[0][1]:
            raise PaiNNFastError(
                f"two names of the {_TOTAL[kind]} contradict each other",
                where=where,
                got=f"{found[0][0]} = {found[0][1]:g}, {key} = {value:g}",
                expected="one value",
                fix=f"remove {key} or {found[0][0]}",
            )
    return found[0][1] if found else None


_TOTAL = {"charge": "total charge", "multiplicity": "spin multiplicity"}
_EXPECTED = {"charge": "one finite number, in e", "multiplicity": "one positive integer, 2S + 1"}


def _number(value: Any, kind: str, where: str) -> float:
    try:
        if np.ma.is_masked(value) or (isinstance(value, str | bytes) and "_" in str(value)):  # 1_0 is no 10
            raise ValueError
        array = np.asarray(value)
        if array.dtype.kind not in "iufUS" and not (array.dtype.kind == "O" and array.ndim == 0):
            raise ValueError
        number = float(array.astype(np.float64).reshape(-1)[0]) if array.size == 1 else math.nan
    except (TypeError, ValueError, OverflowError):
        array, number = np.empty(0), math.nan
    if not math.isfinite(number) or (kind == "multiplicity" and (number < 1 or number != int(number))):
        many = array.size > 1
        raise PaiNNFastError(
            f"values of atoms instead of the {_TOTAL[kind]}" if many else f"not a {_TOTAL[kind]}",
            where=where,
            got=f"an array of shape {array.shape}" if many else _short(value),
            expected=_EXPECTED[kind],
            fix="keep values of atoms in atoms.arrays, under another name" if many else None,
        )
    return number


def _short(value: Any) -> str:
    return shown(value.item() if isinstance(value, np.generic) else value, 60)


def names_of_charge_and_multiplicity(info: Mapping[Any, Any]) -> list[str]:
    """The names in `info` of total charge or spin multiplicity, as they are spelled there; `total_spin` too."""
    known = {*CHARGE_KEYS, *MULTIPLICITY_KEYS, AMBIGUOUS_KEY}
    return [key for key in info if isinstance(key, str) and key.lower() in known]


def set_charge_and_multiplicity(info: dict[Any, Any], charge: float, multiplicity: float) -> None:
    """Put total charge (e) and spin multiplicity into `info` as "charge" and "spin", and no other names of them; a
    neutral singlet has neither."""
    for name in names_of_charge_and_multiplicity(info):
        del info[name]
    if charge != 0.0:
        info["charge"] = int(charge) if charge == int(charge) else charge
    if multiplicity != 1.0:
        info["spin"] = int(multiplicity)
