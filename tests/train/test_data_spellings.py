"""One structure in many spellings of extended XYZ: its values, and notes on what is not used."""

import re
import time

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from water_in_files import CELL, FORCES, P, read

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.testing import assert_close
from painn_fast.train.data import comment_line, read_file
from painn_fast.train.settings import DataFile

ENERGIES = [
    "energy=-1.5",
    "energy = -1.5",
    "energy= -1.5",
    "energy =-1.5",
    "energy\t=\t-1.5 ",
    'energy="-1.5"',
    "energy='-1.5'",
    "energy={-1.5}",
    "energy=[-1.5]",
    "energy=-1.5E0",
    "energy=-15D-1",
    "energy=-15.d-1",
    '"energy"=-1.5',
    'text="a \\"quoted\\" b=c" energy=-1.5',
    "text='it=1' energy=-1.5",
    "empty= energy=-1.5",
    'empty="" energy=-1.5',
    "url=http://x?y=z energy=-1.5",
    "energy=-1.5\r",
]


@pytest.mark.parametrize("numbers", [True, False])
def test_units_of_forces_and_stress_follow_from_those_of_energy_and_length(tmp_path, numbers):
    """Energies per length and per volume, also where the units are numbers in eV and Å."""
    np.savez(
        tmp_path / "set.npz", R=np.random.default_rng(0).random((1, 2, 3)), z=[12, 8], E=np.ones(1),
        F=np.ones((1, 2, 3)), stress=np.ones((1, 3, 3)), lattice=8 * np.eye(3), pbc=np.ones(3, dtype=bool),
    )  # fmt: skip
    names = {"energy": "Ha", "length": "Bohr"}
    sizes = {"energy": repr(units.HARTREE), "length": repr(units.BOHR)}
    labels = read(tmp_path / "set.npz", units=sizes if numbers else names).labels
    assert_close(labels["forces"], np.full((2, 3), units.HARTREE / units.BOHR), 1e-14)
    assert_close(labels["stress"], np.full((1, 3, 3), units.HARTREE / units.BOHR**3), 1e-14)


def test_a_unit_that_the_file_states_of_forces_goes_over_one_that_follows_from_the_energy(tmp_path):
    R = np.random.default_rng(0).random((2, 3, 3))
    arrays = {"R": R, "z": [8, 1, 1], "E": np.ones(2), "F": np.ones((2, 3, 3)), "F_unit": "kcal/mol/Ang"}
    np.savez(tmp_path / "set.npz", **arrays)
    declared = {"energy": "eV", "length": "Ang"}
    data = read_file(DataFile(file="set.npz", units=declared), tmp_path)
    assert data.labels["forces"][0, 0] == pytest.approx(units.factor("energy", "kcal/mol"))
    data = read_file(DataFile(file="set.npz", units=declared | {"forces": "eV/Ang"}), tmp_path)
    assert data.labels["forces"][0, 0] == 1.0


@pytest.mark.parametrize("text", ENERGIES)
def test_energies_in_the_spellings_of_extended_xyz(xyz, text):
    data = xyz(f"{P} {text}")
    assert data.labels["energy"].tolist() == [-1.5]
    assert_close(data.labels["forces"], FORCES, 0.0)
    assert (
        data.notes[0]
        == "f.xyz: length Ang (ASE's convention), energy eV (ASE's convention), forces eV/Ang (ASE's convention)"
    )


PBC = {
    "": "TTT",
    'pbc="T T F"': "TTF",
    "pbc=T": "TTT",
    "pbc=F": "FFF",
    'pbc="1 1 0"': "TTF",
    "pbc=1": "TTT",
    "pbc=[1,0,1]": "TFT",
    "pbc={T F T}": "TFT",
    'pbc="true False TRUE"': "TFT",
    "pbc=TTF": "TTF",
    'PBC = "t t f"': "TTF",
}


@pytest.mark.parametrize("text", PBC)
@pytest.mark.parametrize(
    "lattice", [f'Lattice="{CELL}"', f"lattice = {{{CELL}}}", "Lattice=[[5,0,0],[0,6,0],[0,0,7.0]]"]
)
def test_cells_and_their_periodic_directions(xyz, text, lattice):
    data = xyz(f"{lattice} {P} energy=1 {text}")
    assert "".join("FT"[int(x)] for x in data.pbc[0]) == PBC[text]
    assert_close(data.cell[0], np.diag([5.0, 6.0, 7.0]), 0.0)
    assert len(data.notes) == 1, data.notes


@pytest.mark.parametrize("text", ["pbc=2", 'pbc="T T"', "pbc=maybe", 'Lattice="1 2 3"', "Lattice=T"])
def test_cells_that_cannot_be_read_are_errors(xyz, text):
    lattice = "" if "Lattice" in text else f'Lattice="{CELL}"'
    with pytest.raises(PaiNNFastError, match=r"cannot read the cell.*f\.xyz, frame 0, line 2"):
        xyz(f"{lattice} {P} energy=1 {text}")


def test_periodic_without_a_cell_is_read_as_a_molecule_with_a_note(xyz):
    data = xyz(f"{P} energy=1 pbc=T")
    assert not data.pbc.any()
    assert "f.xyz: periodic without a cell, read as a molecule, in 1 frames, first in frame 0" in data.notes
    assert len(xyz(f'{P} energy=1 pbc="F F F"').notes) == 1


@pytest.mark.parametrize(
    ("properties", "row"),
    [
        ("species:S:1:pos:R:3:forces:R:3", "{s} {p} {f}"),
        ("pos:R:3:species:S:1:forces:R:3", "{p} {s} {f}"),
        ("Z:I:1:pos:R:3:forces:R:3", "{z} {p} {f}"),
        ("symbols:S:1:positions:R:3:forces:R:3", "{s} {p} {f}"),
        ("numbers:I:1:positions:R:3:force:R:3", "{z} {p} {f}"),
        ("species:S:1:pos:R:3:tag:I:1:forces:R:3", "{s} {p} 1 {f}"),
        ("species:S:1:pos:R:3:move_mask:L:1:kind:S:2:forces:R:3", "{s} {p} T a b {f}"),
    ],
)
def test_columns_by_the_names_that_ase_knows(xyz, properties, row):
    text = ""
    for k, (s, z) in enumerate((("O", 8), ("H", 1), ("h", 1))):
        position = ("0 0 0", "0.d0 0 9.6D-1", "0.93 0 -.24")[k]
        text += "  " + row.format(s=s, z=z, p=position, f=" ".join(map(str, FORCES[k]))) + "  \r\n"
    data = xyz(f"energy=1 Properties={properties}", text)
    assert data.numbers.tolist() == [8, 1, 1]
    assert data.positions[1].tolist() == [0, 0, 0.96]
    assert_close(data.labels["forces"], FORCES, 0.0)
    notes = " ".join(data.notes[1:])
    assert [word in notes for word in ("tag", "move_mask", "kind")] == [
        word in properties for word in ("tag", "move_mask", "kind")
    ]


def test_cells_as_lines_after_the_atoms(tmp_path):
    (tmp_path / "f.xyz").write_text("1\n\nO 0 0 0\nVEC1 5 0 0\nVEC2 0 6 0\n\n1\nenergy=1\nO 0 0 0\n")
    data = read(tmp_path / "f.xyz")
    assert data.pbc.tolist() == [[True, True, False], [False] * 3]
    assert_close(data.cell[0], np.diag([5.0, 6.0, 0.0]), 0.0)
    (tmp_path / "f.xyz").write_text("1\n\nO 0 0 0\nVEC1 5 0\nVEC2 0 6 0\n")
    with pytest.raises(PaiNNFastError, match="cannot read the cell"):
        read(tmp_path / "f.xyz")


def test_absurd_numbers_of_atoms_are_errors(tmp_path):
    for head in ("9" * 5000, "9" * 19, "0", "-1", "3.0"):
        (tmp_path / "f.xyz").write_text(f"{head}\n\nO 0 0 0\n")
        with pytest.raises(PaiNNFastError, match="not a readable structure file"):
            read(tmp_path / "f.xyz")


def test_tensors_as_ase_writes_them_come_back(tmp_path):
    tensor, stress = np.array([[3.0, 1, 2], [1, 5, 4], [2, 4, 6]]), np.array([1.0, 2, 3, 4, 5, 6])
    atoms = molecule("H2O", cell=[5, 6, 7], pbc=True)
    atoms.info |= {"polarizability": tensor, "polarizability_unit": "Ang^3", "name": 'with "quotes" and = {braces}'}
    atoms.calc = SinglePointCalculator(atoms, energy=-1.5, forces=FORCES, stress=stress, dipole=[0.0, 0, 1])
    ase.io.write(tmp_path / "f.xyz", [atoms] * 2)
    ase.io.write(tmp_path / "f.traj", [atoms] * 2)
    for name in ("f.xyz", "f.traj"):
        data = read(tmp_path / name)
        assert_close(data.labels["polarizability"], np.stack([tensor] * 2), 1e-14, name)
        assert_close(data.labels["stress"][0], np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]]), 1e-14, name)
        assert data.labels["dipole"].tolist() == [[0, 0, 1]] * 2
        assert "dipole e Ang (ASE's convention)" in data.notes[0]
        assert "polarizability Ang^3 (the file)" in data.notes[0]
        assert f"{name}: not used: name" in data.notes


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("Cubic bulk silicon", "text that is no key=value, in 1 frames, first in frame 0: 'Cubic bulk silicon'"),
        (
            "i = 12, time = 6.000, E = -76.3",
            'not used: E, i, time; is E the energy. Then set keys = { energy = "E" } and its unit',
        ),
        (f"{P} REF_energy=-1.5", "not used: REF_energy; is REF_energy the energy?"),
        (f"{P} enrgy=-1.5", "is enrgy the energy?"),
        (f"{P} Energy=-1.5", "is Energy the energy?"),
        (f'{P} energy=-1.5 virial="{CELL}"', "is virial the stress?"),
        (f'{P} energy=-1.5 Dipole="0 0 1" config_type=bulk', "not used: Dipole, config_type; is Dipole the dipole?"),
        (f"{P} energy=-1.5 Q=1", 'is Q the charge?.* keys = { charge = "Q" }$'),
        (f"{P} energy=-1.5 converged", "text that is no key=value, in 1 frames, first in frame 0: 'converged'"),
        ("energy=-1.5", "columns of atoms that Properties does not name, in 1 frames, first in frame 0: '3 of them'"),
        (
            "Properties=species:S:1:pos:R:3:dft_forces:R:3 energy=1",
            r"not used: dft_forces \(of atoms\); is dft_forces the forces?",
        ),
        (
            "Properties=species:S:1:pos:R:3:energy:R:1:dipole:R:2 energy=1",
            r"not used: dipole \(of atoms\), energy of atoms",
        ),
    ],
)
def test_entries_that_are_not_used_are_noted(xyz, comment, message):
    notes = xyz(comment).notes[1:]
    assert any(re.search(message, note) for note in notes), notes


def test_notes_are_of_bounded_length(xyz):
    comment = " ".join(f"{'key' * 100}{k}=1" for k in range(1000)) + " word" * 1000
    assert max(map(len, xyz(f"{P} {comment}").notes)) < 1500


def test_a_label_that_is_no_number_and_a_key_with_two_values_are_errors(xyz):
    for text, message in (
        ("energy=low", r"not numbers.*'energy', frame 0, line 2.*low"),
        ("charge=plus", r"not numbers.*'charge'"),
        ("energy=1 energy=2", "two values of energy.*'1' and '2'"),
        (f'Lattice="{CELL}" Lattice="1 0 0 0 1 0 0 0 1"', "two values of Lattice"),
    ):
        with pytest.raises(PaiNNFastError, match=message):
            xyz(f"{P} {text}")
    assert "energy" not in xyz(f"{P} energy=None").labels


def test_a_hostile_comment_line_takes_linear_time():
    start = time.perf_counter()
    for text in ("a", "{", "[", '"', "\\", "=", " =", "a=", "'{[\"", "[]", '"\\', "a "):
        comment_line.parse(text * (100_000 // len(text)), "here")
    assert time.perf_counter() - start < 60.0
    with pytest.raises(PaiNNFastError, match="not a comment line"):
        comment_line.parse("a" * 2_000_000, "here")
