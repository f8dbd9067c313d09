"""One structure in many spellings and formats: its values, units, and notes on what is not used."""

import base64
import re
import time

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.io.structures import read_structures
from painn_fast.label.structures import structures
from painn_fast.testing import assert_close
from painn_fast.train.data import comment_line, read_file
from painn_fast.train.settings import DataFile

FORCES = np.arange(1.0, 10.0).reshape(3, 3)
WATER = "O 0 0 0 1 2 3\nH 0 0 0.96 4 5 6\nH 0.93 0 -.24 7 8 9\n"
P = "Properties=species:S:1:pos:R:3:forces:R:3"
CELL = "5 0 0 0 6 0 0 0 7"


def read(path, **options):
    return read_file(DataFile.parse({"file": path.name, **options}), path.parent)


@pytest.fixture
def xyz(tmp_path):
    """Read a water molecule with this comment line, these rows and these settings."""

    def write(comment, rows=WATER, name="f.xyz", **options):
        (tmp_path / name).write_bytes(f"3\n{comment}\n{rows}".encode())
        return read(tmp_path / name, **options)

    return write


# --- extended XYZ ---------------------------------------------------------------------------------------------------

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


# --- charge and multiplicity ----------------------------------------------------------------------------------------

CHARGED = {"charge": 1, "total_charge": 1, "Charge": 1.0}
MULTIPLE = ["spin", "multiplicity", "spin_multiplicity"]


@pytest.mark.parametrize("charge", CHARGED)
@pytest.mark.parametrize("multiplicity", MULTIPLE)
@pytest.mark.parametrize("kind", ["xyz", "traj", "db", "data", "npz"])
def test_total_charge_and_multiplicity_by_all_names_in_all_formats(tmp_path, kind, charge, multiplicity):
    info = {charge: 1, multiplicity: 2}
    atoms = molecule("H2O")
    atoms.info |= info
    path = tmp_path / f"f.{'db' if kind == 'data' else kind}"
    if kind in ("db", "data"):
        with connect(path) as database:
            database.write(molecule("H2O"), **({"data": info} if kind == "data" else {"key_value_pairs": info}))
            database.write(molecule("CH4"))
    elif kind == "npz":
        arrays = {
            "R": atoms.positions[None],
            "z": atoms.numbers,
            "length_unit": "Ang",
            charge: [1],
            multiplicity: [2.0],
        }
        np.savez(path, **arrays)
    else:
        ase.io.write(path, [atoms, molecule("CH4")])
    data = read(path)
    assert data.charge.tolist() == [1, 0][: len(data)]
    assert data.spin.tolist() == [2, 1][: len(data)]
    assert f"total charge and multiplicity out of {charge}, {multiplicity}" in data.notes[1]


@pytest.mark.parametrize("kind", ["xyz", "traj", "db", "npz"])
def test_charges_and_moments_of_atoms_are_no_totals(tmp_path, kind):
    values = np.array([-0.8, 0.4, 0.4])
    atoms, path = molecule("H2O"), tmp_path / f"f.{kind}"
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, charges=values, magmoms=values)
    atoms.set_initial_charges(values)
    atoms.set_initial_magnetic_moments(values)
    if kind == "npz":
        length, energy = {"length_unit": "Ang"}, {"E": [1.0, 2.0], "energy_unit": "eV"}
        np.savez(
            path,
            R=np.stack([atoms.positions] * 2),
            z=atoms.numbers,
            charge=np.stack([values] * 2),
            spin=values,
            **length,
            **energy,
        )
    elif kind == "xyz":
        row = "O 0 0 0 -.8 0\nH 0 0 .96 .4 0\nH .93 0 -.24 .4 1\n"
        path.write_text(f"3\nProperties=species:S:1:pos:R:3:charge:R:1:spin:R:1 energy=1\n{row}" * 2)
    else:
        with connect(path) if kind == "db" else ase.io.Trajectory(path, "w") as file:
            for _ in range(2):
                file.write(atoms, **({"data": {"charge": values}} if kind == "db" else {}))
    data = read(path)
    assert data.charge.tolist() == [0, 0]
    assert data.spin.tolist() == [1, 1]
    assert any("not used" in note and "charge" in note for note in data.notes), data.notes


def test_lone_atoms_with_moments_have_no_multiplicity_of_them(tmp_path):
    (tmp_path / "f.xyz").write_text("1\nProperties=species:S:1:pos:R:3:spin:R:1 energy=1\nO 0 0 0 0.0\n" * 2)
    assert read(tmp_path / "f.xyz").spin.tolist() == [1, 1]


def test_charges_of_as_many_structures_as_atoms_are_a_question(tmp_path):
    path, atoms = tmp_path / "f.npz", molecule("H2O")
    arrays = {"R": np.stack([atoms.positions] * 3), "z": atoms.numbers, "length_unit": "Ang"}
    np.savez(path, **arrays, charge=[0, 1, 0])
    with pytest.raises(PaiNNFastError, match=r"of the structures, or of the atoms.*'charge'.*keys = \{ charge = "):
        read(path)
    assert read(path, keys={"charge": "charge"}).charge.tolist() == [0, 1, 0]
    assert read(path, keys={"charge": ""}).charge.tolist() == [0, 0, 0]
    np.savez(path, **arrays, charge=[[0], [1], [0]], Q=[2, 2, 2], spin=3)
    assert read(path).charge.tolist() == [0, 1, 0]
    assert read(path).spin.tolist() == [3, 3, 3]
    assert read(path, keys={"charge": "Q"}).charge.tolist() == [2, 2, 2]


def test_total_spin_is_a_question_that_the_settings_can_answer(xyz):
    with pytest.raises(PaiNNFastError, match=r"multiplicity 2S \+ 1\?.*f\.xyz, frame 0"):
        xyz(f"{P} energy=1 total_spin=1")
    assert xyz(f"{P} energy=1 total_spin=3", keys={"multiplicity": "total_spin"}).spin.tolist() == [3]
    assert xyz(f"{P} energy=1 total_spin=3", keys={"multiplicity": ""}).spin.tolist() == [1]
    with pytest.raises(PaiNNFastError, match="contradict"):
        xyz(f"{P} energy=1 charge=1 total_charge=2")


# --- units ----------------------------------------------------------------------------------------------------------


def text_array(name, values):
    """An array as SchNetPack 0.x kept it in a row."""
    values = np.asarray(values)
    text = base64.b64encode(values.tobytes()).decode()
    return {name: text, f"_shape_{name}": list(values.shape), f"_dtype_{name}": str(values.dtype)}


E, F = np.array([-2.0]), FORCES
DATABASES = {
    # data of a row, metadata's units, settings' units -> energy, forces, dipole in eV, eV/Å, e Å
    "kcal/mol": (
        {"energy": E, "forces": F},
        {"energy": "kcal/mol", "forces": "kcal/mol/Ang"},
        {},
        units.KCAL_PER_MOL,
        units.KCAL_PER_MOL,
    ),
    "spaces": (
        {"energy": E, "forces": F},
        {"energy": "kcal / mol", "forces": "kcal / mol / Ang"},
        {},
        units.KCAL_PER_MOL,
        units.KCAL_PER_MOL,
    ),
    "energy alone": ({"energy": E, "forces": F}, {"energy": "kcal/mol"}, {}, units.KCAL_PER_MOL, units.KCAL_PER_MOL),
    "empty": ({"energy": E, "forces": F}, {"energy": "Hartree", "forces": None}, {}, units.HARTREE, units.HARTREE),
    "a number": ({"energy": E, "forces": F}, {"energy": 2.0, "forces": 1.0, "other": 1.0}, {}, 2.0, 1.0),
    "a number alone": ({"energy": E, "forces": F}, {"energy": 2.0}, {}, 2.0, 2.0),
    "atomic": (
        {"energy": E, "forces": F},
        {"energy": "Ha", "forces": "Hartree/Bohr"},
        {},
        units.HARTREE,
        units.HARTREE / units.BOHR,
    ),
    "float32": (
        {"energy": E.astype("f4"), "forces": F.astype("f4")},
        {"energy": "eV", "forces": "eV/Ang"},
        {},
        1.0,
        1.0,
    ),
    "texts": (
        {**text_array("energy", E), **text_array("forces", F.astype("f4"))},
        None,
        {"energy": "kcal/mol"},
        units.KCAL_PER_MOL,
        units.KCAL_PER_MOL,
    ),
    "settings": ({"energy": E, "forces": F}, None, {"energy": "eV"}, 1.0, 1.0),
}


@pytest.mark.parametrize("name", DATABASES)
def test_labels_of_databases_have_the_units_that_are_stated(tmp_path, name):
    data, metadata, declared, energy, forces = DATABASES[name]
    with connect(tmp_path / "f.db") as database:
        database.write(molecule("H2O"), data=data)
        if metadata is not None:
            database.metadata = {"_property_unit_dict": metadata, "_distance_unit": "Ang", "atomrefs": {}}
    found = read(tmp_path / "f.db", units=declared)
    assert_close(found.labels["energy"], E * energy, 1e-14)
    assert_close(found.labels["forces"], F * forces, 1e-14)


@pytest.mark.parametrize("data", [{"energy": E}, text_array("energy", E), {"energy": E, "forces": F}])
@pytest.mark.parametrize("metadata", [{}, {"atomrefs": {}}, {"_property_unit_dict": {}, "_distance_unit": "Ang"}])
def test_data_of_a_row_without_a_unit_is_a_question(tmp_path, data, metadata):
    with connect(tmp_path / "f.db") as database:
        database.write(molecule("H2O"), data=data)
        database.metadata = metadata
    with pytest.raises(PaiNNFastError, match=r"missing unit of energy.*f\.db.*units\.energy"):
        read(tmp_path / "f.db")


def test_what_ase_defines_and_what_it_does_not_in_one_file(tmp_path):
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=FORCES, dipole=[0.0, 0, 1])
    for path in (tmp_path / "f.db", tmp_path / "f.json"):
        with connect(path) as database:
            database.write(atoms, gap=3.0, data={"energy": -23.0, "forces": 23 * FORCES, "mu": [0, 0, 2.0]})
            database.metadata = {"key_descriptions": {"gap": ["Gap", "", "Ha"]}}
        found = read(path)
        assert found.labels["energy"].tolist() == [-1.0]
        assert_close(found.labels["forces"], FORCES, 0.0)
        assert found.labels["dipole"].tolist() == [[0, 0, 1]]
        assert_close(found.labels["gap"], np.array([3 * units.HARTREE]), 1e-14)
        assert any("data.energy" in note and "data.forces" in note for note in found.notes)
        own = read(path, keys={"energy": "data.energy", "forces": "data.forces"}, units={"energy": "kcal/mol"})
        assert_close(own.labels["forces"], 23 * FORCES * units.KCAL_PER_MOL, 1e-14)
        with connect(path) as database:
            database.write(molecule("H2O"), data={"energy": -23.0})
        with pytest.raises(PaiNNFastError, match="missing unit of energy"):
            read(path)


def test_numbers_beside_structures_of_ase_need_a_unit(tmp_path):
    atoms = molecule("H2O")
    atoms.info["energy"] = -1.0
    ase.io.write(tmp_path / "f.traj", atoms)
    with pytest.raises(PaiNNFastError, match="missing unit of energy"):
        read(tmp_path / "f.traj")
    assert read(tmp_path / "f.traj", units={"energy": "Ha"}).labels["energy"].tolist() == [-units.HARTREE]


@pytest.mark.parametrize("name", ["f.xyz", "f.traj", "f.db", "f.json"])
def test_forces_are_those_without_constraints_applied(tmp_path, name):
    atoms = molecule("H2O")
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=FORCES)
    if name.endswith(("db", "json")):
        with connect(tmp_path / name) as database:
            database.write(atoms)
    else:
        ase.io.write(tmp_path / name, atoms)
    assert_close(read(tmp_path / name).labels["forces"], FORCES, 1e-7)


@pytest.mark.parametrize(
    ("kind", "name", "size"),
    [
        ("energy", "kcal / mol", units.KCAL_PER_MOL),
        ("energy", "kcal mol-1", units.KCAL_PER_MOL),
        ("force", "kcal / mol / Ang", units.KCAL_PER_MOL),
        ("force", "eV*Å^-1", 1.0),
        ("force", "Hartree/a0", units.HARTREE / units.BOHR),
        ("stress", "eV/Ang/Ang/Ang", 1.0),
        ("stress", "GPa", 1 / 160.21766208),
        ("dipole", "eAng", 1.0),
        ("dipole", "eBohr", units.BOHR),
        ("dipole", "e·Å", 1.0),
        ("polarizability", "a0 a0 a0", units.BOHR**3),
        ("polarizability", "bohr3", units.BOHR**3),
        ("area", "a0**2", units.BOHR**2),
        ("length", "a.u.", units.BOHR),
    ],
)
def test_units_as_products_and_quotients(kind, name, size):
    assert units.factor(kind, name) == pytest.approx(size, rel=1e-8)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("energy", "kcal"),
        ("energy", "eV/Ang"),
        ("dipole", "Ang"),
        ("force", "eV"),
        ("time", "a.u."),
        ("energy", ""),
        ("energy", "/"),
        ("energy", "eV" * 100),
    ],
)
def test_units_of_something_else_are_refused(kind, name):
    with pytest.raises(PaiNNFastError, match=f"unknown unit of {kind}"):
        units.factor(kind, name)


# --- cells and everything else of npz -------------------------------------------------------------------------------


def test_cells_of_npz(tmp_path):
    path, atoms = tmp_path / "f.npz", Atoms("OH", [[0, 0, 0], [0, 0, 1.0]])
    arrays = {"R": np.stack([atoms.positions] * 4), "z": atoms.numbers, "length_unit": "Ang"}
    cell = np.array([[5.0, 0, 0], [1, 6, 0], [2, 3, 7]])
    for more, pbc in (
        ({"cell": cell}, [1, 1, 1]),
        ({"cell": np.stack([cell] * 4), "pbc": [True, True, False]}, [1, 1, 0]),
        ({"lattice": cell.T}, [1, 1, 1]),
        ({"cell": cell, "pbc": np.zeros((4, 3), dtype=bool)}, [0, 0, 0]),
    ):
        np.savez(path, **arrays, **more)
        data = read(path)
        assert_close(data.cell, np.stack([cell] * 4), 0.0)
        assert data.pbc.tolist() == [[bool(x) for x in pbc]] * 4
    for more, message in (
        ({"cell": cell[:2]}, r"wrong shape.*'cell'"),
        ({"lattice": cell[0]}, r"wrong shape.*'lattice'"),
        ({"lattice": 5.0}, r"wrong shape.*'lattice'"),
        ({"cell": cell, "pbc": "TTT"}, r"wrong shape.*'pbc'"),
        ({"cell": cell, "lattice": cell}, "two cells"),
        ({"pbc": [1, 1, 1]}, "periodic, but without a cell"),
    ):
        np.savez(path, **arrays, **more)
        with pytest.raises(PaiNNFastError, match=message):
            read(path)


def test_arrays_of_npz_that_are_not_used_are_noted(tmp_path):
    path, atoms = tmp_path / "f.npz", molecule("H2O")
    arrays = {"R": np.stack([atoms.positions] * 2), "z": atoms.numbers, "length_unit": "Ang", "energies": [1.0, 2.0]}
    np.savez(path, **arrays, energy_unit="eV", old_energies=[1.0, 2.0], note="a text", E_min=1.0, theory="PBE")
    data = read(path)
    assert data.labels["energy"].tolist() == [1.0, 2.0]
    assert data.notes[1] == "f.npz: not used: old_energies, E_min"


def test_a_unit_of_nothing_is_an_error_in_the_settings_and_a_note_of_a_file(xyz):
    with pytest.raises(PaiNNFastError, match=r"a unit of nothing.*units\.enrgy.*did you mean units\.energy"):
        xyz(f"{P} energy=1", units={"enrgy": "kcal/mol"})
    assert "f.xyz: not used: colour_unit" in xyz(f"{P} energy=1 colour_unit=nm").notes[-1]
    assert len(xyz(f"{P} energy=1 energy_unit=kcal/mol", units={"length": "Bohr", "dipole": "D"}).notes) == 1


@pytest.mark.parametrize(
    ("entry", "name"), [("energy_units=kcal/mol", "energy_units"), ("energy_Unit=kcal/mol", "energy_Unit")]
)
def test_a_unit_is_read_in_other_spellings_of_its_name(xyz, entry, name):
    data = xyz(f"{P} energy=1 {entry}")
    assert_close(data.labels["energy"], [units.KCAL_PER_MOL], 1e-14)
    assert not any(name in note for note in data.notes)


@pytest.mark.parametrize("entry", ["unit=kcal/mol", "Units=kcal/mol", "e_unit=kcal/mol", "distance_unit=Bohr"])
def test_a_unit_of_unknown_quantity_is_refused_unless_the_settings_declare_it(xyz, entry):
    with pytest.raises(PaiNNFastError, match=rf"a unit, but not of what.*{entry.split('=')[0]}.*units = "):
        xyz(f"{P} energy=1 {entry}")
    declared = {"length": "Bohr"} if "distance" in entry else {"energy": "kcal/mol"}
    assert_close(
        xyz(f"{P} energy=1 {entry}", units=declared).labels["energy"].max(),
        units.KCAL_PER_MOL if "energy" in declared else 1,
        1e-14,
    )


def test_structures_are_converted_from_the_unit_of_length_that_they_state(tmp_path):
    (tmp_path / "f.xyz").write_text('1\nLattice="9 0 0 0 9 0 0 0 9" length_unit=Bohr\nO 0 0 1\n')
    for _ in range(2):
        (atoms,) = read_structures(tmp_path / "f.xyz")
        assert_close(atoms.positions, [[0, 0, units.BOHR]], 1e-8)
        assert_close(np.array(atoms.cell), 9 * units.BOHR * np.eye(3), 1e-8)
        ase.io.write(tmp_path / "f.xyz", atoms)  # which is in Å, and states it
    (tmp_path / "f.xyz").write_text("1\nlength_unit=parsec\nO 0 0 1\n")
    with pytest.raises(PaiNNFastError, match=r"f\.xyz, frame 0, 'length_unit'.*parsec.*Ang"):
        read_structures(tmp_path / "f.xyz")


def test_a_number_of_units_is_no_unit(xyz):
    data = xyz(f"{P} energy=1 formula_units=4")
    assert data.labels["energy"].tolist() == [1.0]
    assert "not used: formula_units" in data.notes[-1]


def test_a_unit_of_unknown_quantity_is_refused_in_other_formats(tmp_path):
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    with ase.db.connect(tmp_path / "f.db") as database:
        database.write(atoms, unit="kcal/mol")
    with pytest.raises(PaiNNFastError, match="a unit, but not of what"):
        read(tmp_path / "f.db")
    arrays = {"z": [8, 1, 1], "R": np.zeros((2, 3, 3)) + np.eye(3), "E": np.zeros(2), "length_units": "Ang"}
    np.savez(tmp_path / "f.npz", **arrays, energy_units="kcal/mol")
    assert "energy = E kcal/mol (the file)" in read(tmp_path / "f.npz").notes[0]
    np.savez(tmp_path / "f.npz", **arrays, units="kcal/mol")
    with pytest.raises(PaiNNFastError, match="missing unit of energy"):
        read(tmp_path / "f.npz")


def test_other_files_of_ase_note_what_is_left_out(tmp_path):
    atoms = molecule("H2O", cell=[5, 6, 7], pbc=True)
    for name in ("POSCAR", "f.cif", "f.gen", "f.xyz.gz"):
        ase.io.write(tmp_path / name, atoms)
        data = read(tmp_path / name)
        assert data.labels == {}
        assert data.pbc.all()
    atoms.info |= {"energy_unit": "kcal/mol", "split": "test", "total_charge": 1}
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=FORCES, charges=[0.5, 0.25, 0.25])
    ase.io.write(tmp_path / "f.xyz.gz", [atoms] * 2)
    data = read(tmp_path / "f.xyz.gz")
    assert_close(data.labels["energy"], np.full(2, units.KCAL_PER_MOL), 1e-14)
    assert data.charge.tolist() == [1, 1]
    assert any("charge of atoms" in note or "charges (of atoms)" in note for note in data.notes)


def test_what_ase_defines_says_no_unit_of_arrays_that_the_settings_choose(xyz):
    """Not of other forces, and nothing at all where there is no energy."""
    rows = "Properties=species:S:1:pos:R:3:REF_forces:R:3"
    for comment, keys, label in (
        (f"{rows} energy=1", {"forces": "REF_forces"}, "forces"),
        (f'{rows} tension="{CELL}"', {"stress": "tension"}, "stress"),
        (f"{rows} REF_energy=1", {"energy": "REF_energy"}, "energy"),
    ):
        with pytest.raises(PaiNNFastError, match=f"missing unit of {label}"):
            xyz(comment, keys=keys)
    both = {"energy": "REF_energy", "forces": "REF_forces"}
    data = xyz(f"{rows} REF_energy=1", keys=both, units={"energy": "kcal/mol"})
    assert_close(data.labels["forces"], FORCES * units.KCAL_PER_MOL, 1e-14)
    data = xyz("Properties=species:S:1:pos:R:3:force:R:3 energy=1")
    assert "forces = force eV/Ang (ASE's convention)" in data.notes[0]
    with pytest.raises(PaiNNFastError, match="a virial is no stress"):
        xyz(f'{P} energy=1 virial="{CELL}"', keys={"stress": "virial"}, units={"energy": "eV"})


def test_a_charge_or_multiplicity_that_is_none_can_be_left_out(xyz):
    with pytest.raises(PaiNNFastError, match=r'not a spin multiplicity.*got: 0\.0.*multiplicity = "\.\.\."'):
        xyz(f"{P} energy=1 spin=0")
    data = xyz(f"{P} energy=1 spin=0", keys={"spin": ""})
    assert data.spin.tolist() == [1]
    assert "f.xyz: not used: spin" in data.notes


# --- what contradicts itself, and what is no element ------------------------------------------------------------------


def test_forces_beside_an_energy_with_a_unit_are_not_in_the_convention_of_ase(xyz):
    data = xyz(f'{P} energy=-1 energy_unit=kcal/mol stress="1 2 3 4 5 6" Lattice="{CELL}"')
    kcal = units.factor("energy", "kcal/mol")
    assert_close(data.labels["forces"], FORCES * kcal, 1e-12)
    assert_close(data.labels["stress"][0, 0, 0], kcal, 1e-12)
    assert "forces kcal/mol/Ang (the file)" in data.notes[0]
    assert_close(xyz(f"{P} energy=-1 energy_unit=Ha forces_unit=eV/Ang").labels["forces"], FORCES, 1e-12)


def test_an_atomic_number_of_no_element_is_refused(tmp_path):
    """A ghost atom of PySCF would be labelled silently; training and `painn-fast data` refuse it."""
    (tmp_path / "f.xyz").write_text("3\nenergy=-1\nO 0 0 0\nH 0 0 1\nX 0 1 0\n")
    with pytest.raises(PaiNNFastError, match=r"no element; where: .*frame 0, atom 2; got: 0; expected: 1 to 118"):
        structures(tmp_path / "f.xyz")
    positions = np.random.default_rng(0).random((2, 3, 3))
    declared = {"e_unit": "eV", "r_unit": "Ang", "R": positions, "E": np.zeros(2)}
    for z, match in (
        ([[8, 1, 1], [8, 1, 0]], r"no element; where: .*frame 1, atom 2"),  # padded
        ([-8, 1, 1], "no element"),
        ([200, 1, 1], "no element"),
        ([8.5, 1, 1], "not whole numbers"),
        ([np.nan, 1, 1], "not whole numbers"),
        (["O", "H", "H"], "not whole numbers"),
    ):
        np.savez(tmp_path / "f.npz", z=z, **declared)
        with pytest.raises(PaiNNFastError, match=match):
            structures(tmp_path / "f.npz")


def test_two_columns_of_elements_that_contradict_each_other_are_refused(xyz):
    with pytest.raises(PaiNNFastError, match=r"species and Z contradict each other; where: .*line 4; got: H 6"):
        xyz("Properties=species:S:1:Z:I:1:pos:R:3 energy=-1", "O 8 0 0 0\nH 6 0 0 1\nH 1 0 1 0\n")


def test_units_of_npz_as_bytes_or_in_an_array_and_twice(tmp_path):
    arrays = {"R": np.random.default_rng(0).random((2, 3, 3)), "z": [8, 1, 1], "E": np.ones(2)}
    np.savez(tmp_path / "f.npz", e_unit=np.bytes_(b"kcal/mol"), r_unit=np.array(["Ang"]), **arrays)
    assert_close(read(tmp_path / "f.npz").labels["energy"], np.full(2, units.factor("energy", "kcal/mol")), 1e-12)
    np.savez(tmp_path / "f.npz", e_unit="kcal/mol", energy_unit="eV", r_unit="Ang", **arrays)
    with pytest.raises(PaiNNFastError, match="two units of energy"):
        read(tmp_path / "f.npz")
    np.savez(tmp_path / "f.npz", e_unit="kcal/mole", r_unit="Ang", **arrays)
    with pytest.raises(PaiNNFastError, match=r"unknown unit of energy; where: .*f\.npz, unit by the file.*fix: "):
        read(tmp_path / "f.npz")
    np.savez(tmp_path / "f.npz", e_unit="eV", r_unit="Ang", charge=np.ones(2, dtype=bool), **arrays)
    with pytest.raises(PaiNNFastError, match="not one number a structure"):
        read(tmp_path / "f.npz")


def test_a_charge_that_is_no_number_is_refused_by_data_as_by_the_calculator(tmp_path):
    atoms = molecule("H2O")
    for value in (True, {"a": 1}):
        atoms.info["charge"] = value
        ase.io.write(tmp_path / "f.traj", atoms)
        with pytest.raises(PaiNNFastError, match=r"not a total charge; where: .*f\.traj, frame 0, 'charge'"):
            read(tmp_path / "f.traj")


def test_a_row_with_two_charges_is_refused(tmp_path):
    """Key-value pairs and data of one name; both readers of databases."""
    path = tmp_path / "f.db"
    with connect(path) as database:
        database.write(molecule("H2O"), total_charge=0, data={"total_charge": np.array([1.0])})
    for reader in (read, read_structures):
        with pytest.raises(PaiNNFastError, match=r"two values of total_charge; where: .*row 1"):
            reader(path)


def test_a_word_for_a_charge_in_xyz_is_not_dropped_without_a_word(tmp_path, capsys):
    atoms = molecule("H2O")
    atoms.info["charge"] = True
    ase.io.write(tmp_path / "f.xyz", atoms)
    assert "charge" not in read_structures(tmp_path / "f.xyz")[0].info
    assert "warning" in capsys.readouterr().err
    ase.io.write(tmp_path / "f.traj", atoms)
    assert read_structures(tmp_path / "f.traj")[0].info["charge"] is True  # refused by each use


def test_positions_of_a_database_with_a_number_as_its_unit(tmp_path):
    path = tmp_path / "f.db"
    with connect(path) as database:
        database.write(molecule("H2O"))
        database.metadata = {"_distance_unit": 0.5, "_property_unit_dict": {}}
    assert_close(read_structures(path)[0].positions, molecule("H2O").positions * 0.5, 1e-12)
    assert_close(read(path).positions, molecule("H2O").positions * 0.5, 1e-12)


def test_a_unit_that_some_frames_state_and_others_do_not_is_named(tmp_path):
    frame = "1\n{}energy=-1.0 Properties=species:S:1:pos:R:3\nH 0 0 0\n"
    (tmp_path / "set.xyz").write_text(frame.format("energy_unit=Ha ") + 2 * frame.format(""))
    data = read_file(DataFile(file="set.xyz"), tmp_path)
    assert any("energy_unit = Ha stands in 1 of 3 frames" in note for note in data.notes)
