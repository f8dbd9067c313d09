"""Rows of ASE databases, SchNetPack's among them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from painn_fast.errors import PaiNNFastError, shown


def others(row: Any, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Key-value pairs and decoded `data` of a row.

    Raises:
        PaiNNFastError: as `decoded`.
    """
    pairs = {name: vars(row)[name] for name in row.key_value_pairs}  # row.charge is the sum of initial charges
    return pairs, decoded(row.data, where)


def check_twice(pairs: Mapping[str, Any], data: Mapping[str, Any], where: str) -> None:
    """Raise PaiNNFastError if a key-value pair and an entry of `data` have one name and different values."""
    for name in pairs.keys() & data.keys():
        one, other = np.asarray(pairs[name]).ravel(), np.asarray(data[name]).ravel()
        if not np.array_equal(one, other):
            got = f"{shown(pairs[name], 60)} among the key-value pairs, {shown(data[name], 60)} in data"
            raise PaiNNFastError(f"two values of {name[:40]}", where=where, got=got, expected="one")


def decoded(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The entries of a row; arrays that SchNetPack 0.x wrote as base64 text, with shape and type beside, are decoded.

    Raises:
        PaiNNFastError: for a text that does not fit the shape and type beside it.
    """
    entries = {}
    for name, value in data.items():
        shape, kind = data.get(f"_shape_{name}"), data.get(f"_dtype_{name}")
        if isinstance(value, str | bytes) and kind is not None:
            try:
                array = np.frombuffer(base64.b64decode(value, validate=True), dtype=_number_type(kind))
                value = array if shape is None else array.reshape([int(size) for size in np.atleast_1d(shape)])
            except (ValueError, TypeError) as error:
                got = f"{kind!s} {shape!s}: {error}"[:200]
                raise PaiNNFastError("an array that cannot be decoded", where=f"{where}, '{name}'", got=got) from None
        if not name.startswith(("_shape_", "_dtype_")):
            entries[name] = value
    return entries


def _number_type(name: Any) -> np.dtype[Any]:
    kind = np.dtype(str(name))
    if kind.kind not in "fiu":
        raise ValueError("not a type of numbers")
    return kind
