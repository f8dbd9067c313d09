"""Vibrations whose spectra are known exactly: for tests of correlation, vibrations and spectra."""

from types import SimpleNamespace

import ase
import numpy as np
import pytest
import torch
from ase.build import molecule

from painn_fast import load
from painn_fast.io.find import MODELS
from painn_fast.io.structures import read_structures
from painn_fast.md import ForceField
from painn_fast.units import AMU_A2_PER_FS2, KB, SPEED_OF_LIGHT
from painn_fast.vibrations import harmonic


def _normal_coordinates(wavenumbers, trajectories, times, temperature, rng, *, thermal=True):
    """Q(t) [S, T, K] in Å sqrt(amu) of independent modes that start at random times.

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


@pytest.fixture(scope="session")
def ethanol_model():
    """The bundled model in float64."""
    return load("ethanol", dtype=torch.float64)


@pytest.fixture(scope="session")
def ethanol() -> ase.Atoms:
    return read_structures(MODELS / "ethanol.xyz")[0]


@pytest.fixture(scope="session")
def ethanol_modes(ethanol_model, ethanol):
    return harmonic(ethanol_model, ethanol)


class HarmonicMolecule(ForceField):
    """E = x H x / 2 about a minimum, with a dipole and a polarizability that are linear in x."""

    def __init__(self, minimum, hessian, dipole_slope, polarizability_slope):
        self.minimum = torch.tensor(minimum)
        self.hessian = torch.tensor(hessian)
        self.dipole_slope = torch.tensor(dipole_slope)  # [3, n, 3]
        self.polarizability_slope = torch.tensor(polarizability_slope)  # [3, 3, n, 3]

    def __call__(self, positions):
        x = (positions - self.minimum).flatten(1)
        forces = -x @ self.hessian
        return -0.5 * (x * forces).sum(1), forces.view_as(positions)

    def observe(self, positions, properties):
        x = positions - self.minimum
        given = {
            "dipole": torch.einsum("inj,bnj->bi", self.dipole_slope, x),
            "polarizability": torch.einsum("ijnk,bnk->bij", self.polarizability_slope, x),
        }
        return {name: given[name] for name in properties}


@pytest.fixture(scope="session")
def water_on_springs():
    """Springs along the bonds and between the hydrogens, bands 700 cm-1 apart; slopes that know no translation."""
    rng = np.random.default_rng(11)
    atoms = molecule("H2O")
    hessian = np.zeros((9, 9))
    for i, j, stiffness in ((0, 1, 45.0), (0, 2, 26.0), (1, 2, 7.0)):
        direction = atoms.positions[i] - atoms.positions[j]
        row = np.zeros((3, 3))
        row[i], row[j] = direction, -direction
        row = row.ravel() / np.linalg.norm(direction)
        hessian += stiffness * np.outer(row, row)
    dipole = rng.normal(size=(3, 3, 3))
    dipole -= dipole.mean(axis=1, keepdims=True)
    alpha = rng.normal(size=(3, 3, 3, 3))
    alpha = alpha + alpha.swapaxes(0, 1)
    alpha -= alpha.mean(axis=2, keepdims=True)
    force_field = HarmonicMolecule(atoms.positions, hessian, dipole, alpha)
    return SimpleNamespace(atoms=atoms, hessian=hessian, dipole=dipole, alpha=alpha, force_field=force_field)
