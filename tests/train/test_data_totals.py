"""Total charge and multiplicity by their names in all formats, and what contradicts itself."""

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from water_in_files import CELL, FORCES, P, read

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.io.structures import read_structures
from painn_fast.label.structures import structures
from painn_fast.testing import assert_close
from painn_fast.train.data import read_file
from painn_fast.train.settings import DataFile

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
