"""A harmonic molecule gives back the double-harmonic intensities of its own Hessian, band by band."""

from types import SimpleNamespace

import numpy as np
import pytest

from painn_fast import md
from painn_fast.md import MDSettings, Trajectory
from painn_fast.spectra import Analysis, SpectrumSettings, analyse, infrared, raman
from painn_fast.units import AMU_A2_PER_FS2, KB, SPEED_OF_LIGHT
from painn_fast.vibrations.harmonic import depolarisation_ratio, infrared_intensities, normal_modes, raman_invariants


@pytest.fixture(scope="module")
def bands(water_on_springs):
    """Wavenumbers, infrared intensities, Raman activities and depolarisation ratios from the derivatives."""
    wavenumber, modes = normal_modes(water_on_springs.atoms, water_on_springs.hessian)
    isotropic, anisotropic = raman_invariants(modes, water_on_springs.alpha)
    return SimpleNamespace(
        modes=modes,
        wavenumber=wavenumber,
        intensity=infrared_intensities(modes, water_on_springs.dipole),
        activity=45 * isotropic + 7 * anisotropic,
        depolarisation=depolarisation_ratio(isotropic, anisotropic),
    )


def test_exact_dynamics_of_thousands_of_thermal_trajectories(water_on_springs, bands):
    """Sums over modes with thermal amplitudes and random phases, 1500 trajectories: 3 % is the statistical error."""
    rng, temperature, every = np.random.default_rng(5), 300.0, 4.0
    omega = 2 * np.pi * SPEED_OF_LIGHT * bands.wavenumber
    energy = KB * temperature * rng.exponential(size=(1500, 3))
    amplitude = np.sqrt(2 * energy / AMU_A2_PER_FS2) / omega
    phase = rng.uniform(0, 2 * np.pi, size=(1500, 3))
    times = every * np.arange(160)
    q = amplitude[:, None] * np.cos(times[:, None] * omega + phase[:, None])
    x = np.einsum("stk,knc->stnc", q, bands.modes)
    analysis = Analysis("hann", 400.0)
    dipole = np.einsum("inc,stnc->sti", water_on_springs.dipole, x, optimize=True)
    alpha = np.einsum("ijnc,stnc->stij", water_on_springs.alpha, x, optimize=True)
    ir, rm = infrared(dipole, every, temperature, analysis), raman(alpha, every, temperature, analysis)
    for nu, intensity, activity in zip(bands.wavenumber, bands.intensity, bands.activity, strict=True):
        assert ir.integral(nu - 250, nu + 250) == pytest.approx(intensity, rel=0.08), f"infrared at {nu:.0f}"
        assert rm.integral(nu - 250, nu + 250) == pytest.approx(activity, rel=0.08), f"Raman at {nu:.0f}"


def spectra_of_a_run(water, folder, **settings):
    """Analysis of `md.run` on springs, and the mean of the kinetic energy in each mode over kB T / 2."""
    chosen = MDSettings(
        fragments="off",  # springs are no bonds
        duration="300 fs", equilibration="150 fs", tau="20 fs", time_step="0.4 fs", dipole_every="3.2 fs",
        polarizability_every="3.2 fs", velocities_every="3.2 fs", energies_every="100 fs", output=str(folder),
        **settings,
    )  # fmt: skip
    trajectory = Trajectory(md.run(chosen, force_field=water.force_field, atoms=water.atoms))
    _, modes = normal_modes(water.atoms, water.hessian)
    momenta = trajectory.velocities.mean(axis=2) * water.atoms.get_masses()[:, None]  # of centroids [T, S, n, 3]
    speed = np.einsum("knc,tsnc->tsk", modes, momenta)
    energy = (speed**2).mean(axis=(0, 1)) * AMU_A2_PER_FS2 / (KB * 300.0)
    analysed = SpectrumSettings(window="hann", depth="250 fs", duration="300 fs", trajectory=str(folder))
    return analyse(trajectory, analysed), energy


def check_bands(result, bands, energy):
    """Infrared within 5 %, Raman within 10 %, depolarisation ratio within 0.05, band by band."""
    ir, rm = result.infrared, result.raman
    for k, nu in enumerate(bands.wavenumber):
        low, high = nu - 350, nu + 350
        assert ir.integral(low, high) == pytest.approx(energy[k] * bands.intensity[k], rel=0.05), f"at {nu:.0f} cm-1"
        assert rm.integral(low, high) == pytest.approx(energy[k] * bands.activity[k], rel=0.10), f"at {nu:.0f} cm-1"
        assert rm.integrated_depolarisation(low, high) == pytest.approx(bands.depolarisation[k], abs=0.05)


@pytest.mark.parametrize(("ensemble", "beads"), [("nve", 1), ("rpmd", 4), ("t-rpmd", 4)])
def test_bands_of_a_run_carry_the_energy_that_their_modes_had(water_on_springs, bands, tmp_path, ensemble, beads):
    """md.run with 128 thermal starts, intensities relative to the energy that chance gave each mode, 9 % about kB T."""
    settings = {"ensemble": ensemble, "beads": beads, "trajectories": 128}
    result, energy = spectra_of_a_run(water_on_springs, tmp_path / "run", **settings)
    assert energy == pytest.approx(1.0, abs=0.3)
    check_bands(result, bands, energy)
    peaks = np.array([peak.position for peak in result.infrared_peaks])
    nearest = [peaks[np.abs(peaks - nu).argmin()] for nu in bands.wavenumber]
    assert nearest == pytest.approx(bands.wavenumber, abs=4), "the time step shifts 3800 cm-1 by 13 cm-1"
    for k, nu in enumerate(bands.wavenumber):
        at = int(np.abs(result.infrared.wavenumber - nu).argmin())
        assert 0.05 < result.infrared.error[at] / result.infrared.intensity[at] < 0.15, "1 / sqrt(128) = 0.088"
        assert 0.05 < result.raman.error[at] / result.raman.activity[at] < 0.15
        assert result.power.integral(nu - 350, nu + 350) == pytest.approx(energy[k], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("ensemble", "beads"), [("nve", 1), ("rpmd", 4), ("t-rpmd", 4)])
def test_bands_of_thousands_of_thermal_starts(water_on_springs, bands, tmp_path, ensemble, beads):
    """4096 of them leave a statistical error of 1.6 %: the intensities themselves."""
    settings = {"ensemble": ensemble, "beads": beads, "trajectories": 4096}
    result, _ = spectra_of_a_run(water_on_springs, tmp_path / "run", **settings)
    check_bands(result, bands, np.ones(3))
