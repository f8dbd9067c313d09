"""What is read from XYZ files, with and without ASE's conventions."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given
from hypothesis import strategies as st
from water_in_files import P

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.testing import assert_close
from painn_fast.train.data import extxyz, read_file, read_split
from painn_fast.train.settings import DataFile


def read(path, **options):
    return read_file(DataFile.parse({"file": path.name, **options}), path.parent)


def split(path, **options):
    return read_split(DataFile.parse({"file": path.name, **options}), path.parent)


@pytest.fixture
def labelled(tmp_path):
    """Water and methane with energies, forces and dipoles, as ASE writes them."""
    rng = np.random.default_rng(0)
    frames = []
    for name in ("H2O", "CH4", "H2O"):
        atoms = molecule(name)
        atoms.rattle(0.05, rng=rng)
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=rng.normal(size=(len(atoms), 3)))
        atoms.info["mu"] = rng.normal(size=3)
        frames.append(atoms)
    ase.io.write(tmp_path / "set.xyz", frames)
    return tmp_path / "set.xyz", frames


def test_energies_and_forces_have_ases_units_and_others_the_declared_ones(labelled):
    path, frames = labelled
    data = read(path, units={"dipole": "D"})
    assert data.n_atoms.tolist() == [3, 5, 3]
    assert_close(data.positions, np.concatenate([atoms.positions for atoms in frames]), 1e-7)
    assert_close(data.labels["energy"], np.array([atoms.get_potential_energy() for atoms in frames]), 1e-7)
    assert_close(data.labels["forces"], np.concatenate([atoms.get_forces() for atoms in frames]), 1e-7)
    assert_close(data.labels["dipole"], np.array([atoms.info["mu"] for atoms in frames]) * units.DEBYE, 1e-7)
    assert not data.pbc.any()
    line = "set.xyz: length Ang (ASE's convention), energy eV (ASE's convention), forces eV/Ang (ASE's convention)"
    assert data.notes == (f"{line}, dipole = mu D (the settings)",)


def test_a_label_without_a_unit_is_an_error_also_where_ase_has_one_for_another_array(labelled, tmp_path):
    with pytest.raises(PaiNNFastError, match=r"missing unit of dipole.*set\.xyz.*units\.dipole"):
        read(labelled[0])
    (tmp_path / "water.xyz").write_text("1\npotential=-1.0 energy=2.0\nO 0 0 0\n")
    with pytest.raises(PaiNNFastError, match="missing unit of energy"):
        read(tmp_path / "water.xyz", keys={"energy": "potential"})
    own = read(tmp_path / "water.xyz", keys={"energy": "potential"}, units={"energy": "Ha"})
    assert own.labels["energy"][0] == -units.HARTREE


def test_a_frame_may_say_units(tmp_path):
    path = tmp_path / "set.xyz"
    path.write_text("1\nenergy=-1.0 energy_unit=kcal/mol\nO 0 0 0\n" * 2)
    assert_close(read(path).labels["energy"], np.full(2, -units.KCAL_PER_MOL), 1e-14)
    path.write_text("1\nenergy=-1.0 energy_unit=kcal/mol\nO 0 0 0\n1\nenergy=-1.0 energy_unit=eV\nO 0 0 0\n")
    with pytest.raises(PaiNNFastError, match=r"two units of energy.*set\.xyz, frame 1, line 5.*eV.*kcal/mol"):
        read(path)


def test_labels_that_some_frames_lack_are_missing(tmp_path):
    path = tmp_path / "set.xyz"
    path.write_text(
        "2\nenergy=-1.0\nO 0 0 0\nH 0 0 1\n1\nProperties=species:S:1:pos:R:3:forces:R:3\nO 0 0 0 1 2 3\n"
        "1\nenergy=-3.0\nO 0 0 0\n\n"
    )
    data = read(path)
    assert [data.labelled("energy"), data.labelled("forces")] == [2, 1]
    assert np.isnan(data.labels["energy"]).tolist() == [False, True, False]
    assert data.labels["forces"][2].tolist() == [1, 2, 3]


def test_a_split_may_stand_in_the_comments(tmp_path):
    path = tmp_path / "set.xyz"
    names = ("train", "validation", "test", "0", "2", "training")
    path.write_text("".join(f"1\nenergy={k} split={name}\nO 0 0 0\n" for k, name in enumerate(names)))
    parts = split(path)
    assert [part.labels["energy"].tolist() for part in parts.values()] == [[0, 3, 5], [1], [2, 4]]
    path.write_text("1\nenergy=1 split=tset\nO 0 0 0\n")
    with pytest.raises(PaiNNFastError, match="wrong split"):
        split(path)


def test_cells_are_read_and_can_be_overruled(tmp_path):
    path = tmp_path / "set.xyz"
    crystal = bulk("NaCl", "rocksalt", 5.6)
    crystal.calc = SinglePointCalculator(crystal, energy=-1.0, stress=np.arange(6.0))
    box = Atoms("O", [[1, 1, 1]], cell=[50, 50, 50], pbc=True)
    flat = Atoms("O", [[1, 1, 1]], cell=np.zeros((3, 3)))
    ase.io.write(path, [crystal, box, flat])
    data = read(path)
    assert data.pbc.all(axis=1).tolist() == [True, True, False]
    assert_close(data.cell[0], np.array(crystal.cell), 1e-7)
    assert data.labels["stress"][0].tolist() == [[0, 5, 4], [5, 1, 3], [4, 3, 2]]
    molecules = read(path, periodic=False)
    assert np.isnan(molecules.labels["stress"]).all()
    assert "stress of 1 structures is not used, as they are not periodic in three directions" in molecules.notes
    assert not molecules.pbc.any()
    with pytest.raises(PaiNNFastError, match=r"periodic, but without a cell.*set\.xyz, frame 2"):
        read(path, periodic=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "without structures"),
        ("no structure\n", "not a readable structure file.*frame 0, line 1.*no structure"),
        ("1\n\nO 0 0 0\n2\n\nO 0 0 0\n", "ends within a frame.*frame 1, line 4.*2 atoms"),
        ("1\n\nO 0 0 0\n2\n\nO 0 0 0\nH 0 zero 1\n", "not numbers.*frame 1, line 7.*0 zero 1"),
        ("1\n\nO 0 0\n", "too few columns.*frame 0, line 3"),
        ("1\n\nXq 0 0 0\n", "unknown element.*frame 0, line 3.*Xq"),
        ("1\nmu='1 2 3'\nO 0 0 0\n1\nmu='1 2'\nO 0 0 0\n", "another shape.*'mu', frame 1, line 5"),
        ("1\nLattice='1 2 3'\nO 0 0 0\n", "cannot read the cell.*frame 0, line 2"),
        ("1\nProperties=species:S:1:pos\nO 0 0 0\n", "cannot read Properties.*frame 0, line 2"),
        ("1\nProperties=species:S:1:momenta:R:3\nO 0 0 0\n", "no elements or no positions"),
        ("1\nenergy=nan\nO 0 0 nan\n", "positions are not finite.*frame 0"),
    ],
)
def test_an_invalid_file_is_an_error_that_names_frame_and_line(tmp_path, text, message):
    path = tmp_path / "invalid.xyz"
    path.write_text(text)
    with pytest.raises(PaiNNFastError, match=message) as caught:
        read(path)
    assert "invalid.xyz" in str(caught.value)


@given(st.binary(max_size=200) | st.text(alphabet="123 \nHOx=\"'.:RS-e", max_size=60).map(str.encode))
def test_whatever_bytes_end_in_frames_or_a_clear_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "any.xyz"
    path.write_bytes(content)
    try:
        count, text = len(extxyz.read(path)), path.name
    except PaiNNFastError as error:
        count, text = 1, str(error)
    assert count > 0
    assert "any.xyz" in text


WATER = """3
Lattice="0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0" Properties="species:S:1:pos:R:3" potential="-76.25" mu="-0.5 -0.0 0.25 " \
alpha="9.5 -0.0 0.125 -0.0 10.5 0.0 0.125 0.0 9.0 " beta="1.0 -0.0 2.0 "
O 0.066334 0.000000 0.003701
H -0.526383 -0.769327 -0.029366
H -0.526383 0.769327 -0.029366
""".replace("\\\n", "")
"""In the layout of a published set; the numbers are made up."""
BOXED = """2
Lattice="100.0 0.0 0.0 0.0 100.0 0.0 0.0 0.0 100.0" Properties=species:S:1:pos:R:3 dipole="-1.0 -0.5 -0.25" \
pol="8.0 -1.5 7.0 -1.5 9.0 -1.25 7.0 -1.25 6.0" pbc="T T T"
C       48.04110330      49.64011859      49.50314917
O       49.19111848      49.62955787      49.57269793
""".replace("\\\n", "")


def test_tensors_in_attributes_are_labels_and_a_cell_of_zeros_is_none(tmp_path):
    (tmp_path / "water.xyz").write_text(WATER * 3)
    keys = {"energy": "potential", "dipole": "mu", "polarizability": "alpha"}
    data = read(tmp_path / "water.xyz", keys=keys, units={"energy": "Ha", "dipole": "a.u.", "polarizability": "a.u."})
    assert [data.labelled(label) for label in keys] == [3] * 3
    assert not data.pbc.any()
    assert_close(data.labels["energy"], np.full(3, -76.25 * units.HARTREE), 1e-14)
    assert_close(data.labels["dipole"][1], np.array([-0.5, 0, 0.25]) * units.BOHR, 1e-14)
    alpha = np.array([[9.5, 0, 0.125], [0, 10.5, 0], [0.125, 0, 9]])
    assert_close(data.labels["polarizability"][2], alpha * units.BOHR**3, 1e-14)


def test_molecules_in_boxes_may_be_read_without_them(tmp_path):
    (tmp_path / "boxed.xyz").write_text(BOXED)
    options = {"keys": {"polarizability": "pol"}, "units": {"dipole": "a.u.", "polarizability": "a.u."}}
    assert not read(tmp_path / "boxed.xyz", **options, periodic=False).pbc.any()
    assert read(tmp_path / "boxed.xyz", **options).pbc.all()


@pytest.mark.parametrize("name", ["water_monomer", "water_dimer", "water_zundel"])
def test_the_real_sets_of_water_have_all_labels(shared_data, name):
    keys = {"energy": "potential", "dipole": "mu", "polarizability": "alpha"}
    declared = {"energy": "Ha", "dipole": "a.u.", "polarizability": "a.u."}
    data = read(shared_data / "tensors" / f"{name}.xyz", keys=keys, units=declared)
    assert [data.labelled(label) for label in keys] == [1000] * 3
    assert not data.pbc.any()
    assert_close(data.labels["polarizability"], data.labels["polarizability"].swapaxes(1, 2), 1e-5)


def test_the_real_set_of_molecules_in_boxes_may_be_read_without_them(shared_data):
    options = {"keys": {"polarizability": "pol"}, "units": {"dipole": "a.u.", "polarizability": "a.u."}}
    data = read(shared_data / "tensors" / "qm7b_1443.xyz", **options, periodic=False)
    assert len(data) == 1443
    assert not data.pbc.any()
    assert read(shared_data / "tensors" / "qm7b_1443.xyz", **options).pbc.all()


def test_arrays_in_files_of_their_own(tmp_path):
    rng = np.random.default_rng(0)
    positions, tensors = rng.normal(size=(5, 3, 3)), rng.normal(size=(5, 3, 3))
    np.save(tmp_path / "coord.npy", positions)
    np.save(tmp_path / "alpha.npy", tensors)
    options = {"symbols": "O H H", "keys": {"polarizability": "alpha.npy"}}
    declared = {"length": "Bohr", "polarizability": "a0^3"}
    data = read(tmp_path / "coord.npy", **options, units=declared)
    assert data.numbers.tolist() == [8, 1, 1] * 5
    assert_close(data.positions, positions.reshape(-1, 3) * units.BOHR, 1e-14)
    assert_close(data.labels["polarizability"], tensors * units.BOHR**3, 1e-14)
    assert len(split(tmp_path / "coord.npy", **options, units=declared, use_as="test")["test"]) == 5
    for wrong, text in (
        ({"symbols": None}, r"elements of the atoms are not specified.*coord\.npy.*symbols"),
        ({"symbols": "O H"}, r"wrong shape.*coord\.npy.*\(n, 2, 3\)"),
        ({"symbols": "O H Xq"}, "unknown element.*Xq"),
        ({"keys": {"polarizability": "beta.npy"}}, r"no such data file.*beta\.npy"),
    ):
        with pytest.raises(PaiNNFastError, match=text):
            read(tmp_path / "coord.npy", **(options | wrong), units=declared)
    np.save(tmp_path / "alpha.npy", tensors[1:])
    with pytest.raises(PaiNNFastError, match=r"wrong shape.*alpha\.npy.*5 rows, as coord\.npy"):
        read(tmp_path / "coord.npy", **options, units=declared)
    np.save(tmp_path / "alpha.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(PaiNNFastError, match=r"not a readable \.npy file.*alpha\.npy"):
        read(tmp_path / "coord.npy", **options, units=declared)


def test_the_real_pairs_of_arrays(shared_data):
    options = {"symbols": "C C O C O H H H H", "units": {"length": "Ang", "polarizability": "a0^3"}}
    for end, n in (("", 2000), ("_test", 500)):
        keys = {"polarizability": f"malonaldehyde_alpha{end}.npy"}
        data = read(shared_data / "tensors" / f"malonaldehyde_coord{end}.npy", keys=keys, **options)
        assert data.labelled("polarizability") == n


@pytest.mark.parametrize(
    ("comment", "kind"),
    [
        ("energy=-2 Hartree", "energy"),
        ("energy=-2 # energies in kcal/mol, positions in Å", "energy"),
        ("energy=-2 positions (bohr)", "length"),
        (f"energy=-2 {P} [Ha/Bohr]", "force"),
    ],
)
def test_a_unit_in_free_text_is_not_passed_over(xyz, comment, kind):
    with pytest.raises(PaiNNFastError, match=rf"a unit of {kind} in free text.*f\.xyz"):
        xyz(comment)
    declared = {"energy": "Ha", "forces": "Ha/Bohr", "length": "Bohr"}
    data = xyz(comment, units=declared if P in comment else {name: declared[name] for name in ("energy", "length")})
    assert data.labels["energy"] == pytest.approx(-2 * units.HARTREE)
    assert data.positions[1, 2] == pytest.approx(0.96 * units.BOHR)


@pytest.mark.parametrize("comment", ["energy=-2 eV, Å", "energy=-2 Au in gold", "energy=-2 step 5", "-76.4 Hartree"])
def test_free_text_that_contradicts_no_convention_is_noted(xyz, comment):
    assert any("text that is no key=value" in note for note in xyz(comment).notes)


def test_a_copy_for_faster_reading_keeps_units_in_free_text(xyz, tmp_path, monkeypatch):
    monkeypatch.setattr("painn_fast.train.data.cache.SLOW", -1.0)
    for _ in range(2):
        with pytest.raises(PaiNNFastError, match="in free text"):
            xyz("energy=-2 Hartree")
    assert (tmp_path / "f.xyz.cache.h5").is_file()


def test_a_full_disk_costs_the_copy_for_faster_reading_alone(xyz, monkeypatch, capsys):
    def full(*_):
        raise PaiNNFastError("no space for a file")

    monkeypatch.setattr("painn_fast.train.data.cache.SLOW", -1.0)
    monkeypatch.setattr("painn_fast.train.data.cache.hdf5.write_hdf5", full)
    assert xyz("energy=-2").labels["energy"] == -2
    assert "no copy for faster reading: no space" in capsys.readouterr().err
