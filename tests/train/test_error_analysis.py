"""Where errors are, and tables beside the paper."""

import dataclasses
import json
from itertools import pairwise

import ase.io
import numpy as np
import pytest

from painn_fast.errors import PaiNNFastError
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import assert_close, random_potential
from painn_fast.train import error_analysis, load_config, report, run
from painn_fast.train.data import read_file, read_split
from painn_fast.train.evaluation import predict
from painn_fast.train.paper_table import paper_table, published_tables
from painn_fast.train.settings import DataFile, TrainSettings

CONFIG = PotentialConfig(
    representation=RepresentationConfig(n_features=8, n_layers=1, n_rbf=6),
    heads=(EnergyHead(), DipoleHead(), PolarizabilityHead()),
)


@pytest.fixture
def data(arrays, write):
    path = write(arrays)
    return read_split(DataFile(file=path.name), path.parent)["train"]


def test_errors_by_element_and_magnitude_are_those_of_the_atoms(data):
    predicted = data.labels["forces"].copy()
    predicted[data.numbers == 8] += 0.5
    data.labels["forces"][0] = np.nan
    rows = error_analysis.by_element(predicted, data, size=0.1)
    assert [(row["element"], row["atoms"]) for row in rows] == [("H", 2 * len(data)), ("O", len(data) - 1)]
    assert_close([row["mae"] for row in rows], [0.0, 5.0], 1e-12)
    bins = error_analysis.by_magnitude(predicted, data, size=0.1)
    assert sum(row["atoms"] for row in bins) == 3 * len(data) - 1
    whole = sum(row["mae"] * row["atoms"] for row in bins) / (3 * len(data) - 1)
    assert_close(whole, 5.0 * (len(data) - 1) / (3 * len(data) - 1), 1e-12)
    assert all(low["to"] == high["from"] for low, high in pairwise(bins))


def test_the_worst_structures_come_first_with_labels_predictions_and_names(data, tmp_path):
    potential = random_potential(CONFIG)
    predicted = predict(potential, data)
    predicted["forces"] = data.labels["forces"].copy()
    predicted["forces"][data.first[5]] += 3.0
    error_analysis.write_worst(tmp_path / "worst.xyz", "forces", predicted, data, potential, number=4)
    frames = ase.io.read(tmp_path / "worst.xyz", index=":")
    assert len(frames) == 4
    first = frames[0]
    assert (first.info["file"], first.info["frame"]) == ("toy.npz", int(data.frame[5]))
    assert_close(first.positions, data.positions[15:18], 1e-7)
    assert_close(first.get_forces(), data.labels["forces"][15:18], 1e-6)
    assert_close(first.arrays["predicted_forces"] - first.get_forces(), [[3.0] * 3, [0.0] * 3, [0.0] * 3], 1e-6)
    assert_close(np.asarray(first.info["predicted_dipole"]), predicted["dipole"][5], 1e-6)
    assert first.info["rmse_forces"] == pytest.approx(3.0 / 3**0.5 * 23.0605, rel=1e-4)


def test_the_worst_structures_are_data_with_their_charge_spin_and_units(data, tmp_path):
    data = dataclasses.replace(data, charge=np.full(len(data), -1.0), spin=np.full(len(data), 2.0))
    potential = random_potential(CONFIG)
    error_analysis.write_worst(tmp_path / "worst.xyz", "energy", predict(potential, data), data, potential, number=4)
    found = read_file(DataFile(file="worst.xyz"), tmp_path)
    assert (found.charge.tolist(), found.spin.tolist()) == ([-1] * 4, [2] * 4)
    rows = [int(np.abs(data.labels["energy"] - energy).argmin()) for energy in found.labels["energy"]]
    for name in ("dipole", "polarizability"):
        assert_close(found.labels[name], data.labels[name][rows], 1e-6)
        assert found.units[name] == data.units[name]


def test_errors_do_not_change_when_all_molecules_turn(data):
    turned = error_analysis.rotated(data, seed=3)
    spread = np.linalg.norm(turned.labels["dipole"] - data.labels["dipole"], axis=1)
    assert spread.max() > 0.1
    assert_close(np.linalg.norm(turned.labels["forces"], axis=1), np.linalg.norm(data.labels["forces"], axis=1), 1e-12)
    eigenvalues = (np.linalg.eigvalsh(part.labels["polarizability"]) for part in (turned, data))
    assert_close(next(eigenvalues), next(eigenvalues), 1e-12)
    assert error_analysis.rotation_change(random_potential(CONFIG).double(), data) < 1e-9


def test_a_table_puts_the_paper_beside_what_was_measured(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "pictures", lambda *_: None)
    values = toy | {"heads": [{"type": "energy"}], "max_epochs": 1}
    _trained(values, tmp_path, {"md17-ethanol": {"name": "md17-ethanol"}, "mine": {"name": "mine"}})
    text = paper_table([tmp_path / "md17-ethanol", tmp_path / "mine"])
    errors = json.loads((tmp_path / "md17-ethanol" / "errors.json").read_text())["test"]
    row = next(line for line in text.splitlines() if line.startswith("| ethanol, forces"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    mae, error = errors["forces"]["mae"], errors["forces"]["mae_standard_error"]
    assert cells[1:5] == ["0.23", f"{mae:.3g}", "kcal/mol/Å", f"{mae / 0.23:.2f} ± {error / 0.23:.2f}"]
    assert cells[5:8] == ["16", "1", "1"]
    assert "mine, energy" in text.split("**Others**")[1]
    with pytest.raises(PaiNNFastError, match="no finished training here"):
        paper_table([tmp_path / "nowhere"])


def test_seeds_of_one_training_are_a_row_of_a_table(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "pictures", lambda *_: None)
    values = toy | {"heads": [{"type": "energy"}], "max_epochs": 1, "name": "mine"}
    kinds = {f"seed-{k}": {"seed": k} for k in range(3)} | {"faster": {"learning_rate": 5e-3}, "again": {"seed": 1}}
    _trained(values, tmp_path, kinds)
    text = paper_table([tmp_path / name for name in kinds])
    lines = [line for line in text.splitlines() if "mine, forces" in line]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    maes = [json.loads((tmp_path / name / "errors.json").read_text())["test"]["forces"]["mae"] for name in kinds]
    assert len(set(maes)) == 4  # "again" is that of its seed, and never counts twice
    assert rows[0][1] == f"{np.mean(maes[:3]):.3g} ± {np.std(maes[:3], ddof=1):.2g}"
    assert [row[1] for row in rows[1:]] == [f"{mae:.3g}" for mae in maes[3:]]
    assert [row[4] for row in rows] == ["3", "1", "1"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("training.json", "{}"),
        ("training.json", '{"name": "a", "epochs": 1, "structures": {"train": 5}, "device": "cpu"}'),
        ("errors.json", "[]"),
        ("errors.json", '{"test": {"energy": {"mae": "x", "unit": "eV"}}}'),
        ("errors.json", '{"test": {"energy": 1}}'),
        ("settings.toml", "beads = 1"),
    ],
)
def test_a_folder_of_something_else_is_no_training(tmp_path, file, text):
    right = {
        "training.json": '{"name": "a", "epochs": 1, "structures": {"train": 5}, "seconds": 60, "device": "cpu"}',
        "errors.json": '{"test": {"energy": {"mae": 1.5, "unit": "kcal/mol"}}}',
        "settings.toml": 'seed = 0\noutput = "a"',
    }
    for name, content in right.items():
        (tmp_path / name).write_text(content)
    assert "| a, energy | 1.5 | kcal/mol | 5 | 1 | 1 | 1 | cpu |" in paper_table([tmp_path])
    (tmp_path / file).write_text(text)
    with pytest.raises(PaiNNFastError, match="no finished training here"):
        paper_table([tmp_path])


def _trained(values, folder, kinds):
    """Trainings that differ from `values`, each in the folder of its name."""
    for name, changes in kinds.items():
        run(TrainSettings.parse(values | changes | {"output": str(folder / name)}), data_folder=folder)


def test_every_row_in_print_has_a_configuration_that_trains_its_property():
    for key, published in published_tables().items():
        for row, facts in published["rows"].items():
            settings = load_config(f"{key}-{row}")
            labels = {head.type if head.type != "scalar" else head.name for head in settings.heads}
            name = facts.get("property", "energy")
            assert name in labels | ({"dipole_magnitude"} if "dipole" in labels else set()), (key, row)
