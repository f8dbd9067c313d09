import sys
import warnings

import ase
import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.optimize import BFGS
from ase.vibrations import Infrared, Vibrations
from scipy import constants
from scipy.spatial.transform import Rotation
from warned import warns

from painn_fast import PaiNNCalculator, PaiNNFastError, evaluate
from painn_fast.nn import DipoleHead, EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.spectra import harmonic, relax
from painn_fast.testing import assert_close, random_potential
from painn_fast.vibrations.harmonic import infrared_intensities, normal_modes, raman_invariants


def emt_forces(atoms, shift):
    return ase.Atoms(atoms.numbers, atoms.positions + shift, calculator=EMT()).get_forces().ravel()


def finite_difference_hessian(atoms, step=1e-4):
    rows = []
    for k in range(3 * len(atoms)):
        shift = step * np.eye(3 * len(atoms))[k].reshape(-1, 3)
        rows.append(emt_forces(atoms, -shift) - emt_forces(atoms, shift))
    hessian = np.array(rows) / (2 * step)
    return 0.5 * (hessian + hessian.T)


@pytest.mark.parametrize(("name", "vibrations"), [("H2O", 3), ("CO", 1), ("CH3OH", 12)])
def test_frequencies_equal_those_of_ase(name, vibrations, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atoms = molecule(name)
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=1e-7, steps=2000)
    wavenumber, modes = normal_modes(atoms, finite_difference_hessian(atoms))
    theirs = Vibrations(atoms, delta=1e-4)
    theirs.run()
    frequencies = theirs.get_frequencies()
    expected = sorted(sorted(frequencies.real - frequencies.imag, key=abs)[-vibrations:])  # imaginary ones negative
    assert len(wavenumber) == vibrations
    assert_close(wavenumber, expected, 1e-4)
    mass = atoms.get_masses()[:, None]
    overlap = np.einsum("knj,lnj->kl", mass * modes, modes)
    assert_close(overlap, np.eye(vibrations), 1e-10, "orthonormal modes")
    assert_close((mass * modes).sum(1), np.zeros((vibrations, 3)), 1e-2, "no translation")


def test_lines_and_intensities_equal_those_of_ase(ethanol_model, ethanol_modes, tmp_path, monkeypatch):
    """ASE's are the plain differences over 0.005 Å, its habit is 0.01; what is left is its h^2 term."""
    monkeypatch.chdir(tmp_path)
    atoms = ethanol_modes.atoms.copy()
    atoms.calc = PaiNNCalculator(ethanol_model)
    theirs = Infrared(atoms, delta=0.005)
    theirs.run()
    frequencies, factor = theirs.get_frequencies(), 42.255 / 42.2561  # ASE rounds the constant otherwise
    assert ethanol_modes.wavenumber == pytest.approx(frequencies.real[-21:], abs=1.0)
    assert_close(factor * ethanol_modes.intensity, theirs.intensities[-21:] * 42.255, 1e-2)


def test_raman_activities_equal_finite_differences_along_modes(ethanol_model, ethanol_modes):
    step = 5e-3
    for k in (0, 5, 12, 17, 20):
        moved = [ethanol_modes.atoms.copy() for _ in range(2)]
        for sign, atoms in zip((1, -1), moved, strict=True):
            atoms.positions += sign * step * ethanol_modes.modes[k]
        plus, minus = evaluate(ethanol_model, moved, ("polarizability",))["polarizability"]
        t = (plus - minus) / (2 * step)
        mean = np.trace(t) / 3
        gamma2 = 1.5 * ((t - mean * np.eye(3)) ** 2).sum()
        assert ethanol_modes.activity[k] == pytest.approx(45 * mean**2 + 7 * gamma2, rel=2e-3)
        assert ethanol_modes.depolarisation[k] == pytest.approx(3 * gamma2 / (45 * mean**2 + 4 * gamma2), rel=2e-3)


def test_harmonic_spectrum_of_the_weights_of_the_bundled_model_is_that_of_ethanol(ethanol_modes):
    """PBE0: O-H stretch near 3919, five C-H stretches around 3000 to 3190; names to them."""
    nu, names = ethanol_modes.wavenumber, np.array(ethanol_modes.names)
    assert len(nu) == 21
    assert nu[0] > 150
    assert nu[names == "O-H stretch"] == pytest.approx([3919], abs=30)
    assert ((nu[names == "C-H stretch"] > 2950) & (nu[names == "C-H stretch"] < 3250)).all()
    assert (names == "C-H stretch").sum() == 5
    skeleton = [k for k, name in enumerate(names) if name in ("C-O stretch", "C-C stretch", "C-O/C-C stretch")]
    assert len(skeleton) == 3
    assert ((nu[skeleton] > 850) & (nu[skeleton] < 1200)).all()
    assert set(names[:2]) == {"C-C torsion", "C-O torsion"}
    assert all(0 <= ratio <= 0.75 for ratio in ethanol_modes.depolarisation)


def test_relaxed_from_afar_is_the_same_minimum(ethanol_model, ethanol_modes, rng):
    atoms = ethanol_modes.atoms.copy()
    atoms.positions += 0.08 * rng.normal(size=atoms.positions.shape)
    atoms.rotate(40, (1, 2, 3))
    minimum = relax(ethanol_model, atoms)
    assert np.linalg.norm(evaluate(ethanol_model, [minimum])["forces"][0], axis=1).max() <= 1e-5
    distances = [a.get_all_distances() for a in (minimum, ethanol_modes.atoms)]
    assert_close(distances[0], distances[1], 1e-3)
    assert atoms.positions.shape == (9, 3)
    assert minimum.calc is None


def test_deuterium_moves_the_oh_stretch_only(ethanol_model, ethanol_modes):
    """By about sqrt(mu_OD / mu_OH) = 1.37, and no other stretch by more than 10 cm-1."""
    heavy = ethanol_modes.atoms.copy()
    masses = heavy.get_masses()
    oxygen = int(np.flatnonzero(heavy.numbers == 8)[0])
    hydrogen = min(np.flatnonzero(heavy.numbers == 1), key=lambda i: heavy.get_distance(oxygen, i))
    masses[hydrogen] = 2.014
    heavy.set_masses(masses)
    moved = harmonic(ethanol_model, heavy, relaxed=True)
    assert ethanol_modes.wavenumber[-1] / moved.wavenumber[moved.names.index("O-H stretch")] == pytest.approx(
        1.37, abs=0.02
    )
    stretches = moved.wavenumber[np.array(moved.names) == "C-H stretch"]
    assert stretches == pytest.approx(ethanol_modes.wavenumber[-6:-1], abs=10)


def test_imaginary_frequencies_are_negative_and_warned_of(ethanol_model, ethanol_modes):
    turned = ethanol_modes.atoms.copy()
    oxygen, carbon = 2, 1
    turned.set_dihedral(0, carbon, oxygen, 3, turned.get_dihedral(0, carbon, oxygen, 3) + 60, indices=[3])
    with warns(r"imaginary frequencies: \d+i"):
        spectrum = harmonic(ethanol_model, turned, relaxed=True)
    assert spectrum.wavenumber[0] < -20


def test_linear_molecules_have_one_vibration_more():
    """However they lie in space, and where a relaxation has left them bent by 0.01 mÅ."""
    atoms = molecule("CO2")
    springs = np.kron(np.array([[2.0, -1.0, -1.0], [-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]), np.eye(3))
    for axis in ((1, 0, 0), (0, 0, 1), (1, 2, 3)):
        turned = atoms.copy()
        turned.rotate((0, 0, 1), axis)
        for left in (0.0, 1e-9, 1e-5):
            turned.positions[0] += left * np.cross(axis, (3, 1, -2))
            assert len(normal_modes(turned, springs)[0]) == 4, (axis, left)
    bent = atoms.copy()
    bent.positions[0] += [0.1, 0.0, 0.0]
    assert len(normal_modes(bent, springs)[0]) == 3


def test_intensities_of_a_diatomic_by_hand():
    """CO-like: mu = q (x_1 - x_0), alpha_zz = s (z_1 - z_0): |dmu/dQ|^2 = q^2 / reduced mass."""
    atoms = ase.Atoms("CO", [[0, 0, 0], [0, 0, 1.13]])
    spring = 100.0 * np.kron(np.array([[1, -1], [-1, 1]]), np.diag([0, 0, 1.0]))
    wavenumber, modes = normal_modes(atoms, spring)
    reduced = 12.011 * 15.999 / (12.011 + 15.999)
    omega = np.sqrt(100.0 * constants.e / 1e-20 / (reduced * constants.atomic_mass))  # rad/s
    assert wavenumber == pytest.approx([omega / (200.0 * np.pi * constants.c)], rel=1e-5)
    charge, slope = 0.4, 1.3
    polar = charge * np.stack([-np.eye(3), np.eye(3)], axis=1)
    assert infrared_intensities(modes, polar) == pytest.approx([42.2561 / 0.2081943**2 * charge**2 / reduced], rel=1e-5)
    derivative = np.zeros((3, 3, 2, 3))
    derivative[2, 2, :, 2] = [-slope, slope]
    a2, g2 = raman_invariants(modes, derivative)
    assert a2 == pytest.approx([(slope / 3) ** 2 / reduced])
    assert g2 == pytest.approx([slope**2 / reduced])


def test_model_without_polarizability_has_no_raman(ethanol):
    config = PotentialConfig(
        representation=RepresentationConfig(n_features=8, n_layers=1, n_rbf=5, epsilon=1e-3),
        heads=(EnergyHead(), DipoleHead()),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        spectrum = harmonic(random_potential(config), ethanol, relaxed=True)
    assert spectrum.activity is None
    assert spectrum.depolarisation is None
    assert spectrum.intensity.shape == (21,)


def test_float32_model_is_analysed_in_float64_and_left_alone(ethanol_model, ethanol_modes):
    import copy

    single = copy.deepcopy(ethanol_model).float()
    spectrum = harmonic(single, ethanol_modes.atoms)
    assert single.dtype == torch.float32
    assert_close(spectrum.wavenumber, ethanol_modes.wavenumber, 1e-4)


def test_a_start_near_a_saddle_falls_to_the_minimum_by_bfgs_again(ethanol_model, ethanol, monkeypatch):
    """The force at half a turn of the methyl group is small enough for Newton steps, and the minimum 1 Å away."""
    monkeypatch.setattr(sys.modules["painn_fast.vibrations.relax"], "NEWTON_STEPS", 8)
    turned, hydrogens = ethanol.copy(), [6, 7, 8]
    assert (turned.get_distances(0, hydrogens) < 1.2).all()
    axis = turned.positions[1] - turned.positions[0]
    turn = Rotation.from_rotvec(np.radians(60.5) * axis / np.linalg.norm(axis))
    turned.positions[hydrogens] = turned.positions[0] + turn.apply(turned.positions[hydrogens] - turned.positions[0])
    energies = evaluate(ethanol_model, [relax(ethanol_model, turned), relax(ethanol_model, ethanol)])["energy"]
    assert energies[0] == pytest.approx(energies[1], abs=1e-5)


def test_broken_structures_are_refused(ethanol_model, ethanol, monkeypatch):
    periodic = ethanol.copy()
    periodic.set_cell([20, 20, 20])
    periodic.pbc = True
    with pytest.raises(PaiNNFastError, match="molecules in vacuum"):
        harmonic(ethanol_model, periodic)
    with pytest.raises(PaiNNFastError, match="element"):
        harmonic(ethanol_model, molecule("SiH4"))
    with pytest.raises(PaiNNFastError, match="at least two atoms"):
        harmonic(ethanol_model, ase.Atoms("H"))
    module = sys.modules["painn_fast.vibrations.relax"]
    monkeypatch.setattr(module, "NEWTON_STEPS", 1)
    monkeypatch.setattr(module, "DESCENTS", 1)
    stretched = ethanol.copy()
    stretched.positions *= 1.05
    monkeypatch.setattr(module, "BFGS_STEPS", 1)
    with pytest.raises(PaiNNFastError, match=r"does not relax.*eV/Å is left"):
        harmonic(ethanol_model, stretched)
