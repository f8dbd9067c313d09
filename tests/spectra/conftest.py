"""Vibrations whose spectra are known exactly."""

import ase
import numpy as np
import pytest

from painn_fast.io.load import MODELS
from painn_fast.io.structures import read_structures
from painn_fast.units import AMU_A2_PER_FS2, KB, SPEED_OF_LIGHT


def _normal_coordinates(wavenumbers, trajectories, times, temperature, rng, *, thermal=True):
    """Q(t) [S, T, K] in Å sqrt(amu) of independent modes with random phases.

    Energies are thermal (Boltzmann), or all kB T, so that every trajectory has the mean intensity.
    """
    omega = 2 * np.pi * SPEED_OF_LIGHT * np.asarray(wavenumbers)
    size = (trajectories, len(omega))
    energy = rng.exponential(size=size) if thermal else np.ones(size)
    amplitude = np.sqrt(2 * energy * KB * temperature / AMU_A2_PER_FS2) / omega
    phase = rng.uniform(0, 2 * np.pi, size=size)
    return amplitude[:, None] * np.cos(omega * np.asarray(times)[:, None] + phase[:, None])


@pytest.fixture(scope="session")
def normal_coordinates():
    """The function above, for tests."""
    return _normal_coordinates


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def ethanol_model():
    """The bundled model, in float64."""
    import torch

    from painn_fast import load

    return load("ethanol", dtype=torch.float64)


@pytest.fixture(scope="session")
def ethanol() -> ase.Atoms:
    return read_structures(MODELS / "ethanol.xyz")[0]


@pytest.fixture(scope="session")
def ethanol_modes(ethanol_model, ethanol):
    from painn_fast.spectra import harmonic

    return harmonic(ethanol_model, ethanol)
