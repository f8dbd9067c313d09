"""Force fields of fourth order by differences, and the lines that follow, for potentials with known answers."""

from __future__ import annotations

import ase
import numpy as np
import pytest

from painn_fast.units import AMU_A2_PER_FS2, EV_IN_CM, HBAR, SPEED_OF_LIGHT
from painn_fast.vibrations.anharmonic import UNLIKE_FOURTH_ORDER
from painn_fast.vibrations.derivatives import differences
from painn_fast.vibrations.fourth_order import coriolis, dimensionless, force_field, rotational_constants
from painn_fast.vibrations.harmonic import normal_modes
from painn_fast.vibrations.one_mode import STEPS, exact_fundamentals, perturbed_fundamentals
from painn_fast.vibrations.perturbation import levels

DEPTH, STEEPNESS, LENGTH = 4.6, 2.3, 0.97  # of an O-H bond: eV, 1/Å, Å


def morse(moved: list[ase.Atoms]) -> dict[str, list[np.ndarray]]:
    """Forces of a Morse bond between the first two atoms; unit charges as dipole."""
    forces = []
    for atoms in moved:
        r = atoms.positions[1] - atoms.positions[0]
        d = np.linalg.norm(r)
        decay = np.exp(-STEEPNESS * (d - LENGTH))
        pull = 2.0 * DEPTH * STEEPNESS * (1.0 - decay) * decay * r / d
        forces.append(np.array([pull, -pull]))
    return {"forces": forces, "dipole": [atoms.positions[1] - atoms.positions[0] for atoms in moved]}


@pytest.fixture
def bond():
    atoms = ase.Atoms("OH", [[0, 0, 0], [0, 0, LENGTH]])
    matrix = -differences(morse, atoms)["forces"].reshape(6, 6)
    return atoms, *normal_modes(atoms, 0.5 * (matrix + matrix.T))


def test_morse_bond_within_a_tenth_of_a_wavenumber(bond):
    """Exact levels of the bond without rotation: w (n + 1/2) - w^2 / 4D (n + 1/2)^2, and for J = 0 no more."""
    atoms, wavenumber, modes = bond
    mass = np.prod(atoms.get_masses()) / atoms.get_masses().sum()
    omega = STEEPNESS * np.sqrt(2.0 * DEPTH / (mass * AMU_A2_PER_FS2)) / (2.0 * np.pi * SPEED_OF_LIGHT)
    assert wavenumber == pytest.approx([omega], rel=1e-4)
    shift = omega**2 / (4.0 * DEPTH * EV_IN_CM)
    found = levels(force_field(morse, atoms, wavenumber, modes))
    np.testing.assert_allclose(found.energy, [omega - 2.0 * shift, 2.0 * omega - 6.0 * shift], atol=1.0)


def test_intensity_of_a_harmonic_bond_is_the_double_harmonic_one(bond):
    """|<0|mu|1>|^2 is |d mu / dq|^2 / 2, and mechanical anharmonicity lowers it by what sqrt of the shift is."""
    atoms, wavenumber, modes = bond
    field = force_field(morse, atoms, wavenumber, modes)
    amplitude = np.sqrt(HBAR / (AMU_A2_PER_FS2 * 2.0 * np.pi * SPEED_OF_LIGHT * wavenumber[0]))  # Å sqrt(amu)
    mass = np.prod(atoms.get_masses()) / atoms.get_masses().sum()
    assert np.linalg.norm(field.first[:, 0]) == pytest.approx(amplitude / np.sqrt(mass), rel=1e-6)


def test_rotation_of_a_linear_molecule():
    atoms = ase.Atoms("OCO", [[0, 0, -1.16], [0, 0, 0], [0, 0, 1.16]])
    constants = np.sort(rotational_constants(atoms))
    assert constants[0] == 0.0
    np.testing.assert_allclose(constants[1:], 0.391, atol=1e-3)  # CO2, cm-1


def test_coriolis_constants_of_a_degenerate_bend():
    """The two bends of CO2 turn into each other about its axis: zeta = 1."""
    atoms = ase.Atoms("OCO", [[0, 0, -1.16], [0, 0, 0], [0, 0, 1.16]])
    m_c, m_o = atoms.get_masses()[1], atoms.get_masses()[0]
    shape = np.array([1.0, -2.0 * m_o / m_c, 1.0])
    bend = np.zeros((2, 3, 3))
    bend[0, :, 0] = bend[1, :, 1] = shape / np.sqrt((atoms.get_masses() * shape**2).sum())
    zeta = coriolis(atoms, bend)
    axis = int(np.argmin(rotational_constants(atoms)))
    assert abs(zeta[axis, 0, 1]) == pytest.approx(1.0)
    np.testing.assert_allclose(zeta, -zeta.transpose(0, 2, 1), atol=1e-12)


def test_one_mode_alone_is_solved_exactly(bond):
    """Both ways agree with the exact level of the bond; with a wall that no fourth order has they part."""
    atoms, wavenumber, modes = bond

    def stretched(moved):
        return np.array([np.linalg.norm(one.positions[1] - one.positions[0]) - LENGTH for one in moved])

    def energies(moved):
        return DEPTH * (1.0 - np.exp(-STEEPNESS * stretched(moved))) ** 2

    shift = wavenumber[0] ** 2 / (4.0 * DEPTH * EV_IN_CM)
    exact = exact_fundamentals(energies, atoms, wavenumber, modes)
    np.testing.assert_allclose(exact, wavenumber - 2.0 * shift, atol=1.0)
    field = force_field(morse, atoms, wavenumber, modes)
    expanded = perturbed_fundamentals(field.omega, field.cubic[0, 0], field.quartic[0, 0])
    np.testing.assert_allclose(expanded, exact, atol=1.0)
    soft = exact_fundamentals(lambda moved: np.maximum(energies(moved), 0.3), atoms, wavenumber, modes)
    assert abs(expanded - soft) > UNLIKE_FOURTH_ORDER


def test_harmonic_fundamentals_are_exact_on_the_grid():
    """Of every wavenumber alike, for a quadratic potential along the mode."""
    atoms, wavenumber = ase.Atoms("OH", [[0, 0, 0], [0, 0, LENGTH]]), np.array([200.0, 3900.0])
    modes = np.zeros((2, 2, 3))
    modes[:, 1, 2] = 1.0
    along = dimensionless(modes, wavenumber)[:, 1, 2].repeat(len(STEPS))

    def energies(moved):
        q = (np.array([one.positions[1, 2] for one in moved]) - LENGTH) / along
        return 0.5 * wavenumber.repeat(len(STEPS)) * q**2 / EV_IN_CM

    np.testing.assert_allclose(exact_fundamentals(energies, atoms, wavenumber, modes), wavenumber, rtol=3e-5)
