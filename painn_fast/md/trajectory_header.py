"""What the header of a trajectory must say, and which shapes its series then have, checked when a file is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from painn_fast.errors import PaiNNFastError, reading
from painn_fast.md.settings import RECORDED


class Header(dict[str, Any]):
    """Attributes of a trajectory; one that is asked for but missing is a PaiNNFastError."""

    def __init__(self, attributes: Mapping[str, Any], where: Any) -> None:
        super().__init__(attributes)
        self.where = where

    def __missing__(self, name: str) -> Any:
        raise PaiNNFastError("a damaged trajectory", where=self.where, expected=f"an attribute '{name}'")


def checked_header(file: h5py.File, where: Any) -> dict[str, Any]:
    """The attributes of a file of a trajectory, texts as `str`.

    Raises:
        PaiNNFastError: naming the attribute or data set that is misshapen or no number; what is missing is named when
            it is asked for.
    """
    with reading("a damaged trajectory", where):
        header = Header(file.attrs, where)
        _check_attributes(header, where)
        _check_series(file, header, where)
    return header


def _check_attributes(header: Mapping[str, Any], where: Any) -> None:
    for name in ("beads", "trajectories"):
        if name in header and _number(header, name, where, int) < 1:
            raise _wrong(name, where, header[name], "1 or more")
    trajectories, n = int(header.get("trajectories", 1)), np.asarray(header.get("numbers", ())).size
    shapes = {"numbers": (n,), "masses": (n,), "cell": (3, 3), "pbc": (3,), "trajectory": (trajectories,)}
    for name, shape in shapes.items():
        if name not in header:
            continue
        values = np.asarray(header.get(name))
        if values.dtype.kind not in "iufb" or values.shape != shape:
            raise _wrong(name, where, f"{values.dtype} {values.shape}", f"numbers of shape {shape}")
    for name in ("temperature", "time_step", "seed"):
        if name not in header:
            continue
        values = np.asarray(header.get(name))
        if values.dtype.kind not in "iuf" or values.shape not in ((), (1,), (trajectories,)):
            raise _wrong(name, where, f"{values.dtype} {values.shape}", f"a number, or {trajectories}")
    if "longest_time_step" in header:
        _number(header, "longest_time_step", where, float)
    frozen = json.loads(str(header.get("frozen", "[]")))
    if not isinstance(frozen, list) or not all(isinstance(event, dict) and "trajectory" in event for event in frozen):
        raise _wrong("frozen", where, header.get("frozen"), "a list of what was frozen")


def _check_series(file: h5py.File, header: Mapping[str, Any], where: Any) -> None:
    """Rows of a series are as many in each column, and shaped as the header says."""
    if not {"trajectories", "beads", "numbers"} <= header.keys():
        return
    S, P, n = int(header["trajectories"]), int(header["beads"]), len(header["numbers"])
    values = {"positions": (S, P, n, 3), "velocities": (S, P, n, 3), "dipole": (S, 3), "polarizability": (S, 3, 3)}
    columns = {"energies": ("potential",), "centroids": ("positions", "forces")}
    values["centroids"] = (S, n, 3)
    for series in (name for name in RECORDED if name in file):
        if f"{series}_every" in header:
            _number(header, f"{series}_every", where, float)
        group = file[series]
        for column in ("step", "time", *columns.get(series, ("value",))):
            if not isinstance(group, h5py.Group) or not isinstance(group.get(column), h5py.Dataset):
                raise PaiNNFastError("a damaged trajectory", where=f"{where}, '{series}'", expected=column)
        rows = group["step"].shape[:1]
        for column, data in group.items():
            shape = (*rows, *(() if column in ("step", "time") else values.get(series, (S,))))
            if data.shape != shape:
                raise _wrong(f"{series}/{column}", where, data.shape, shape)


def _number(header: Mapping[str, Any], name: str, where: Any, kind: type) -> Any:
    value = np.asarray(header.get(name))
    if value.shape not in ((), (1,)) or value.dtype.kind not in ("iu" if kind is int else "iuf"):
        raise _wrong(name, where, f"{value.dtype} {value.shape}" if name in header else "nothing", "one number")
    number = kind(value.reshape(-1)[0])
    if not np.isfinite(float(number)):
        raise _wrong(name, where, number, "a finite number")
    return number


def _wrong(name: str, where: Any, got: Any, expected: Any) -> PaiNNFastError:
    return PaiNNFastError("a damaged trajectory", where=f"{where}, '{name}'", got=got, expected=expected)
