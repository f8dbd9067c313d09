"""Units as files and settings declare them, and arrays of `.npz`."""

import base64

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from water_in_files import CELL, FORCES, P, read

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.io.structures import read_structures
from painn_fast.testing import assert_close


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
