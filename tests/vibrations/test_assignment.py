import ase
import numpy as np
import pytest
from ase.build import molecule

from painn_fast.vibrations.assignment import bond, character, joined, mode_name
from painn_fast.vibrations.harmonic import normal_modes
from painn_fast.vibrations.internal_coordinates import b_matrix, bonds, coordinates

STIFFNESS = {"stretch": 50.0, "bend": 4.0, "out of plane": 3.0, "torsion": 0.1}  # eV/Å^2, eV/rad^2


def valence_force_field(atoms):
    """Hessian of springs along all internal coordinates, softer ones for angles and torsions."""
    found = coordinates(atoms)
    b = b_matrix(atoms, found)
    stiffness = np.array([STIFFNESS[c.kind] for c in found])
    return b.T @ (stiffness[:, None] * b)


def names(atoms):
    hessian = valence_force_field(atoms)
    wavenumber, modes = normal_modes(atoms, hessian)
    return wavenumber, [mode_name(shares) for shares in character(atoms, hessian, modes)]


@pytest.mark.parametrize(
    "name",
    ["H2O", "CH3CH2OH", "C6H6", "CO2", "C2H2", "HCN", "C2H4", "CH3CONH2", "cyclobutane", "N2H4", "CH3NO2", "SiH4"],
)
def test_internal_coordinates_span_all_vibrations(name):
    atoms = molecule(name)
    linear = name in ("CO2", "C2H2", "HCN")
    b = b_matrix(atoms, coordinates(atoms))
    assert np.linalg.matrix_rank(b, tol=1e-6) == 3 * len(atoms) - (5 if linear else 6)


def test_b_matrix_equals_finite_differences():
    atoms = molecule("CH3CONH2")
    atoms.rattle(0.05, rng=np.random.default_rng(1))
    found = coordinates(atoms)
    import torch

    def values(positions):
        return np.array([float(c.value(torch.tensor(positions))) for c in found])

    b = b_matrix(atoms, found)
    for k in range(0, 3 * len(atoms), 5):
        shift = np.zeros(3 * len(atoms))
        shift[k] = 1e-5
        shift = shift.reshape(-1, 3)
        slope = (values(atoms.positions + shift) - values(atoms.positions - shift)) / 2e-5
        assert b[:, k] == pytest.approx(slope, abs=1e-7)


def test_fragments_are_linked_by_their_closest_atoms():
    pair = molecule("H2O")
    other = molecule("H2O")
    other.positions += [0, 0, 3.0]
    both = pair + other
    links = [p for p in bonds(both) if (p[0] < 3) != (p[1] < 3)]
    assert len(links) == 1
    distances = both.get_all_distances()
    assert distances[links[0]] == pytest.approx(distances[:3, 3:].min())
    b = b_matrix(both, coordinates(both))
    assert np.linalg.matrix_rank(b, tol=1e-6) >= 6 + 4


def test_shares_of_a_mode_make_one():
    atoms = molecule("CH3CH2OH")
    hessian = valence_force_field(atoms)
    for shares in character(atoms, hessian, normal_modes(atoms, hessian)[1]):
        assert sum(shares.values()) == pytest.approx(1.0)
        assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_modes_of_ethanol_by_their_motion():
    _, found = names(molecule("CH3CH2OH"))
    assert found[-6:].count("C-H stretch") == 5
    assert found[-6:].count("O-H stretch") == 1
    assert {name for name in found if "stretch" in name} >= {"O-H stretch", "C-H stretch"}
    assert any(name in ("C-O stretch", "C-C stretch", "C-O/C-C stretch") for name in found[:-6])
    assert set(found[:2]) == {"C-C torsion", "C-O torsion"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("H2CO", {"C=O stretch", "C-H stretch"}),
        ("HCN", {"C-H stretch", "C≡N stretch"}),
        ("C2H4", {"C=C stretch", "C-H stretch"}),
        ("C2H2", {"C≡C stretch", "C-H stretch"}),
        ("H2O", {"O-H stretch", "O-H bend"}),
        ("NH3", {"N-H stretch", "N-H bend"}),
        ("SiH4", {"Si-H stretch", "Si-H bend"}),
    ],
)
def test_names_of_other_molecules(name, expected):
    assert expected <= set(names(molecule(name))[1])


def test_bond_orders_go_by_length():
    assert bond(molecule("CO"), 0, 1) == "C≡O"
    assert bond(ase.Atoms("OH", [[0, 0, 0], [0, 0, 0.97]]), 0, 1) == "O-H"
    assert bond(ase.Atoms("HO", [[0, 0, 0], [0, 0, 0.97]]), 0, 1) == "O-H"
    assert bond(ase.Atoms("OC", [[0, 0, 0], [0, 0, 1.42]]), 0, 1) == "C-O"
    assert bond(ase.Atoms("OC", [[0, 0, 0], [0, 0, 1.21]]), 0, 1) == "C=O"


def test_names_are_joined_in_one_order():
    assert joined(["C-C stretch", "C-O stretch"]) == "C-O/C-C stretch"
    assert joined(["C-O/C-C stretch", "C-C stretch"]) == "C-O/C-C stretch"
    assert mode_name({"C-H bend": 0.5, "C-C stretch": 0.2, "C-O stretch": 0.15, "O-H bend": 0.1}) == "C-O/C-C stretch"
    assert mode_name({"C-H bend": 0.8, "C-C stretch": 0.2}) == "C-H bend"
    assert mode_name({}) == "vibration"
