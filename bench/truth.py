"""Two oscillators that are solved exactly, by each method of dynamics: `python bench/truth.py` (10 minutes and more).

A Morse oscillator like an O-H bond, and the same coupled to a bend whose force constant falls as the bond stretches.
Fundamentals from a basis, harmonic lines, those of perturbation theory (GVPT2), and centres of the bands of classical
dynamics, RPMD, T-RPMD and Te-PIGS at 300 K with their standard errors. In Te-PIGS the correction is a polynomial fitted
to the centroids of our sampler, so that the table compares methods without the errors of a network. For the Morse
oscillator there is also classical dynamics on the exact centroid potential, T-RPMD with more beads, and the kinetic
energy of a harmonic mode by the number of beads.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ase
import numpy as np
import torch
from torch import Tensor

from painn_fast.md import ForceField, MDSettings, Trajectory, run
from painn_fast.md.forces import SumForces
from painn_fast.spectra.density import Analysis
from painn_fast.spectra.power import power
from painn_fast.spectra.te_pigs import force_differences
from painn_fast.units import AMU_A2_PER_FS2, HBAR, KB, SPEED_OF_LIGHT
from painn_fast.vibrations.fourth_order import force_field
from painn_fast.vibrations.perturbation import levels

MASS = 15.995 * 1.008 / (15.995 + 1.008)
"""amu."""
INERTIA = MASS * AMU_A2_PER_FS2
"""The same, in eV fs^2 / Å^2."""
QUANTUM = 2 * np.pi * SPEED_OF_LIGHT * HBAR
"""eV of 1 cm-1."""
TEMPERATURE = 300.0
ELEVATED = {600.0: 8, 550.0: 10, 500.0: 8, TEMPERATURE: 16}
"""Temperatures of the path integrals of Te-PIGS, and beads."""
STEP = 0.25
"""fs; the shift of frequencies that it makes is taken back."""
SHIPPED: dict[str, Any] = {"time_step": 1.0, "tau": "0.2 ps", "equilibration_tau": "50 fs"}
"""Time step (fs) and weak thermostat of `painn_fast.spectra` in te-pigs."""
APART = 50.0
"""Å between oscillators."""
COPIES = 32
"""Oscillators in one structure."""


@dataclass(frozen=True)
class Surface:
    """V(x, y) = D (1 - exp(-a x))^2 + k exp(-b x) y^2 / 2 + q y^4, and a spring along z."""

    harmonic: float = 3919.0
    anharmonicity: float = 85.0
    """cm-1: levels of the Morse oscillator are harmonic (n + 1/2) - anharmonicity (n + 1/2)^2."""
    bend: float = 300.0
    """Harmonic, along y, cm-1."""
    coupling: float = 0.0
    """b, 1/Å."""
    quartic: float = 0.0
    """q, eV/Å^4."""

    @property
    def depth(self) -> float:
        """D, eV."""
        return self.harmonic**2 / (4 * self.anharmonicity) * QUANTUM

    @property
    def steepness(self) -> float:
        """a, 1/Å."""
        return float(np.sqrt(spring(self.harmonic) / (2 * self.depth)))

    def energy(self, x: Tensor, y: Tensor) -> Tensor:
        """eV."""
        stretch = self.depth * (1 - torch.exp(-self.steepness * x)) ** 2
        return stretch + 0.5 * spring(self.bend) * torch.exp(-self.coupling * x) * y**2 + self.quartic * y**4

    def at(self, x: np.ndarray, y: np.ndarray | float = 0.0) -> np.ndarray:
        """The same of arrays."""
        return self.energy(torch.as_tensor(x), torch.as_tensor(y)).numpy()

    @cached_property
    def lines(self) -> dict[str, float]:
        """Harmonic, cm-1."""
        return {"x": self.harmonic, "y": self.bend}

    def fundamentals(self, points: tuple[int, int] = (48, 36)) -> dict[str, float]:
        """Exact, cm-1, on grids of sinc functions: Colbert, Miller, J. Chem. Phys. 96, 1982 (1992)."""
        grids = np.linspace(-0.35, 0.75, points[0]), np.linspace(-0.65, 0.65, points[1])
        kinetic = [_kinetic(grid) for grid in grids]
        potential = self.at(grids[0][:, None], grids[1][None])
        H = np.kron(kinetic[0], np.eye(points[1])) + np.kron(np.eye(points[0]), kinetic[1]) + np.diag(potential.ravel())
        energies, states = np.linalg.eigh(H)
        states = states[:, :12].reshape(*points, 12)
        found = {}
        for name, moment in (("x", grids[0][:, None]), ("y", grids[1][None])):  # the state that the coordinate excites
            strength = [abs((states[..., 0] * moment * states[..., k]).sum()) for k in range(1, 12)]
            found[name] = float(energies[1 + int(np.argmax(strength))] - energies[0]) / QUANTUM
        return found


MORSE = Surface()
COUPLED = Surface(bend=1600.0, coupling=2.0, quartic=8.0)


def spring(wavenumber: float) -> float:
    """Force constant (eV/Å^2) of a harmonic mode."""
    return float(INERTIA * (2 * np.pi * SPEED_OF_LIGHT * wavenumber) ** 2)


def _kinetic(grid: np.ndarray) -> np.ndarray:
    n, h = np.arange(len(grid)), grid[1] - grid[0]
    apart = n[:, None] - n[None]
    square = np.where(apart == 0, 1, apart) ** 2
    return HBAR**2 / (2 * INERTIA * h**2) * (-1.0) ** apart * np.where(apart == 0, np.pi**2 / 3, 2 / square)


class Oscillators(ForceField):
    """Each atom on a surface of its own, with its minimum at the atom's home."""

    def __init__(self, homes: np.ndarray, energy: Callable[[Tensor, Tensor], Tensor], across: float = 300.0) -> None:
        self.homes, self.energy, self.spring = torch.as_tensor(homes), energy, spring(across)

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        moved = (positions - self.homes).requires_grad_()
        x, y, z = moved.unbind(-1)
        energy = (self.energy(x, y) + 0.5 * self.spring * z**2).sum(1)
        (slope,) = torch.autograd.grad(energy.sum(), moved)
        return energy.detach(), -slope


def perturbation(surface: Surface) -> dict[str, float]:
    """Fundamentals by GVPT2, of one oscillator, force constants by differences as for a molecule, cm-1."""
    atom = ase.Atoms("H", positions=np.zeros((1, 3)), masses=[MASS])
    field = Oscillators(atom.positions, surface.energy)

    def compute(moved: list[ase.Atoms]) -> dict[str, np.ndarray]:
        return {"forces": field(torch.as_tensor(np.array([one.positions for one in moved])))[1].numpy()}

    modes = np.eye(3)[:2, None] / np.sqrt(MASS)
    found = levels(force_field(compute, atom, np.array(list(surface.lines.values())), modes))
    return {name: float(found.energy[found.states.index((k,))]) for k, name in enumerate(surface.lines)}


def oscillators() -> ase.Atoms:
    """At their homes."""
    atoms = ase.Atoms("H" * COPIES, positions=APART * np.arange(COPIES)[:, None] * np.array([1.0, 0.0, 0.0]))
    atoms.set_masses([MASS] * COPIES)
    return atoms


def polynomial(moved: np.ndarray, forces: np.ndarray, degree: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The polynomial of x and y, even in y, whose forces are nearest to these [n, 2] at [n, 2]."""
    powers = [(i, j) for i in range(degree + 1) for j in range(0, degree + 1 - i, 2) if i + j]
    x, y = moved.T
    slopes = [(i * x ** max(i - 1, 0) * y**j, j * x**i * y ** max(j - 1, 0)) for i, j in powers]
    design = -np.concatenate([np.stack(one, axis=1) for one in zip(*slopes, strict=True)])
    weights = np.linalg.lstsq(design, forces.T.ravel(), rcond=None)[0].tolist()
    return lambda x, y: sum(weight * x**i * y**j for weight, (i, j) in zip(weights, powers, strict=True))


def dynamics(field: ForceField, **values: object) -> Trajectory:
    """A run of oscillators in a folder."""
    atoms = oscillators()
    fixed = {"time_step": f"{STEP} fs", "tau": "50 fs", "fragments": "off"}
    return Trajectory(run(MDSettings.parse({**fixed, **values}), force_field=field, atoms=atoms, overwrite=True))


def correction(
    surface: Surface, beads: int, temperature: float, trajectories: int, duration: str, degree: int = 6
) -> Callable[[Tensor, Tensor], Tensor]:
    """Te-PIGS with a polynomial: path integrals by our sampler, differences of forces, fit."""
    atoms = oscillators()
    field = Oscillators(atoms.positions, surface.energy)
    with tempfile.TemporaryDirectory() as folder:
        trajectory = dynamics(
            field, ensemble="pile-l", beads=beads, trajectories=trajectories, temperature=f"{temperature} K",
            equilibration="0.2 ps", duration=duration, positions_every="2 fs", output=folder,
        )  # fmt: skip
        frames = force_differences(trajectory, field)
    moved = np.concatenate([frame.positions - atoms.positions for frame in frames])[:, :2]
    return polynomial(moved, np.concatenate([frame.get_forces() for frame in frames])[:, :2], degree)


def centres(
    field: ForceField,
    ensemble: str,
    beads: int,
    trajectories: int,
    duration: str,
    bands: dict[str, tuple[float, float]],
    time_step: float = STEP,
    **more: Any,
) -> dict[str, tuple[float, float]]:
    """Centres of bands in the power spectrum of the centroids along each axis, with standard errors, cm-1."""
    atoms = oscillators()
    with tempfile.TemporaryDirectory() as folder:
        trajectory = dynamics(
            field, ensemble=ensemble, beads=beads, trajectories=trajectories, temperature=f"{TEMPERATURE} K",
            equilibration="1 ps", duration=duration, velocities_every="2 fs", output=folder,
            time_step=f"{time_step} fs", **more,
        )  # fmt: skip
        speed = np.asarray(trajectory.velocities).mean(axis=2).swapaxes(0, 1)  # centroids [S, T, N, 3]
    analysis = Analysis("hann", 1000.0, highest=5000.0, time_step=time_step)
    found = {}
    for name, (low, high) in bands.items():
        alone = np.zeros_like(speed)
        alone[..., "xy".index(name)] = speed[..., "xy".index(name)]
        each = []
        for one in alone:
            band = power(one[None], atoms.get_chemical_symbols(), atoms.get_masses(), 2.0, TEMPERATURE, analysis)
            inside = (band.wavenumber > low) & (band.wavenumber < high)
            each.append(np.average(band.wavenumber[inside], weights=band.density[inside]))
        found[name] = float(np.mean(each)), float(np.std(each, ddof=1) / np.sqrt(len(each)))
    return found


def centroid_potential(surface: Surface, temperature: float, beads: int, centroids: np.ndarray) -> np.ndarray:
    """Exact potential of mean force (eV) on the centroid of a ring polymer along x, but for a constant.

    The density of centroids is the Fourier transform over k of the trace of the ring polymer in V + i k x / beta, whose
    matrix on a grid is multiplied as often as there are beads: a power of two.
    """
    beta = 1 / (KB * temperature)
    x = np.linspace(-0.35, 0.7, 150)
    width = INERTIA * beads / (2 * beta * HBAR**2)
    free = np.sqrt(width / np.pi) * np.exp(-width * (x[:, None] - x) ** 2) * (x[1] - x[0])
    waves = np.arange(0.0, 252.0, 2.0)  # 1/Å; those below 0 are the conjugates
    density = np.zeros(len(centroids))
    for k in waves:
        half = np.exp(-(beta * surface.at(x) + 1j * k * x) / (2 * beads))
        trace = np.trace(np.linalg.matrix_power(half[:, None] * free * half, beads))
        density += (1.0 if k else 0.5) * (trace * np.exp(1j * k * centroids)).real
    return -np.log(density) / beta


def classical_band(potential: Callable[[np.ndarray], np.ndarray], temperature: float) -> tuple[float, float]:
    """Centre and width (standard deviation) of the fundamental of classical motion along x, by quadrature, cm-1."""
    x = np.linspace(-0.11, 0.14, 4001)
    V = potential(x)
    V = V - V.min()
    middle, thermal = int(V.argmin()), KB * temperature
    angle = (np.arange(400) + 0.5) * np.pi / 400
    moments = np.zeros(3)
    for energy in np.linspace(0.01, 8.0, 200) * thermal:
        ends = np.interp(energy, V[middle::-1], x[middle::-1]), np.interp(energy, V[middle:], x[middle:])
        radius = 0.5 * (ends[1] - ends[0])
        place = 0.5 * (ends[0] + ends[1]) - radius * np.cos(angle)
        speed = np.sqrt(2 * np.maximum(energy - np.interp(place, x, V), 1e-12) / INERTIA)
        steps = radius * np.sin(angle) / speed * np.pi / 400
        period = 2 * steps.sum()
        times = np.cumsum(steps) - 0.5 * steps
        amplitude = (place * np.cos(2 * np.pi * times / period) * steps).sum() / period**2
        line = 1 / (period * SPEED_OF_LIGHT)
        moments += np.exp(-energy / thermal) * period * amplitude**2 * line ** np.arange(3)
    mean = moments[1] / moments[0]
    return float(mean), float(np.sqrt(max(moments[2] / moments[0] - mean**2, 0.0)))


def exact_centroid_band(surface: Surface, temperature: float, beads: int = 32) -> tuple[float, float]:
    """Of classical motion on the exact centroid potential of another temperature, as `classical_band`."""
    grid = np.linspace(-0.11, 0.14, 251)
    potential = centroid_potential(surface, temperature, beads, grid)
    return classical_band(lambda x: np.interp(x, grid, potential), TEMPERATURE)


def kinetic_energy(wavenumber: float, beads: int) -> float:
    """Of a harmonic mode at 300 K with so many beads, over the exact one."""
    omega, beta = 2 * np.pi * SPEED_OF_LIGHT * wavenumber, 1 / (KB * TEMPERATURE)
    rings = 2 * beads / (beta * HBAR) * np.sin(np.pi * np.arange(beads) / beads)
    found = (0.5 * omega**2 / (omega**2 + rings**2)).sum() / beta
    return float(found / (0.25 * HBAR * omega / np.tanh(0.5 * beta * HBAR * omega)))


def table(name: str, surface: Surface, bands: dict[str, tuple[float, float]], trajectories: int, duration: str) -> None:
    """Of one surface, all methods."""
    homes = oscillators().positions
    field, exact = Oscillators(homes, surface.energy), surface.fundamentals()

    def show(method: str, values: dict[str, tuple[float, float]]) -> None:
        cells = (f"{values[k][0]:8.1f} ± {values[k][1]:.1f} ({values[k][0] - exact[k]:+.0f})" for k in bands)
        print(f"{name:8} {method:28} {'  '.join(cells)}", flush=True)

    show("exact", {k: (exact[k], 0.0) for k in bands})
    show("harmonic", {k: (surface.lines[k], 0.0) for k in bands})
    show("gvpt2", {k: (value, 0.0) for k, value in perturbation(surface).items()})
    more = [("t-rpmd", 32), ("t-rpmd", 64)] if surface.coupling == 0 else []
    for ensemble, beads in (("nve", 1), ("rpmd", 16), ("t-rpmd", 16), *more):
        show(f"{ensemble}, {beads} beads", centres(field, ensemble, beads, trajectories, duration, bands))
    for temperature, beads in ELEVATED.items():
        fitted = correction(surface, beads, temperature, trajectories, "1 ps")
        both = SumForces([field, Oscillators(homes, fitted, across=0.0)])
        show(f"te-pigs, {temperature:g} K, {beads} beads", centres(both, "nve", 1, trajectories, duration, bands))
        shipped = centres(both, "langevin", 1, trajectories, duration, bands, **SHIPPED)
        show("... weak thermostat, 1 fs", shipped)
        if surface.coupling == 0:
            centre, width = exact_centroid_band(surface, temperature)
            print(f"{name:8} exact centroid potential, {temperature:g} K: {centre:.1f}, width {width:.1f}", flush=True)
    if surface.coupling == 0:
        centre, width = classical_band(surface.at, TEMPERATURE)
        print(f"{name:8} classical by quadrature: {centre:.1f}, width {width:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=8, help="of 32 oscillators each")
    parser.add_argument("--duration", default="5 ps")
    given = parser.parse_args()
    table("Morse", MORSE, {"x": (3300.0, 4300.0)}, given.trajectories, given.duration)
    for beads in (16, 32, 64):
        energy = kinetic_energy(MORSE.harmonic, beads)
        print(f"kinetic energy of a harmonic mode at {MORSE.harmonic:.0f} cm-1, {beads} beads: {energy - 1:+.1%}")
    table("coupled", COUPLED, {"x": (3300.0, 4300.0), "y": (1200.0, 2100.0)}, given.trajectories, given.duration)


if __name__ == "__main__":
    main()
