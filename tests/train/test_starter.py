"""The configuration to start from is one that trains unchanged, on what a file holds, in every format."""

import json

import ase
import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from methane_in_qm9 import methane

from painn_fast.errors import PaiNNFastError
from painn_fast.testing import assert_close
from painn_fast.train import load_config, report, run
from painn_fast.train.data import read_split, write_hdf5
from painn_fast.train.settings import DataFile
from painn_fast.train.starter import starter


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(report, "pictures", lambda *_: None)


@pytest.fixture
def frames(arrays):
    """Structures with energy, forces, dipole, polarizability, a property of their own, and numbers that are none."""
    made = []
    for k, positions in enumerate(arrays["R"]):
        atoms = ase.Atoms(arrays["z"], positions)
        results = {"energy": arrays["E"][k], "forces": arrays["F"][k], "dipole": arrays["dipole"][k]}
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info = {"band gap": float(np.linalg.norm(positions[1])), "step": k, "time": 0.5 * k}
        made.append(atoms)
    return made


def write_database(path, frames):
    with connect(path) as database:
        for atoms in frames:
            database.write(atoms, key_value_pairs={"band_gap": atoms.info["band gap"], "step": atoms.info["step"]})


def write_ours(path, arrays):
    np.savez(path.with_suffix(".npz"), **arrays)
    write_hdf5(read_split(DataFile(file=path.with_suffix(".npz").name), path.parent), path)


def write_arrays(path, arrays):
    np.save(path, arrays["R"])
    np.save(path.with_name("gap.npy"), arrays["R"][:, 1, 0])


def write_qm9(path):
    path.mkdir()
    for k in range(1, 13):
        (path / f"dsgdb9nsd_{k:06d}.xyz").write_text(methane(k, -40.0 - 0.1 * k))


WRITE = {
    "set.xyz": lambda path, frames, arrays: ase.io.write(path, frames),
    "set.traj": lambda path, frames, arrays: ase.io.write(path, frames),
    "set.db": lambda path, frames, arrays: write_database(path, frames),
    "set.npz": lambda path, frames, arrays: np.savez(path, **arrays),
    "set.h5": lambda path, frames, arrays: write_ours(path, arrays),
    "set.npy": lambda path, frames, arrays: write_arrays(path, arrays),
    "qm9": lambda path, frames, arrays: write_qm9(path),
}
OPTIONS = {"set.npy": {"symbols": "O H H", "keys": {"gap": "gap.npy"}, "units": {"length": "Ang", "gap": "eV"}}}
LEARNED = {
    "set.xyz": {"energy", "forces", "dipole", "band_gap"},
    "set.traj": {"energy", "forces", "dipole", "band_gap"},
    "set.db": {"energy", "forces", "dipole", "band_gap"},
    "set.npz": {"energy", "forces", "dipole", "polarizability"},
    "set.h5": {"energy", "forces", "dipole", "polarizability"},
    "set.npy": {"gap"},
    "qm9": {"dipole_magnitude", "spatial_extent", "u0"},
}


@pytest.mark.parametrize("file", WRITE)
def test_what_a_file_holds_is_trained_by_the_file_that_is_written(file, frames, arrays, tmp_path, capsys):
    WRITE[file](tmp_path / file, frames, arrays)
    text, missing = starter(tmp_path / file, "mine", OPTIONS.get(file))
    assert missing == []
    (tmp_path / "mine.toml").write_text(text)
    network = {"n_features": 8, "n_layers": 1}
    changes = {"max_epochs": 1, "output": str(tmp_path / "mine"), "representation": network, "checks": "warn"}
    run(load_config(tmp_path / "mine.toml", changes), data_folder=tmp_path / file)
    table = json.loads((tmp_path / "mine" / "errors.json").read_text())["test"]
    assert set(table) == LEARNED[file]
    rows = capsys.readouterr().err.splitlines()
    start = rows.index("errors on the test set:")
    assert rows[start + 1].split() == ["property", "MAE", "standard", "error", "RMSE", "unit", "labels"]
    shown = {row.split()[0]: float(row.split()[1]) for row in rows[start + 2 : start + 2 + len(table)]}
    assert shown == {name: float(f"{entry['mae']:.4f}") for name, entry in table.items()}


def settings_of(text, tmp_path):
    (tmp_path / "mine.toml").write_text(text)
    return load_config(tmp_path / "mine.toml")


def test_names_of_a_user_are_heads_and_numbers_of_bookkeeping_are_not(frames, tmp_path):
    ase.io.write(tmp_path / "set.xyz", frames)
    text, _ = starter(tmp_path / "set.xyz", "mine")
    settings = settings_of(text, tmp_path)
    head = settings.heads[-1]
    assert (head.type, head.name, head.unit) == ("scalar", "band_gap", "unstated")
    assert settings.data[0].keys == {"band_gap": "band gap"}
    assert "# not learned: step, time" in text
    lengths = [np.linalg.norm(atoms.positions[1]) for atoms in frames]
    assert settings.loss["band_gap"] == pytest.approx(1 / np.var(lengths), rel=0.06)
    assert (settings.split.train, settings.split.validation) == (20, 2)


def test_a_property_that_grows_with_the_molecule_is_a_sum_and_one_that_does_not_is_a_mean(tmp_path):
    frames = [molecule(name) for name in ("CH4", "C2H6", "C3H8", "C2H4", "H2O", "CH3OH") * 3]
    for k, atoms in enumerate(frames):
        share = (atoms.numbers == 6).mean()
        atoms.info = {"size": len(atoms) + 0.01 * k, "share": share + 0.001 * k, "size_unit": "a0^3", "share_unit": "1"}
    ase.io.write(tmp_path / "set.xyz", frames)
    text, _ = starter(tmp_path / "set.xyz", "mine")
    heads = {head.name: (head.aggregation, head.unit) for head in settings_of(text, tmp_path).heads}
    assert heads == {"size": ("sum", "a0^3"), "share": ("mean", "1")}


def test_units_are_those_of_the_file_or_left_to_fill_in(arrays, write, tmp_path):
    del arrays["energy_unit"], arrays["dipole"]
    path = write(arrays, "set.npz")
    text, missing = starter(path, "mine")
    assert missing == ["energy"]
    settings = settings_of(text, tmp_path)
    assert settings.data[0].units == {"energy": "?"}
    with pytest.raises(PaiNNFastError, match=r"unknown unit of energy.*'\?'"):
        run(settings, data_folder=path)
    text, missing = starter(path, "mine", {"units": {"energy": "kcal/mol"}})
    assert missing == []
    assert settings_of(text, tmp_path).data[0].units == {"energy": "kcal/mol"}
    assert "# energy: 24 structures = E, kcal/mol" in text


def test_reference_labels_under_the_names_of_other_packages_are_found(frames, tmp_path):
    for atoms in frames:
        atoms.info = {"REF_energy": atoms.get_potential_energy()}
        atoms.arrays["REF_forces"] = atoms.get_forces()
        atoms.calc = None
    ase.io.write(tmp_path / "set.xyz", frames)
    text, missing = starter(tmp_path / "set.xyz", "mine")
    assert missing == ["energy"]
    assert settings_of(text, tmp_path).data[0].keys == {"energy": "REF_energy", "forces": "REF_forces"}


def test_charged_and_open_shell_structures_have_their_embedding(frames, tmp_path):
    for k, atoms in enumerate(frames):
        atoms.info = {"charge": k % 2, "spin": 1 + k % 2}
    ase.io.write(tmp_path / "set.xyz", frames)
    network = settings_of(starter(tmp_path / "set.xyz", "mine")[0], tmp_path).representation
    assert network.charge_embedding is not None
    assert network.spin_embedding is not None


def test_a_name_that_is_no_word_is_written_as_toml_has_it(arrays, write, tmp_path):
    path = write(arrays, 'a "b" \\ ü.npz')
    settings = settings_of(starter(path, 'a "b"')[0], tmp_path)
    assert settings.data[0].file == path.name
    assert settings.name == 'a "b"'


def test_a_file_without_labels_or_with_too_few_structures_is_an_error(arrays, write, tmp_path):
    bare = {"R": arrays["R"], "z": arrays["z"], "enrgy": np.zeros(len(arrays["R"]))}
    with pytest.raises(PaiNNFastError, match=r"no labels in this file; where: .*bare\.npz; got: .*enrgy.*--key"):
        starter(write(bare, "bare.npz"), "mine")
    few = {"R": arrays["R"][:2], "z": arrays["z"], "E": arrays["E"][:2], "energy_unit": "eV", "length_unit": "Ang"}
    with pytest.raises(PaiNNFastError, match=r"no structure for train.*2 structures"):
        starter(write(few, "few.npz"), "mine")


def test_a_set_of_many_structures_has_the_sizes_of_the_paper(tmp_path):
    n = 30_000
    positions = np.random.default_rng(0).normal(size=(n, 2, 3))
    np.savez(tmp_path / "set.npz", R=positions, z=[1, 1], E=positions[:, 0, 0], energy_unit="eV", length_unit="Ang")
    settings = settings_of(starter(tmp_path / "set.npz", "mine")[0], tmp_path)
    assert (settings.batch_size, settings.representation.n_features) == (100, 128)
    assert (settings.split.train, settings.split.validation, settings.max_epochs) == (24_000, 3_000, 125)
    assert_close(settings.learning_rate, 5e-4, 0.0)
