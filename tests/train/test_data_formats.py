"""What is read from ASE databases, QM9's archive, MD17's files and our own, and what is refused."""

import io
import os
import sqlite3
import tarfile

import ase.io
import h5py
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from hypothesis import given
from hypothesis import strategies as st
from methane_in_qm9 import methane

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.testing import assert_close
from painn_fast.train.data import SPLITS, ase_database, cache, hdf5, join, qm9, read_file, read_split, write_hdf5
from painn_fast.train.data.ase_database import plain
from painn_fast.train.data.frames import Frames
from painn_fast.train.settings import DataFile


def read(path, **options):
    return read_file(DataFile.parse({"file": path.name, **options}), path.parent)


def assert_same(one, other):
    """Structures and labels of two sets."""
    for name in ("numbers", "n_atoms", "pbc"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
    for name in ("positions", "cell", "charge", "spin"):
        assert_close(getattr(one, name), getattr(other, name), 1e-14, name)
    assert one.labels.keys() == other.labels.keys()
    for name, values in one.labels.items():
        np.testing.assert_allclose(values, other.labels[name], rtol=1e-14, err_msg=name)


# --- our own --------------------------------------------------------------------------------------------------------


def test_a_set_comes_back_from_our_own_file(arrays, write, tmp_path):
    arrays["polarizability"][3:] = np.nan
    path = write(arrays)
    parts = read_split(DataFile(file=path.name), tmp_path)
    write_hdf5(parts, tmp_path / "set.h5")
    again = read_split(DataFile(file="set.h5"), tmp_path)
    for name in SPLITS:
        assert_same(again[name], parts[name])
    whole = join(list(parts.values()))
    write_hdf5(whole, tmp_path / "whole.h5")
    assert_same(read(tmp_path / "whole.h5"), whole)
    assert "dipole e Ang (the file)" in again["train"].notes[0]


@pytest.mark.parametrize("damage", ["cut", "foreign", "text", "short"])
def test_a_broken_file_of_ours_is_an_error_that_names_it(arrays, write, tmp_path, damage):
    path = tmp_path / "set.h5"
    write_hdf5(read(write(arrays)), path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    elif damage == "text":
        path.write_text("text")
    elif damage == "foreign":
        with h5py.File(path, "w") as file:
            file["coordinates"] = np.zeros(3)
    else:
        with h5py.File(path, "a") as file:
            del file["charge"]
            file["charge"] = np.zeros(3)
    with pytest.raises(PaiNNFastError, match=r"set\.h5"):
        read(path)


# --- npz ------------------------------------------------------------------------------------------------------------


def test_published_files_of_md17_rmd17_and_sgdml_say_their_units(tmp_path, arrays, write):
    md17 = {"R": arrays["R"], "z": arrays["z"], "E": arrays["E"][:, None], "F": arrays["F"]}
    md17 |= {"name": "toy", "theory": "PBE", "md5": "0"}
    rmd17 = {"coords": arrays["R"], "nuclear_charges": arrays["z"], "energies": arrays["E"], "forces": arrays["F"]}
    rmd17 |= {"old_indices": np.arange(24), "old_energies": arrays["E"], "old_forces": arrays["F"]}
    sgdml = md17 | {"e_unit": "kcal/mol", "r_unit": "Ang", "type": "d", "lattice": 9 * np.eye(3)}
    for name, values in (("md17.npz", md17), ("rmd17.npz", rmd17), ("sgdml.npz", sgdml)):
        data = read(write(values, name))
        assert_close(data.labels["energy"], arrays["E"] * units.KCAL_PER_MOL, 1e-14, name)
        assert_close(data.labels["forces"], arrays["F"].reshape(-1, 3) * units.KCAL_PER_MOL, 1e-14, name)
        assert data.pbc.all() == (name == "sgdml.npz")
        assert "energy" in data.notes[0]


# --- ASE ------------------------------------------------------------------------------------------------------------


def frames(n=4):
    rng = np.random.default_rng(0)
    found = []
    for k in range(n):
        atoms = molecule(("H2O", "CH4", "NH3", "H2")[k % 4])
        atoms.calc = SinglePointCalculator(atoms, energy=float(k), forces=rng.normal(size=(len(atoms), 3)))
        found.append(atoms)
    return found


@pytest.mark.parametrize("name", ["set.traj", "set.db", "set.json", "set.other"])
def test_files_of_ase_have_its_units(tmp_path, name):
    path = tmp_path / name
    if name.endswith(("db", "json")):
        with connect(path) as database:
            for atoms in frames():
                database.write(atoms)
    else:
        ase.io.write(path, frames(), format="traj")
    data = read(path)
    assert data.n_atoms.tolist() == [3, 5, 4, 2]
    assert data.labels["energy"].tolist() == [0, 1, 2, 3]
    assert_close(data.labels["forces"], np.concatenate([atoms.get_forces() for atoms in frames()]), 1e-14)
    assert "forces eV/Ang (ASE's convention)" in data.notes[0]


def test_a_database_of_schnetpack_says_its_units(tmp_path):
    path, rng = tmp_path / "set.db", np.random.default_rng(0)
    rows = [
        {"energy": np.array([float(k)]), "forces": rng.normal(size=(n, 3)), "dipole_moment": rng.normal(size=(1, 3))}
        | {"polarizability": rng.normal(size=(3, 3)), "partial_charges": rng.normal(size=n), "cv": np.array([1.0 * k])}
        for k, n in enumerate((3, 5, 4))
    ]
    with connect(path) as database:
        for name, row in zip(("H2O", "CH4", "NH3"), rows, strict=True):
            database.write(molecule(name), data=row)
        declared = {"energy": "kcal/mol", "forces": "kcal/mol/Bohr", "dipole_moment": "Debye", "cv": "cal/mol/K"}
        declared |= {"polarizability": "a0 a0 a0", "partial_charges": ""}
        database.metadata = {"_property_unit_dict": declared, "_distance_unit": "Bohr", "atomrefs": {}}
    data = read(path)
    assert_close(data.positions[:3], molecule("H2O").positions * units.BOHR, 1e-14)
    assert_close(data.labels["energy"], np.arange(3.0) * units.KCAL_PER_MOL, 1e-14)
    force = units.KCAL_PER_MOL / units.BOHR
    assert_close(data.labels["forces"], np.concatenate([row["forces"] for row in rows]) * force, 1e-13)
    assert_close(data.labels["dipole"], np.concatenate([row["dipole_moment"] for row in rows]) * units.DEBYE, 1e-13)
    tensors = np.stack([row["polarizability"] for row in rows]) * units.BOHR**3
    assert_close(data.labels["polarizability"], tensors, 1e-13)
    assert data.labels["cv"].tolist() == [0, 1, 2]
    assert "left out, as their shape changes: partial_charges" in data.notes


@pytest.mark.parametrize(
    ("unit", "ours"),
    [("a0 a0 a0", "a0^3"), ("eV / Ang / Ang / Ang", "eV/Ang^3"), ("kcal/mol/Ang", "kcal/mol/Ang"), ("Debye", "Debye")],
)
def test_units_as_schnetpack_writes_them(unit, ours):
    assert plain(unit) == ours


@pytest.mark.parametrize("name", ["set.db", "set.json", "set.traj", "set.cif"])
def test_a_broken_file_of_ase_is_an_error_that_names_it(tmp_path, name):
    (tmp_path / name).write_bytes(b"SQLite format 3\0" + b"nothing" * 30)
    with pytest.raises(PaiNNFastError, match=rf"not a readable.*{name}"):
        read(tmp_path / name)


def test_a_damaged_row_of_a_database_is_named(tmp_path):
    path = tmp_path / "set.db"
    with connect(path) as database:
        for atoms in frames():
            database.write(atoms)
    with sqlite3.connect(path) as connection:
        connection.execute("update systems set positions = x'00' where id = 3")
    connection.close()
    with pytest.raises(PaiNNFastError, match=r"set\.db, after row 2"):
        ase_database.read(path)


# --- QM9 ------------------------------------------------------------------------------------------------------------


def archive(path, texts, mode="w:bz2"):
    with tarfile.open(path, mode) as file:
        for k, text in enumerate(texts, 1):
            info = tarfile.TarInfo(f"dsgdb9nsd_{k:06d}.xyz")
            info.size = len(text.encode())
            file.addfile(info, io.BytesIO(text.encode()))
    return path


def test_the_archive_of_qm9(tmp_path):
    path = archive(tmp_path / "dsgdb9nsd.xyz.tar.bz2", [methane(k, -40.0 - k) for k in range(1, 6)])
    data = read(path, keys={"energy": "u0"})
    assert_close(data.labels["energy"], (-40.0 - np.arange(1, 6)) * units.HARTREE, 1e-14)
    assert data.positions[1].tolist() == [0.0021504160, -6.0313176e-3, 0.0019761204]
    assert data.numbers.tolist() == [6, 1, 1, 1, 1] * 5
    assert_close(data.labels["homo"], np.full(5, -0.3877 * units.HARTREE), 1e-14)
    assert_close(data.labels["spatial_extent"], np.full(5, 35.3641 * units.BOHR**2), 1e-14)
    assert_close(data.labels["cv"], np.full(5, 6.469), 0.0)
    assert data.labels["dipole_magnitude"].tolist() == [0.0] * 5
    assert "energy = u0 Ha (QM9)" in data.notes[0]


def test_excluded_molecules_are_named_by_their_own_number(tmp_path):
    archive(tmp_path / "set.tar", [methane(k) for k in (1, 2, 4, 7)], "w")
    (tmp_path / "out.txt").write_text("3054 of them\n\n Index  SMILES\n     2   C   C\n     7   C   C\n")
    data = read(tmp_path / "set.tar", exclude="out.txt")
    assert data.frame.tolist() == [0, 2]
    assert data.name(1) == "set.tar, frame 2"
    (tmp_path / "out.txt").write_text("nothing")
    with pytest.raises(PaiNNFastError, match=r"no numbers.*out\.txt"):
        read(tmp_path / "set.tar", exclude="out.txt")
    with pytest.raises(PaiNNFastError, match=r"cannot read.*none\.txt"):
        read(tmp_path / "set.tar", exclude="none.txt")


def test_a_folder_of_qm9(tmp_path):
    folder = tmp_path / "qm9"
    folder.mkdir()
    for k in (2, 1):
        (folder / f"dsgdb9nsd_{k:06d}.xyz").write_text(methane(k))
    assert qm9.read(folder).index.tolist() == [1, 2]
    assert len(read_file(DataFile(file="qm9", keys={"energy": "u0"}), tmp_path)) == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(PaiNNFastError, match=r"a folder.*empty"):
        read_file(DataFile(file="empty"), tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "five\n",
        methane(2)[:300],
        *(
            methane(2).replace(*words)
            for words in (("13.21", "thirteen"), ("gdb", "xyz"), ("\t6.469", ""), ("C\t", "Xq\t"))
        ),
    ],
)
def test_a_broken_molecule_of_qm9_is_named(tmp_path, text):
    path = archive(tmp_path / "set.tar.gz", [methane(1), text], "w:gz")
    with pytest.raises(PaiNNFastError, match=r"not a molecule of QM9.*set\.tar\.gz, dsgdb9nsd_000002\.xyz"):
        read(path)


@given(st.floats(0, 0.999))
def test_a_cut_archive_is_an_error_or_has_lost_no_molecule(tmp_path_factory, share):
    path = archive(tmp_path_factory.mktemp("cut") / "set.tar.bz2", [methane(k) for k in range(1, 40)])
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    try:
        count, text = len(qm9.read(path)), path.name
    except PaiNNFastError as error:
        count, text = 39, str(error)
    assert count == 39
    assert "set.tar.bz2" in text


def test_a_flat_file_with_a_table_of_properties(tmp_path):
    """In the layout of a subset of QM9 that is often passed on; the numbers are made up."""
    np.savez(
        tmp_path / "flat.npz", n_atoms=np.array([3, 2], dtype=np.uint8), Z=np.array([8, 1, 1, 6, 8], dtype=np.uint8),
        R=np.arange(15.0).reshape(5, 3), props=np.array([[1.5, -0.25, -76.5], [0.5, -0.5, -113.25]]),
        prop_names=np.array(["mu", "homo", "u0"]), units=np.array("mu D; homo,u0 Ha"), split=np.array([0, 2]),
        split_names=np.array(["train", "validation", "test"]), theory=np.array("B3LYP/6-31G(2df,p)"),
    )  # fmt: skip
    data = read(tmp_path / "flat.npz", keys={"energy": "u0"})
    assert data.n_atoms.tolist() == [3, 2]
    assert_close(data.labels["energy"], np.array([-76.5, -113.25]) * units.HARTREE, 1e-14)
    assert_close(data.labels["homo"], np.array([-0.25, -0.5]) * units.HARTREE, 1e-14)
    assert_close(data.labels["dipole_magnitude"], np.array([1.5, 0.5]) * units.DEBYE, 1e-14)
    assert "energy = u0 Ha (the file)" in data.notes[0]


def test_the_flat_subset_of_qm9(shared_data):
    data = read(shared_data / "qm9_subset.npz", keys={"energy": "u0"})
    assert len(data) == 15800
    assert data.labelled("energy") == data.labelled("homo") == data.labelled("dipole_magnitude") == 15800
    assert -700 * units.HARTREE < data.labels["energy"].mean() < -300 * units.HARTREE
    assert "energy = u0 Ha (the file)" in data.notes[0]


# --- copies ---------------------------------------------------------------------------------------------------------


def test_a_slow_file_is_read_from_its_copy_until_it_changes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cache, "SLOW", -1.0)
    path, copy = tmp_path / "set.tar", tmp_path / "set.tar.cache.h5"
    archive(path, [methane(k, -40.0) for k in (1, 2)], "w")
    first = read(path, keys={"energy": "u0"})
    assert f"copy for faster reading: {copy}" in capsys.readouterr().err
    assert copy.is_file()
    monkeypatch.setattr(qm9, "read", None)
    assert_same(read(path, keys={"energy": "u0"}), first)
    assert read(path, keys={"energy": "u0"}).notes == first.notes
    monkeypatch.undo()
    archive(path, [methane(k, -41.0) for k in (1, 2, 3)], "w")
    assert read(path, keys={"energy": "u0"}).labels["energy"].tolist() == [-41.0 * units.HARTREE] * 3
    copy.write_bytes(b"damaged")
    assert len(read(path)) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_does_without_a_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SLOW", -1.0)
    archive(tmp_path / "set.tar", [methane(1)], "w")
    tmp_path.chmod(0o500)
    assert len(read(tmp_path / "set.tar")) == 1
    tmp_path.chmod(0o700)


def test_a_copy_that_cannot_be_written_is_reported(tmp_path, monkeypatch, capsys):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "SLOW", -1.0)
    monkeypatch.setattr(cache.hdf5, "write_hdf5", refused)
    assert len(read(archive(tmp_path / "set.tar", [methane(1)], "w"))) == 1
    assert "no copy for faster reading: Permission denied" in capsys.readouterr().err


def test_damaged_data_of_our_own_format_are_noticed(tmp_path):
    """Labels and units alike, by the hash of all that decides numbers."""
    structures = [molecule("H2O"), molecule("CH4")]
    numbers = np.concatenate([atoms.numbers for atoms in structures])
    frames = Frames(
        numbers=numbers,
        positions=np.concatenate([atoms.positions for atoms in structures]),
        n_atoms=np.array([3, 5]),
        arrays={"energy": np.array([-1.0, -2.0])},
        keys={"energy": ("energy",)},
        units={"length": "Ang"},
        array_units={"energy": ("eV", "the file")},
    )
    path = tmp_path / "data.h5"
    hdf5.write_hdf5(frames, path)
    assert hdf5.read(path).arrays["energy"].tolist() == [-1.0, -2.0]
    good = path.read_bytes()
    with h5py.File(path) as file:
        place = file["arrays/energy"].id.get_offset()
    path.write_bytes(good[: place + 1] + bytes([good[place + 1] ^ 8]) + good[place + 2 :])
    with pytest.raises(PaiNNFastError, match=r"a damaged data file.*data\.h5"):
        hdf5.read(path)
    path.write_bytes(good)
    with h5py.File(path, "r+") as file:
        file.attrs["array_units"] = file.attrs["array_units"].replace("eV", "Ha")
    with pytest.raises(PaiNNFastError, match="a damaged data file"):
        hdf5.read(path)
