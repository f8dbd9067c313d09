"""What a training leaves behind."""

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from painn_fast.errors import PaiNNFastError
from painn_fast.train import TrainSettings, report, run

PNG = b"\x89PNG\r\n\x1a\n"


def train(values, folder, **changes):
    settings = TrainSettings.parse(values | {"max_epochs": 2} | changes)
    return run(settings, data_folder=folder).parent


def test_a_training_leaves_model_errors_history_card_settings_and_pictures(toy, tmp_path):
    output = train(toy, tmp_path, description="Springs.", level_of_theory="Hooke", limits="Small strains.")
    assert {path.name for path in output.iterdir()} == {
        "toy.safetensors",
        "toy.md",
        "errors.json",
        "training.json",
        "worst.xyz",
        "forces.png",
        "history.csv",
        "settings.toml",
        "checkpoint.safetensors",
        "split.csv",
        "statistics.json",
        "learning_curves.png",
        "parity.png",
    }
    for name in ("learning_curves.png", "parity.png", "forces.png"):
        assert (output / name).read_bytes().startswith(PNG), name
    with open(output / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(
        float(row[key]) > 0 for row in rows for key in ("train_loss", "validation_loss", "energy", "forces", "dipole")
    )
    card = (output / "toy.md").read_text(encoding="utf-8")
    errors = json.loads((output / "errors.json").read_text(encoding="utf-8"))
    for text in (
        "Springs.",
        "Hooke",
        "Small strains.",
        "toy.npz",
        "16 train, 4 validation, 4 test structures",
        "toy.npz`: origin not stated",
        "16 features, 2 layers",
    ):
        assert text in card, text
    roughness = json.loads((output / "training.json").read_text(encoding="utf-8"))["roughness"]
    assert ("left_out" in roughness) == ("**Roughness**: not computed: no minimum near toy.npz" in card)
    assert ("largest" in roughness) == ("cm-1 in the mean, between harmonic lines of the analytic Hessian" in card)
    for name, row in errors["test, toy.npz"].items():
        assert f"{row['mae']:.4f}" in card, f"test error of {name}"


def test_without_matplotlib_everything_but_the_pictures_is_there(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    output = train(toy, tmp_path)
    assert not list(output.glob("*.png"))
    assert (output / "toy.safetensors").is_file()
    assert (output / "errors.json").is_file()


def test_sets_without_test_rows_and_labels_without_rows_are_reported_as_far_as_they_go(toy, tmp_path, arrays, write):
    arrays["polarizability"][arrays["split"] > 0] = float("nan")
    write(arrays | {"split": arrays["split"].clip(max=1), "dipole": None})
    output = train(toy, tmp_path)
    errors = json.loads((output / "errors.json").read_text(encoding="utf-8"))
    assert list(errors) == ["train", "validation"]
    assert "dipole" not in errors["train"]
    assert "polarizability" in errors["train"]
    assert "polarizability" not in errors["validation"]
    assert (output / "parity.png").read_bytes().startswith(PNG)


def test_a_report_that_fails_does_not_lose_the_model(toy, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(report, "pictures", fail)
    with pytest.raises(RuntimeError, match="no fonts"):
        train(toy, tmp_path)
    assert (Path(toy["output"]) / "toy.safetensors").is_file()
    assert (Path(toy["output"]) / "checkpoint.safetensors").is_file()


def test_learning_curves_go_to_tensorboard_if_asked_for(toy, tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder):
            assert folder == str(tmp_path / "run" / "tensorboard")

        def add_scalar(self, name, value, epoch):
            written.append((name, value, epoch))

        def flush(self):
            pass

    monkeypatch.setattr(report, "pictures", lambda *_: None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    output = train(toy, tmp_path, tensorboard=True)
    with open(output / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [value for name, value, _ in written if name == "forces"] == [float(row["forces"]) for row in rows]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(PaiNNFastError, match=r"TensorBoard is not installed.*pip install"):
        train(toy, tmp_path, tensorboard=True, output=str(tmp_path / "other"))
