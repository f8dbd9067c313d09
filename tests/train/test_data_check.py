"""Doubtful data are found and sound data pass; every finding names file and frame."""

import dataclasses
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.train import TrainSettings, loop
from painn_fast.train.data import join, read_file, read_split
from painn_fast.train.data.check import check, judge
from painn_fast.train.data.dataset import Dataset
from painn_fast.train.data.duplicates import duplicates
from painn_fast.train.data.force_energy_check import force_energy_slope
from painn_fast.train.data.statistics import format_statistics, pairs_within, statistics
from painn_fast.train.settings import DataFile, SplitSizes


def parts(path, **options):
    return read_split(DataFile.parse({"file": path.name, **options}), path.parent)


def findings(path, **options):
    return [f"{level}: {problem}" for level, problem in check(parts(path, **options))]


def test_sound_data_pass(many):
    assert findings(many()) == []


KCAL = 1 / units.KCAL_PER_MOL
WRONG = {
    "forces in kcal/mol/Å": (lambda a: {"F": a["F"] * KCAL}, "too large.*kcal/mol and eV"),
    "energies in kcal/mol": (lambda a: {"E": a["E"] * KCAL}, "too small.*kcal/mol and eV"),
    "gradients": (lambda a: {"F": -a["F"]}, "wrong sign"),
    "gradients in Ha/bohr": (lambda a: {"F": -a["F"] * 0.01945}, "too small.*Ha/bohr and eV/Å.*wrong sign"),
    "forces per bohr": (lambda a: {"F": a["F"] * units.BOHR}, "too small.*Å and bohr"),
    "half of the forces": (lambda a: {"F": a["F"] * 0.5}, "too small"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_forces_that_do_not_belong_to_the_energies_are_found_and_explained(many, mistake):
    change, message = WRONG[mistake]
    found = check(parts(many(change)))
    assert [finding.level for finding in found][:1] == ["doubt"]
    with pytest.raises(PaiNNFastError, match=rf"{message}.*many\.npz.*times the work.*units"):
        judge(found)
    assert judge(found, "warn")[0].startswith("warning: ")


def test_a_few_wrong_energies_do_not_hide_that_forces_are_right(many):
    def change(arrays):
        arrays["E"][::40] += 50.0
        return {}

    data = parts(many(change))
    assert force_energy_slope(join(list(data.values()))).value == pytest.approx(1.0, abs=0.1)
    (finding,) = check(data)
    assert "8 energies far from the others; where: many.npz, frame" in str(finding.problem)


def test_unrelated_forces_and_energies_are_uncorrelated(many):
    rng = np.random.default_rng(0)
    path = many(lambda arrays: {"F": rng.normal(size=arrays["F"].shape)})
    assert force_energy_slope(read_file(DataFile(file=str(path)))).correlation < 0.8


SETS = ["aspirin", "aspirin_rmd17", "ethanol", "malonaldehyde", "naphthalene", "salicylic_acid", "toluene", "uracil"]


@pytest.fixture(params=["ethanol_pbe0", "ethanol_ccsdt", *(f"md17/{name}" for name in SETS)])
def real_set(request, own_data):
    """The first is in the repository."""
    if request.param == "ethanol_pbe0":
        return own_data / "ethanol_pbe0.npz"
    return request.getfixturevalue("shared_data") / f"{request.param}.npz"


def test_real_sets_pass_and_fail_with_wrong_forces(real_set):
    data = parts(real_set)
    assert {finding.level for finding in check(data)} <= {"note"}
    train = data["train"].select(np.arange(min(750, len(data["train"]))))
    assert force_energy_slope(train).value == pytest.approx(1.0, abs=0.12)
    for factor, text in ((KCAL, "kcal/mol and eV"), (1 / KCAL, "kcal/mol and eV"), (-1.0, "wrong sign")):
        wrong = dataclasses.replace(train, labels=train.labels | {"forces": factor * train.labels["forces"]})
        with pytest.raises(PaiNNFastError, match=text):
            judge(check({"train": wrong}))


def put(key, index, value):
    def change(arrays):
        array = arrays[key].astype(float)
        array[index] = value
        return {key: array}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("F", (7, 1, 2), np.nan), r"error: forces is NaN in part.*many\.npz, frame 7"),
        (put("F", (7, 1), np.nan), r"error: forces is NaN in part.*many\.npz, frame 7"),
        (put("z", 1, 100), r"error: no element.*many\.npz, frame 0, atom 1; got: Z = 100; expected: 1 to 99"),
        (put("z", 1, 0), r"error: no element.*frame 0, atom 1"),
        (lambda a: put("R", (5, 1), a["R"][5, 0])(a), r"error: atoms on top of each other.*frame 5, atoms 0 and 1"),
        (lambda a: put("R", (5, 1), a["R"][5, 0] + 0.1)(a), r"atoms on top of each other.*got: 0\.173 Å"),
        (
            lambda a: {"R": a["R"] * 1.9, "F": None},
            r"note: atoms are far apart, as if bohr were taken for Å.*many\.npz",
        ),
        (lambda a: {"R": a["R"] * 0.53, "F": None}, r"doubt: atoms are too near, as if Å were taken for bohr"),
        (lambda a: {"F": a["F"] * KCAL, "E": a["E"] * KCAL}, r"note: forces are unusually large.*rms 2"),
        (put("E", 3, np.nan), r"note: energy is missing in 1 of 300 structures; where: many\.npz, frame 3"),
    ],
)
def test_what_is_wrong_is_named(many, change, message):
    found = findings(many(change))
    assert any(re.search(message, line) for line in found), found


def test_copies_are_noted_and_leaks_refused(many):
    def copies(*rows):
        def change(arrays):
            turn = Rotation.random(random_state=5).as_matrix()
            for source, target in rows:
                arrays["R"][target] = -(arrays["R"][source][[0, 2, 1]] @ turn) + 3.0  # other order of H, mirrored
                arrays["F"][target], arrays["E"][target] = -(arrays["F"][source][[0, 2, 1]] @ turn), arrays["E"][source]
            return {}

        return change

    assert findings(many(copies((3, 9)))) == [
        "note: 1 train structures are repeated; where: many.npz, frame 3 = many.npz, frame 9"
    ]
    one = findings(many(copies((3, 299))))
    assert "note: 1 of 50 test structures are in the training set too" in one[0]
    found = check(parts(many(copies((3, 299), (4, 298), (298, 297)))))
    with pytest.raises(PaiNNFastError, match=r"3 of 50 test .* training.*many\.npz, frame 297 = many\.npz, frame 4"):
        judge(found)


def test_copies_fall_into_one_part_of_a_drawn_split(many):
    def change(arrays):
        arrays["R"][150:], arrays["F"][150:], arrays["E"][150:] = (arrays[key][:150] for key in ("R", "F", "E"))
        return {"split": None}

    found = check(parts(many(change)))
    assert {finding.level for finding in found} == {"note"}


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.booleans())
def test_a_turned_structure_is_a_copy_and_a_changed_one_is_not(seed, n, changed):
    rng = np.random.default_rng(seed)
    positions = rng.normal(scale=2.0, size=(n, 3))
    numbers = rng.integers(1, 4, n)
    order = rng.permutation(n)
    other = positions[order] @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + rng.normal(size=3)
    if changed:
        other[0] *= 1 + 1e-4
    data = Dataset(
        numbers=np.concatenate([numbers, numbers[order]]),
        positions=np.concatenate([positions, other]),
        n_atoms=np.array([n, n]),
        labels={},
        cell=np.zeros((2, 3, 3)),
        pbc=np.zeros((2, 3), dtype=bool),
        charge=np.zeros(2),
        spin=np.ones(2),
        file=np.zeros(2, dtype=int),
        frame=np.arange(2),
        files=("a",),
    )
    moved = np.abs(
        np.linalg.norm(other - other[0], axis=1) - np.linalg.norm(positions[order] - positions[order][0], axis=1)
    )
    if not changed or moved.max() > 1e-5:
        assert duplicates(data).tolist() == ([] if changed else [[0, 1]])
    charged = dataclasses.replace(data, charge=np.array([0.0, 1.0]))
    assert len(duplicates(charged)) == 0


def test_pairs_in_nearly_empty_boxes_are_those_of_the_cell_list(monkeypatch):
    rng = np.random.default_rng(0)
    n, a = 4, 12
    cell = np.tile(np.diag([9.0, 10.0, 11.0]) + np.tril(rng.normal(size=(3, 3)), -1), (n, 1, 1))
    data = Dataset(
        numbers=np.full(n * a, 6),
        positions=rng.uniform(0, 12, size=(n * a, 3)),
        n_atoms=np.full(n, a),
        labels={},
        cell=cell,
        pbc=np.array([[True] * 3, [True, False, True], [True] * 3, [False] * 3]),
        charge=np.zeros(n),
        spin=np.ones(n),
        file=np.zeros(n, dtype=int),
        frame=np.arange(n),
        files=("a",),
    )

    def listed():
        pairs = (pair for part in pairs_within(data, 3.0) for pair in zip(*part, strict=True))
        return sorted((int(i), int(j), round(float(d), 9)) for i, j, d in pairs)

    fast = listed()
    assert len(fast) > 20
    monkeypatch.setattr("painn_fast.train.data.statistics.SMALL", 0)
    assert fast == listed()


def test_statistics_tell_what_the_set_holds(many, toy, tmp_path):
    data = parts(many())
    found = statistics(data)
    assert found["structures"] == {"train": 200, "validation": 50, "test": 50}
    assert found["elements"] == {"H": 600, "O": 300}
    assert found["labels"] == {"energy": 300, "forces": 300}
    forces = join(list(data.values())).labels["forces"]
    assert found["forces_eV_per_Ang"]["rms"] == pytest.approx(np.sqrt(np.square(forces).mean()))
    text = "\n".join(format_statistics(found))
    assert "structures of 3 atoms: H 600, O 300" in text
    assert "nearest neighbours: 0." in text
    assert statistics({"train": data["train"].select([])})["structures"] == {}


def test_a_training_is_checked_and_leaves_split_and_statistics(toy, many, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loop.report, "pictures", lambda *_: None)
    own = toy | {"heads": [{"type": "energy"}], "max_epochs": 1, "data": [{"file": many().name}]}
    output = loop.run(TrainSettings.parse(own), data_folder=tmp_path).parent
    assert json.loads((output / "statistics.json").read_text())["labels"]["forces"] == 300
    printed = capsys.readouterr().err
    assert "many.npz: length Ang (the file), energy = E eV (the file), forces = F eV/Ang (the file)" in printed
    assert "structures of 3 atoms" in printed
    again = own | {"split": {"file": str(output / "split.csv")}}
    one, other = (loop.read_data(TrainSettings.parse(values), tmp_path) for values in (own, again))
    for name, part in one.items():
        assert other[name].frame.tolist() == part.frame.tolist()
    wrong = own | {"data": [{"file": many(WRONG["gradients"][0]).name}], "output": str(tmp_path / "other")}
    with pytest.raises(PaiNNFastError, match=r"wrong sign.*many\.npz"):
        loop.run(TrainSettings.parse(wrong), data_folder=tmp_path)
    loop.run(TrainSettings.parse(wrong | {"checks": "warn"}), data_folder=tmp_path)
    assert "warning: forces have the wrong sign" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a split.*first line file,frame,split"),
        ("file,frame,split\nmany.npz,one,train\n", r"not a split.*line 2.*many\.npz,one,train"),
        ("file,frame,split\nmany.npz,1,tset\n", "not a split.*line 2"),
        ("file,frame,split\nmany.npz,300,train\n", "one of other data.*frame 300"),
        ("file,frame,split\nfew.npz,1,train\n", r"one of other data.*nothing of many\.npz"),
        ("file,frame,split\nmany.npz,1,train\nmany.npz,1,test\n", "in two splits.*line 3.*train and test"),
    ],
)
def test_a_split_file_that_does_not_fit_is_an_error(many, tmp_path, text, message):
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(PaiNNFastError, match=message) as caught:
        read_split(DataFile(file=many().name), tmp_path, sizes=SplitSizes(file="split.csv"))
    assert "split.csv" in str(caught.value)


def test_a_split_file_may_come_from_a_spreadsheet(many, tmp_path):
    text = "file,frame,split\r\nmany.npz,3,train\r\nmany.npz,3,train\r\nmany.npz,5,test\r\n"
    (tmp_path / "split.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    data = read_split(DataFile(file=many().name), tmp_path, sizes=SplitSizes(file="split.csv"))
    assert {name: part.frame.tolist() for name, part in data.items()} == {"train": [3], "validation": [], "test": [5]}


def test_a_cutoff_without_neighbours_is_doubtful(toy, many, tmp_path):
    data = parts(many())
    assert not check(data, cutoff=1.1)
    (finding,) = check(data, cutoff=0.5)
    assert finding.level == "doubt"
    assert "no neighbour within the cut-off; got: cut-off 0.5 Å, nearest neighbours 0.9" in str(finding.problem)
    own = toy | {"heads": [{"type": "energy"}], "data": [{"file": "many.npz"}]}
    short = own | {"representation": toy["representation"] | {"cutoff": 0.5}}
    with pytest.raises(PaiNNFastError, match="no neighbour within the cut-off"):
        loop.run(TrainSettings.parse(short), data_folder=tmp_path)
    assert loop._cutoff(TrainSettings.parse(short | {"model_units": {"length": "nm"}})) == 5.0
