"""An O-H-like Morse oscillator, solved exactly, by each method of dynamics: `python bench/morse.py` (some minutes).

Harmonic at 3919 cm-1, fundamental at 3749: centres of the bands that classical dynamics, RPMD and T-RPMD at 300 K give,
with their standard errors, and the kinetic energy of a harmonic mode at 3919 cm-1 by the number of beads.
"""

from __future__ import annotations

import argparse
import tempfile

import ase
import numpy as np
import torch
from torch import Tensor

from painn_fast.md import ForceField, MDSettings, Trajectory, run
from painn_fast.spectra.density import Analysis
from painn_fast.spectra.power import power
from painn_fast.units import AMU_A2_PER_FS2, HBAR, KB, SPEED_OF_LIGHT

HARMONIC, ANHARMONICITY, ACROSS = 3919.0, 85.0, 300.0
"""cm-1: along x, of levels E_n = HARMONIC (n + 1/2) - ANHARMONICITY (n + 1/2)^2, and of the springs along y and z."""
EXACT = HARMONIC - 2 * ANHARMONICITY
MASS = 15.995 * 1.008 / (15.995 + 1.008)
TEMPERATURE = 300.0
STEP = 0.25
"""fs; the shift of frequencies that it makes is taken back."""
APART = 50.0
"""Å between oscillators."""
BAND = (3300.0, 4300.0)
"""cm-1, whose centre is taken."""


class Oscillators(ForceField):
    """Each atom in a Morse potential of its own along x, on springs along y and z."""

    def __init__(self, homes: np.ndarray) -> None:
        self.homes = torch.tensor(homes)
        quantum = 2 * np.pi * SPEED_OF_LIGHT * HBAR  # eV of 1 cm-1
        self.depth = HARMONIC**2 / (4 * ANHARMONICITY) * quantum
        stiffness = MASS * AMU_A2_PER_FS2 * (2 * np.pi * SPEED_OF_LIGHT) ** 2  # eV/Å^2 of (1 cm-1)^2
        self.steepness = np.sqrt(stiffness * HARMONIC**2 / (2 * self.depth))
        self.spring = stiffness * ACROSS**2

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        x = positions - self.homes
        decay = torch.exp(-self.steepness * x[..., 0])
        forces = -self.spring * x
        forces[..., 0] = -2 * self.depth * self.steepness * (1 - decay) * decay
        energy = self.depth * (1 - decay) ** 2 + 0.5 * self.spring * x[..., 1:].square().sum(-1)
        return energy.sum(1), forces


def centre(ensemble: str, beads: int, trajectories: int, duration: str) -> tuple[float, float]:
    """Of the band in the power spectrum of the centroids, and its standard error over trajectories, cm-1."""
    atoms = ase.Atoms("H" * 32, positions=APART * np.arange(32)[:, None] * np.array([1.0, 0.0, 0.0]))
    atoms.set_masses([MASS] * len(atoms))
    with tempfile.TemporaryDirectory() as folder:
        settings = MDSettings.parse(
            {
                "ensemble": ensemble, "beads": beads, "trajectories": trajectories, "temperature": f"{TEMPERATURE} K",
                "time_step": f"{STEP} fs", "equilibration": "1 ps", "duration": duration, "velocities_every": "2 fs",
                "tau": "50 fs", "output": folder,
            }
        )  # fmt: skip
        trajectory = Trajectory(run(settings, force_field=Oscillators(atoms.positions), atoms=atoms, overwrite=True))
        speed = np.asarray(trajectory.velocities).mean(axis=2).swapaxes(0, 1)  # centroids [S, T, N, 3]
    speed[..., 1:] = 0.0
    analysis = Analysis("hann", 1000.0, highest=5000.0, time_step=STEP)
    centres = []
    for one in speed:
        band = power(one[None], atoms.get_chemical_symbols(), atoms.get_masses(), 2.0, TEMPERATURE, analysis)
        inside = (band.wavenumber > BAND[0]) & (band.wavenumber < BAND[1])
        centres.append(np.average(band.wavenumber[inside], weights=band.density[inside]))
    return float(np.mean(centres)), float(np.std(centres, ddof=1) / np.sqrt(len(centres)))


def kinetic_energy(beads: int) -> float:
    """Of a harmonic mode at HARMONIC with so many beads, over the exact one."""
    omega, beta = 2 * np.pi * SPEED_OF_LIGHT * HARMONIC, 1 / (KB * TEMPERATURE)
    rings = 2 * beads / (beta * HBAR) * np.sin(np.pi * np.arange(beads) / beads)
    found = (0.5 * omega**2 / (omega**2 + rings**2)).sum() / beta
    return float(found / (0.25 * HBAR * omega / np.tanh(0.5 * beta * HBAR * omega)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=8, help="of 32 oscillators each")
    parser.add_argument("--duration", default="5 ps")
    given = parser.parse_args()
    print(f"exact fundamental {EXACT:.0f} cm-1, harmonic {HARMONIC:.0f}")
    for ensemble, beads in (("nve", 1), ("rpmd", 16), ("t-rpmd", 16), ("t-rpmd", 32), ("t-rpmd", 64)):
        found, error = centre(ensemble, beads, given.trajectories, given.duration)
        print(f"{ensemble:7} {beads:3} beads: {found:.1f} +- {error:.1f} cm-1, {found - EXACT:+.0f}", flush=True)
    for beads in (16, 32, 64):
        print(f"kinetic energy of a mode at {HARMONIC:.0f} cm-1, {beads} beads: {kinetic_energy(beads) - 1:+.1%}")


if __name__ == "__main__":
    main()
