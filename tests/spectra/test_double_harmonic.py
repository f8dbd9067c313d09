"""A harmonic molecule gives back the double-harmonic intensities of its own Hessian, band by band."""

import numpy as np
import pytest
import torch
from ase.build import molecule

from painn_fast import md
from painn_fast.md import ForceField, MDSettings, Trajectory
from painn_fast.spectra import Analysis, infrared, raman
from painn_fast.spectra.harmonic import infrared_intensities, normal_modes, raman_invariants
from painn_fast.units import AMU_A2_PER_FS2, KB, SPEED_OF_LIGHT


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


@pytest.fixture(scope="module")
def water():
    """Springs along the bonds and between the hydrogens; random slopes that do not change with a translation."""
    rng = np.random.default_rng(11)
    atoms = molecule("H2O")
    hessian = np.zeros((9, 9))
    for i, j, stiffness in ((0, 1, 45.0), (0, 2, 40.0), (1, 2, 7.0)):
        direction = atoms.positions[i] - atoms.positions[j]
        row = np.zeros((3, 3))
        row[i], row[j] = direction, -direction
        row = row.ravel() / np.linalg.norm(direction)
        hessian += stiffness * np.outer(row, row)
    dipole = rng.normal(size=(3, 3, 3))
    alpha = rng.normal(size=(3, 3, 3, 3))
    alpha = alpha + alpha.swapaxes(0, 1)
    return (
        atoms,
        hessian,
        dipole - dipole.mean(axis=1, keepdims=True),
        alpha - alpha.mean(axis=2, keepdims=True),
    )


def bands(water):
    """Wavenumbers, IR intensities, Raman activities from the derivatives."""
    atoms, hessian, dipole, alpha = water
    wavenumber, modes = normal_modes(atoms, hessian)
    isotropic, anisotropic = raman_invariants(modes, alpha)
    return wavenumber, infrared_intensities(modes, dipole), 45 * isotropic + 7 * anisotropic


def test_exact_dynamics_of_thousands_of_thermal_trajectories(water):
    """Sums over modes with thermal amplitudes and random phases, 1500 trajectories: 3 % is the statistical error."""
    atoms, hessian, dipole, alpha = water
    rng, temperature, every = np.random.default_rng(5), 300.0, 4.0
    wavenumber, modes = normal_modes(atoms, hessian)
    omega = 2 * np.pi * SPEED_OF_LIGHT * wavenumber
    energy = KB * temperature * rng.exponential(size=(1500, 3))
    amplitude = np.sqrt(2 * energy / AMU_A2_PER_FS2) / omega
    phase = rng.uniform(0, 2 * np.pi, size=(1500, 3))
    times = every * np.arange(160)
    q = amplitude[:, None] * np.cos(times[:, None] * omega + phase[:, None])
    x = np.einsum("stk,knc->stnc", q, modes)
    analysis = Analysis("hann", 400.0)
    ir = infrared(np.einsum("inc,stnc->sti", dipole, x, optimize=True), every, temperature, analysis)
    rm = raman(np.einsum("ijnc,stnc->stij", alpha, x, optimize=True), every, temperature, analysis)
    for nu, intensity, activity in zip(*bands(water), strict=True):
        assert ir.integral(nu - 250, nu + 250) == pytest.approx(intensity, rel=0.08), f"infrared at {nu:.0f}"
        assert rm.integral(nu - 250, nu + 250) == pytest.approx(activity, rel=0.08), f"Raman at {nu:.0f}"


@pytest.mark.parametrize(("ensemble", "beads"), [("t-rpmd", 4), ("nve", 1)])
def test_dynamics_run_from_start_to_spectrum(water, tmp_path, ensemble, beads):
    """md.run with thermal starts: every band of both spectra within 4 of the errors that the spectra state."""
    atoms, hessian, dipole, alpha = water
    settings = MDSettings(
        ensemble=ensemble, beads=beads, trajectories=128, duration="400 fs", equilibration="150 fs", tau="30 fs",
        dipole_every="2 fs", polarizability_every="2 fs", remove_rotation=True, output=str(tmp_path / "run"),
    )  # fmt: skip
    force_field = HarmonicMolecule(atoms.positions, hessian, dipole, alpha)
    trajectory = Trajectory(md.run(settings, force_field=force_field, atoms=atoms))
    analysis = Analysis("hann", 300.0)
    wavenumber, intensities, activities = bands(water)
    ir = infrared(trajectory.dipole.swapaxes(0, 1), 2.0, 300.0, analysis)
    rm = raman(trajectory.polarizability.swapaxes(0, 1), 2.0, 300.0, analysis)
    for nu, intensity, activity in zip(wavenumber, intensities, activities, strict=True):
        at = int(np.abs(ir.wavenumber - nu).argmin())
        relative = ir.error[at] / ir.intensity[at]
        assert 0.05 < relative < 0.15
        assert abs(ir.integral(nu - 300, nu + 300) / intensity - 1) < 4 * relative, f"infrared at {nu:.0f}"
        relative = rm.error[at] / rm.activity[at]
        assert abs(rm.integral(nu - 300, nu + 300) / activity - 1) < 4 * relative, f"Raman at {nu:.0f}"
