"""What label writes is a training set as it is: numbers, units, level of theory, charge, spin, cell, masses, tags."""

from importlib.util import find_spec

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from force_fields import Morse

from painn_fast.cli import main
from painn_fast.graph.charge import charge_and_multiplicity
from painn_fast.io import load_model
from painn_fast.label import label
from painn_fast.label.methods import How
from painn_fast.label.output import FORMATS, write
from painn_fast.label.structures import structures
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.testing import assert_close
from painn_fast.train import TrainSettings, report
from painn_fast.train import run as train
from painn_fast.train.data import read_file
from painn_fast.train.data.hdf5 import write_hdf5
from painn_fast.train.settings import DataFile

UNITS = {
    "energy": "eV", "forces": "eV/Ang", "stress": "eV/Ang^3", "dipole": "e Ang", "polarizability": "Ang^3",
}  # fmt: skip
METHODS = [How("model:ethanol"), How("ase.calculators.emt:EMT"), How("tblite"), How("pyscf", "HF/STO-3G")]
NETWORK = {"n_features": 8, "n_layers": 1, "n_rbf": 5, "cutoff": 3.0}


def hydroxide(n=12):
    """OH- with a deuterium and tags, a constraint and a guess of charges that are not to be labels."""
    rng, frames = np.random.default_rng(0), []
    for _ in range(n):
        atoms = molecule("OH", masses=[15.999, 2.014], tags=[7, 3])
        atoms.positions += rng.uniform(-0.1, 0.1, (2, 3))
        atoms.info["total_charge"] = -1
        atoms.set_initial_charges([0.5, 0.25])
        atoms.set_constraint(FixAtoms([0]))
        frames.append(atoms)
    return frames


def copper(n=12):
    """Crystals in cells of different sizes."""
    frames = []
    for k in range(n):
        frames.append(bulk("Cu", "fcc", a=3.4 + 0.03 * k, cubic=True))
        frames[-1].rattle(0.05, seed=k)
    return frames


def read(path):
    return read_file(DataFile(file=path.name), path.parent)


def check(path, frames, labels, theory):
    """A file holds these labels of these structures, and says all that there is to say of them."""
    data, back = read(path), structures(path)
    for name in {name for entry in labels for name in entry}:
        expected = [np.asarray(entry[name], dtype=float) for entry in labels]
        if name == "stress":
            expected = [values[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]] for values in expected]
        got = data.labels[name].reshape(np.shape(expected) if name != "forces" else (-1, 3))
        # a file of text has positions and forces with 8 digits
        assert_close(got, np.concatenate(expected) if name == "forces" else expected, 1e-6, f"{path.name}, {name}")
        assert data.units[name] == UNITS[name]
    assert data.theory == (theory,)
    assert any(f"level of theory: {theory}" in note for note in data.notes)
    assert not any("masses" in note or "tags" in note for note in data.notes)
    for k, (atoms, found) in enumerate(zip(frames, back, strict=True)):
        assert_close(found.positions, atoms.positions, 1e-7)
        assert_close(found.cell.array, atoms.cell.array, 1e-12)
        assert_close(data.cell[k], atoms.cell.array, 1e-12)
        assert (found.pbc == atoms.pbc).all()
        assert (data.pbc[k] == atoms.pbc).all()
        assert_close(found.get_masses(), atoms.get_masses(), 1e-7)
        assert (found.get_tags() == atoms.get_tags()).all()
        charge = atoms.info.get("total_charge", 0)
        assert (data.charge[k], data.spin[k]) == (charge, 1)
        assert found.info.get("charge", 0) == charge
        assert not found.constraints


def train_on(path, heads):
    n = len(structures(path))
    settings = {
        "name": "one", "output": str(path.parent / f"trained-{path.name}"), "data": [{"file": path.name}],
        "heads": [{"type": head} for head in heads], "representation": NETWORK, "batch_size": 4, "max_epochs": 1,
        "warmup_steps": 1, "threads": 1, "split": {"train": n - 2, "validation": 2},
    }  # fmt: skip
    return train(TrainSettings.parse(settings), data_folder=path.parent)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(report, "pictures", lambda *_: None)


@pytest.mark.parametrize("how", METHODS, ids=lambda how: how.method)
def test_labels_of_each_method_in_each_format_are_read_and_learned(how, tmp_path):
    if how.method in ("tblite", "pyscf") and not find_spec(how.method):
        pytest.skip(f"no {how.method}")
    frames, method = hydroxide(), how.make()
    labels = [method(atoms, k % 3 == 0 and how.method == "pyscf")
              for k, atoms in enumerate(frames)]  # fmt: skip
    for suffix in FORMATS:
        write(tmp_path / f"x{suffix}", frames, labels, how.theory)
        same = [{name: entry[name] for name in labels[1]} for entry in labels]
        check(tmp_path / f"x{suffix}", frames, same, how.theory)
        polarizability = read(tmp_path / f"x{suffix}").labels.get("polarizability")
        if "polarizability" in labels[0]:
            assert np.isfinite(polarizability[::3]).all()
            assert_close(polarizability[0], labels[0]["polarizability"], 1e-12)
    model = train_on(tmp_path / "x.xyz", ["energy", *(["dipole"] if "dipole" in labels[0] else [])])
    assert load_model(model).config.provenance["level_of_theory"] == how.theory


def test_the_verb_writes_it_and_other_verbs_read_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ase.io.write("in.extxyz", hydroxide(), write_results=False)
    labelled = label("in.extxyz", "x.npz", method="model:ethanol", workers=1, polarizability_every=0)
    method = How("model:ethanol").make()
    frames = structures("in.extxyz")
    for atoms in frames:
        atoms.info["total_charge"] = -1
    check(tmp_path / labelled, frames, [method(atoms, False) for atoms in frames], "model:ethanol")
    assert main(["data", "x.npz", "-o", "x.h5"]) == 0
    assert "level of theory: model:ethanol" in capsys.readouterr().out
    assert read(tmp_path / "x.h5").theory == ("model:ethanol",)
    assert structures("x.h5")[0].info == {"charge": -1}
    assert main(["eval", "ethanol", "x.npz"]) == 0
    assert main(["eval", "ethanol", "x.npz", "--properties", "energy"]) == 0
    capsys.readouterr()
    again = label("x.npz", "again.xyz", method="ase.calculators.emt:EMT", workers=1)
    assert read(tmp_path / again).theory == ("ase.calculators.emt:EMT",)


@pytest.mark.parametrize("how", [METHODS[1], METHODS[2]], ids=lambda how: how.method)
def test_labels_of_crystals_keep_their_cells_and_have_stress(how, tmp_path):
    if how.method == "tblite":
        pytest.importorskip("tblite")
    frames = copper(6)
    if how.method == "tblite":
        frames = [
            Atoms("H2", [[0, 0, 0], [0.1 * k, 0.2, 0.74]], cell=[3, 3.2, 3 + 0.1 * k], pbc=True) for k in range(6)
        ]
    labels = [how.make()(atoms, False) for atoms in frames]
    for suffix in FORMATS:
        write(tmp_path / f"x{suffix}", frames, labels, how.theory)
        check(tmp_path / f"x{suffix}", frames, labels, how.theory)
    assert {len(entry["stress"]) for entry in labels} == {6}
    write_hdf5(read(tmp_path / "x.npz"), tmp_path / "x.h5")
    check(tmp_path / "x.h5", frames, labels, how.theory)
    train_on(tmp_path / "x.npz", ["energy"])


def test_a_slab_keeps_its_open_direction(tmp_path):
    frames = [Atoms("Cu2", [[0, 0, 0], [1.8, 1.8, 0.1 * k]], cell=[3.6, 3.6, 15], pbc=(1, 1, 0)) for k in range(3)]
    labels = [{"energy": -1.0, "forces": np.ones((2, 3))}] * 3
    for suffix in FORMATS:
        write(tmp_path / f"x{suffix}", frames, labels, "none")
        check(tmp_path / f"x{suffix}", frames, labels, "none")


def test_labels_of_before_do_not_stay(tmp_path):
    """A structure that was labelled with a polarizability, and now is without."""
    atoms = molecule("H2O")
    first = {"energy": -1.0, "forces": np.zeros((3, 3)), "polarizability": np.eye(3)}
    write(tmp_path / "one.xyz", [atoms], [first], "one")
    write(tmp_path / "two.xyz", structures(tmp_path / "one.xyz"), [{"energy": -2.0, "forces": np.ones((3, 3))}], "two")
    data = read(tmp_path / "two.xyz")
    assert data.theory == ("two",)
    assert set(data.labels) == {"energy", "forces"}


def ion(**changes):
    """HOD+ with tags, in a slab."""
    atoms = Atoms("OHH", [[0, 0, 0], [0.97, 0, 0], [-0.24, 0.93, 0]], masses=[15.999, 1.008, 2.014], tags=[1, 2, 3])
    atoms.info.update(Charge=1, multiplicity=2)
    atoms.set_cell([7, 8, 9])
    atoms.pbc = (True, True, False)
    for name, value in changes.items():
        setattr(atoms, name, value)
    return atoms


def check_geometry(read_back, atoms):
    assert (read_back.numbers == atoms.numbers).all()
    assert_close(read_back.get_masses(), atoms.get_masses(), 1e-7)
    assert_close(read_back.cell.array, atoms.cell.array, 1e-12)
    assert (read_back.pbc == atoms.pbc).all()
    assert (read_back.get_tags() == atoms.get_tags()).all()
    assert {name.lower(): float(value) for name, value in read_back.info.items() if name != "time_fs"} in (
        {"charge": 1, "spin": 2}, {"charge": 1, "multiplicity": 2},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["x.xyz", "x.traj", "x.json"])
def test_a_run_keeps_the_geometry_from_structure_to_trajectory_to_structures(tmp_path, name):
    ion().write(tmp_path / name)
    settings = MDSettings(
        structure=str(tmp_path / name), ensemble="nve", duration="1 fs", positions_every="0.5 fs", model="none",
        output=str(tmp_path / "run"),
    )  # fmt: skip
    if name == "x.json":  # keys of a row are lower case letters with values of their own
        import ase.db

        (tmp_path / name).unlink()
        with ase.db.connect(tmp_path / name) as database:
            database.write(ion(info={}), charge=1, multiplicity=2)
    path = run(settings, force_field=Morse())
    for atoms in (*structures(path), *Trajectory(path).atoms(), *Trajectory(path).atoms(bead=0)):
        check_geometry(atoms, ion())
    Trajectory(path).write_extxyz(tmp_path / "out.xyz")
    for atoms in structures(tmp_path / "out.xyz"):
        check_geometry(atoms, ion())


def test_databases_in_bohr_are_read_in_angstrom(tmp_path):
    import ase.db

    with ase.db.connect(tmp_path / "x.db") as database:
        database.write(ion(info={}), data={"total_charge": np.array([1.0]), "spin_multiplicity": np.array([2.0])})
        database.metadata = {"_distance_unit": "Bohr", "_property_unit_dict": {}}
    (found,) = structures(tmp_path / "x.db")
    assert_close(found.positions, ion().positions * 0.529177, 1e-6)
    assert_close(found.cell.lengths(), np.array([7, 8, 9]) * 0.529177, 1e-6)
    assert charge_and_multiplicity(found.info, where="") == (1, 2)


def test_what_may_be_a_charge_under_another_name_is_asked_for(tmp_path, capsys):
    geometry = {"R": np.zeros((2, 1, 3)), "z": [1], "length_unit": "Ang"}
    np.savez(tmp_path / "q.npz", **geometry, Q=[1, 1])
    np.savez(tmp_path / "charge.npz", **geometry, charge=[[1], [1]], E=[0.0, 0.0], energy_unit="eV")
    assert structures(tmp_path / "q.npz")[0].info == {}
    assert "q.npz: Q is not read; if it is the charge" in capsys.readouterr().err.replace("\n", " ")
    assert structures(tmp_path / "charge.npz")[1].info == {"charge": 1}
    assert not capsys.readouterr().err


def test_none_of_ase_is_no_charge(tmp_path):
    atoms = molecule("H2O")
    atoms.info.update(charge=None, spin=None)
    ase.io.write(tmp_path / "x.xyz", atoms)
    assert charge_and_multiplicity(structures(tmp_path / "x.xyz")[0].info, where="") == (0, 1)


def test_select_writes_the_whole_geometry(tmp_path, monkeypatch):
    from painn_fast.io.model_file import save_model
    from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig
    from painn_fast.testing import random_potential

    monkeypatch.chdir(tmp_path)
    config = PotentialConfig(representation=RepresentationConfig(**NETWORK), heads=(EnergyHead(),))
    members = []
    for seed in (1, 2):
        save_model(random_potential(config, seed=seed).float(), f"{seed}.safetensors")
        members += ["--model", f"{seed}.safetensors"]
    frames = [ion(), ion(positions=ion().positions * 1.2)]
    write(tmp_path / "x.npz", frames, [{"energy": 0.0, "forces": np.zeros((3, 3))}] * 2, "none")
    assert main(["select", "x.npz", *members, "-n", "2", "--apart", "0.01", "-o", "chosen.xyz"]) == 0
    for atoms in structures("chosen.xyz"):
        del atoms.info["forces_spread"], atoms.info["candidate"]
        check_geometry(atoms, ion())
