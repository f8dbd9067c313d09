"""What is read from an .npz file, and what is refused."""

import numpy as np
import pytest
import torch
from ase.build import molecule

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.testing import assert_close
from painn_fast.train.data import join, read_file, read_split
from painn_fast.train.data.dataset import Batches
from painn_fast.train.data.read import find_data
from painn_fast.train.settings import DataFile, SplitSizes

NAMES = ("energy", "forces", "dipole", "polarizability")


def read(path, **options):
    return read_split(DataFile.parse({"file": path.name, **options}), path.parent)


def whole(data):
    """All structures as one batch, and their labels."""
    return Batches(data, 5.0, NAMES)(np.arange(len(data)))


def test_labels_and_geometry_come_back_as_they_are_in_our_units(arrays, write):
    data = read(write(arrays))["train"]
    rows = arrays["split"] == 0
    batch, labels = whole(data)
    assert_close(batch.positions, arrays["R"][rows].reshape(-1, 3), 0.0, "positions")
    assert_close(labels["energy"], arrays["E"][rows], 0.0, "energy")
    assert_close(labels["forces"], arrays["F"][rows].reshape(-1, 3), 0.0, "forces")
    assert_close(labels["dipole"], arrays["dipole"][rows], 0.0, "dipole")
    assert_close(labels["polarizability"], arrays["polarizability"][rows], 0.0, "polarizability")


def test_units_of_the_file_are_converted(arrays, write):
    foreign = arrays | {
        "R": arrays["R"] / units.BOHR,
        "E": arrays["E"] / units.HARTREE,
        "F": arrays["F"] / (units.HARTREE / units.BOHR),
        "dipole": arrays["dipole"] / units.DEBYE,
        "polarizability": arrays["polarizability"] / units.BOHR**3,
        "energy_unit": "Ha",
        "length_unit": "Bohr",
        "dipole_unit": "D",
        "polarizability_unit": "Bohr^3",
    }
    own, other = (whole(read(write(values, name))["train"]) for values, name in ((arrays, "a.npz"), (foreign, "b.npz")))
    assert_close(other[0].positions, own[0].positions, 1e-14, "positions")
    for name, value in own[1].items():
        assert_close(other[1][name], value, 1e-14, name)


def test_the_settings_overrule_the_unit_of_the_file(arrays, write):
    path = write(arrays)
    own, other = (read(path, units=declared)["train"].labels["energy"] for declared in ({}, {"energy": "kcal/mol"}))
    assert_close(other, own * units.KCAL_PER_MOL, 1e-14)


@pytest.mark.parametrize("kind", ["energy", "length", "dipole", "polarizability"])
def test_a_unit_that_nobody_declares_is_an_error_that_the_settings_can_mend(arrays, write, kind):
    path = write(arrays | {f"{kind}_unit": None})
    with pytest.raises(PaiNNFastError, match=f"missing unit of {kind}.*{path.name}.*units.{kind}.*{kind}_unit"):
        read(path)
    unit = {"dipole": "D", "energy": "eV", "length": "Ang"}.get(kind, "Ang^3")
    assert len(read(path, units={kind: unit})["train"])


def test_an_unknown_unit_is_an_error_that_lists_the_known_ones(arrays, write):
    with pytest.raises(PaiNNFastError, match=r"unknown unit of energy.*furlong.*kcal/mol"):
        read(write(arrays | {"energy_unit": "furlong"}))


def test_missing_labels_stay_missing_and_rows_without_any_are_dropped(arrays, write):
    arrays["polarizability"][1:] = np.nan
    for name in ("E", "F", "dipole"):
        arrays[name][2] = np.nan
    arrays["F"][3] = np.nan
    data = read(write(arrays))["train"]
    assert len(data) == (arrays["split"] == 0).sum() - 1
    n = len(data)
    assert [data.labelled(name) for name in ("energy", "forces", "dipole", "polarizability")] == [n, n - 1, n, 1]


def test_keys_choose_arrays_and_an_empty_key_leaves_a_label_out(arrays, write):
    arrays["E_other"] = arrays["E"] + 7.0
    data = read(write(arrays), keys={"energy": "E_other", "forces": ""})["train"]
    assert_close(data.labels["energy"], arrays["E_other"][arrays["split"] == 0], 0.0)
    assert data.labelled("forces") == 0


def test_a_label_that_the_file_does_not_have_is_missing_and_a_key_that_it_does_not_have_an_error(arrays, write):
    path = write(arrays | {"dipole": None, "dipole_unit": None})
    assert read(path)["train"].labelled("dipole") == 0
    with pytest.raises(PaiNNFastError, match=r"missing array.*toy\.npz, 'mu'.*correct keys\.dipole"):
        read(path, keys={"dipole": "mu"})


def test_splits_stay_as_they_are(arrays, write):
    arrays["split"] = np.random.default_rng(1).permutation(arrays["split"])
    parts = read(write(arrays))
    for k, name in enumerate(("train", "validation", "test")):
        assert_close(parts[name].labels["energy"], arrays["E"][arrays["split"] == k], 0.0, name)


def test_without_a_split_the_seed_makes_one_of_all_rows(arrays, write):
    path = write(arrays | {"split": None})
    first, same, other = (
        [
            set(part.labels["energy"].tolist())
            for part in read_split(DataFile(file=path.name), path.parent, sizes=SplitSizes(seed=seed)).values()
        ]
        for seed in (0, 0, 1)
    )
    assert first == same
    assert first != other
    assert sorted(e for part in first for e in part) == sorted(arrays["E"].tolist())
    assert [len(part) for part in first] == [20, 2, 2]


def test_a_periodic_set_is_another_one_in_other_directions(arrays, write):
    cell = np.tile(10.0 * np.eye(3), (len(arrays["R"]), 1, 1))
    directions = {"bulk": [True] * 3, "slab": [True, True, False], "chain": [True, False, False]}
    paths = [write(arrays | {"cell": cell, "pbc": pbc}, f"{name}.npz") for name, pbc in directions.items()]
    every = [read_file(DataFile(file=path.name), path.parent) for path in paths]
    assert len({data.fingerprint() for data in every}) == 3


def test_files_of_different_molecules_join_into_one_set(arrays, write):
    pair = arrays | {"R": arrays["R"][:, :2], "z": arrays["z"][:2], "F": arrays["F"][:, :2]}
    data = join([read(write(arrays, "a.npz"))["test"], read(write(pair, "b.npz"))["test"]])
    batch, labels = whole(data.select([0, 5]))
    assert batch.n_atoms.tolist() == [3, 2]
    assert batch.numbers.tolist() == [8, 1, 1, 8, 1]
    assert labels["forces"].shape == (5, 3)
    assert torch.equal(batch.molecule, torch.tensor([0, 0, 0, 1, 1]))


def replaced(row, value):
    def change(array):
        array = array.astype(float)
        array.reshape(len(array), -1)[row, 0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("R", lambda a: None, "missing array.*'R'"),
        ("z", lambda a: None, "missing array.*'z'"),
        ("R", lambda a: a[:, :2], "wrong shape.*'R'"),
        ("R", replaced(5, np.nan), "positions are not finite.*frame 5"),
        ("E", lambda a: a[:-1], "wrong shape.*'E'"),
        ("F", lambda a: a[:, :, :2], "wrong shape.*'F'"),
        ("dipole", lambda a: a[:, :2], "wrong shape.*'dipole'"),
        ("polarizability", lambda a: a[:, 0], "wrong shape.*'polarizability'"),
        ("E", replaced(4, np.inf), "infinite label.*'E', frame 4"),
        ("z", lambda a: a + 0.5, "not whole numbers.*'z'.*8.5"),
        ("n_atoms", lambda a: np.full(24, 2.5), "not whole numbers.*'n_atoms'.*2.5"),
        ("pbc", lambda a: np.full((24, 3), 2), "not truth values.*'pbc'.*2"),
        ("pbc", lambda a: np.full(3, 0.5), "not truth values.*'pbc'.*0.5"),
        ("split", lambda a: a[:-1], "wrong split"),
        ("split", lambda a: a + 1, "wrong split.*frame 20.*got: 3.*in 4 of 24"),
        ("split", lambda a: a == 0, "wrong split.*bool"),
    ],
)
def test_invalid_arrays_are_errors_that_name_file_and_array(arrays, write, key, change, message):
    with pytest.raises(PaiNNFastError, match=rf"{message}") as caught:
        read(write(arrays | {"cell": np.eye(3) * 9} | {key: change(arrays.get(key))}))
    assert "toy.npz" in str(caught.value)


def test_tensors_of_atoms_are_taken_in_no_other_order(write):
    ammonia, n = molecule("NH3"), 5
    forces = np.random.default_rng(0).normal(size=(n, 4, 3))
    given = {"R": np.stack([ammonia.positions] * n), "z": ammonia.numbers, "energy_unit": "eV", "length_unit": "Ang"}
    for same in (forces, forces.reshape(n, 12), forces.reshape(4 * n, 3), np.asfortranarray(forces)):
        path = write(given | {"F": same})
        found = read_file(DataFile(file=path.name), path.parent).labels["forces"]
        assert (found == forces.reshape(4 * n, 3)).all()
    with pytest.raises(PaiNNFastError, match=r"wrong shape.*'F'.*\(5, 3, 4\)"):
        read(write(given | {"F": forces.swapaxes(1, 2)}))


def test_a_file_without_structures_is_an_error(arrays, write):
    empty = {name: arrays[name][:0] for name in ("R", "E", "F", "dipole", "polarizability", "split")}
    with pytest.raises(PaiNNFastError, match=r"without structures.*toy\.npz"):
        read(write(arrays | empty))


def test_files_that_cannot_be_read_are_errors_that_name_them(tmp_path, arrays, write):
    with pytest.raises(PaiNNFastError, match=r"no such data file.*missing\.npz"):
        read(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(PaiNNFastError, match=r"not a readable \.npz file.*text\.npz"):
        read(tmp_path / "text.npz")
    path = write(arrays)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(PaiNNFastError, match=r"not a readable \.npz file.*toy\.npz"):
        read(path)
    np.save(tmp_path / "single", arrays["R"])
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    with pytest.raises(PaiNNFastError, match=r"not a readable \.npz file.*single\.npz"):
        read(tmp_path / "single.npz")
    np.savez(path, R=np.array([object()], dtype=object), z=arrays["z"])
    with pytest.raises(PaiNNFastError, match=r"not a readable \.npz file.*toy\.npz"):
        read(path)


def test_a_real_set_is_read_with_its_splits_and_labels(own_data):
    parts = read(own_data / "ethanol_pbe0.npz")
    assert [len(part) for part in parts.values()] == [398, 40, 60]
    assert all(part.labelled("forces") == len(part) for part in parts.values())


def test_a_real_set_of_two_levels_of_theory_is_read_as_asked_for(shared_data):
    parts = read(shared_data / "ethanol_ccsdt.npz", keys={"energy": "E_pbe0", "forces": ""})
    assert sum(part.labelled("dipole") for part in parts.values()) == 418
    assert sum(part.labelled("energy") for part in parts.values()) == 418
    assert sum(part.labelled("forces") for part in parts.values()) == 0


def test_a_file_that_is_not_in_the_folder_may_come_with_the_configurations(tmp_path, monkeypatch, arrays, write):
    (tmp_path / "configs").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr("painn_fast.train.data.find.CONFIGS", tmp_path / "configs")
    shipped, own = write(arrays, "configs/toy.npz"), tmp_path / "mine" / "toy.npz"
    assert find_data("toy.npz", tmp_path / "mine") == shipped
    write(arrays, "mine/toy.npz")
    assert find_data("toy.npz", tmp_path / "mine") == own
    assert find_data("missing.npz", tmp_path / "mine") == tmp_path / "mine" / "missing.npz"


def test_geometries_may_stand_in_another_file_than_the_labels(arrays, write):
    together = read(write(arrays, "whole.npz"))["train"]
    write({"R": arrays["R"], "z": arrays["z"]}, "geometry.npz")
    labels = write(arrays | {"R": None, "z": None}, "labels.npz")
    parted = read(labels, geometry="geometry.npz")["train"]
    assert_close(parted.positions, together.positions, 0.0, "positions")
    assert_close(parted.labels["dipole"], together.labels["dipole"], 0.0, "dipole")
    write({"R": arrays["R"][1:], "z": arrays["z"]}, "geometry.npz")
    with pytest.raises(PaiNNFastError, match=r"wrong shape.*labels\.npz"):
        read(labels, geometry="geometry.npz")
