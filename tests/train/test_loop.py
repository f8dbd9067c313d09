"""The loop: it learns, it repeats itself bit for bit, and it goes on where it was killed."""

import json
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import tomli_w
import torch

from painn_fast.errors import PaiNNFastError
from painn_fast.io import convert, load_model
from painn_fast.kernels.simd import LANES
from painn_fast.runtime import checkpoint
from painn_fast.settings import load_settings
from painn_fast.train import TrainSettings, load_config, loop, report, run, shipped
from painn_fast.train.evaluation import error_table
from painn_fast.train.loop import read_data


def train(values, folder, *, resume=False, **changes):
    return run(TrainSettings.parse(values | changes), data_folder=folder, resume=resume)


def weights(path):
    return checkpoint.load(Path(path) / "checkpoint.safetensors")


def assert_same_state(one, other):
    """Weights, average, best, optimizer, schedule and history of two checkpoints, bit for bit."""
    (tensors, numbers), (tensors2, numbers2) = one, other
    assert tensors.keys() == tensors2.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, tensors2[name]), f"{name} differs by {(tensor - tensors2[name]).abs().max():.1e}"
    for key in ("epoch", "step", "history", "schedule"):
        assert numbers[key] == numbers2[key], key


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than the trainings here, and have tests of their own."""
    monkeypatch.setattr(report, "pictures", lambda *_: None)


@pytest.fixture
def straight(toy, tmp_path):
    """The state after four epochs without a break."""
    train(toy, tmp_path, output=str(tmp_path / "straight"))
    return weights(tmp_path / "straight")


def test_a_seed_gives_the_same_weights_bit_for_bit_and_another_gives_others(toy, tmp_path, straight):
    torch.manual_seed(99)
    train(toy, tmp_path, output=str(tmp_path / "again"))
    assert_same_state(weights(tmp_path / "again"), straight)
    train(toy, tmp_path, output=str(tmp_path / "other"), seed=4)
    name = "model.message.0.context.0.weight".replace("model.", "model.representation.", 1)
    assert not torch.equal(weights(tmp_path / "other")[0][name], straight[0][name])


@pytest.mark.parametrize("first", [1, 3])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(toy, tmp_path, straight, first):
    train(toy, tmp_path, max_epochs=first)
    train(toy, tmp_path, resume=True)
    assert_same_state(weights(toy["output"]), straight)


def test_a_resumed_run_without_autograd_equals_an_uninterrupted_one_bit_for_bit(toy, tmp_path):
    direct = toy | {"heads": [{"type": "energy"}]}
    direct["representation"] = toy["representation"] | {"n_features": 2 * LANES}
    train(direct, tmp_path, output=str(tmp_path / "straight"))
    train(direct, tmp_path, max_epochs=2)
    train(direct, tmp_path, resume=True)
    assert_same_state(weights(toy["output"]), weights(tmp_path / "straight"))


def test_a_run_that_is_stopped_by_a_signal_says_so_and_resumes(toy, tmp_path, straight, monkeypatch):
    ordinary = loop.Training.run_step

    def interrupted(self, rows):
        if (self.epoch, self.done) == (1, 2):  # in the middle of an epoch
            signal.raise_signal(signal.SIGTERM)
        return ordinary(self, rows)

    monkeypatch.setattr(loop.Training, "run_step", interrupted)
    with pytest.raises(PaiNNFastError, match=r"interrupted.*checkpoint\.safetensors.*--resume"):
        train(toy, tmp_path)
    assert not (Path(toy["output"]) / "toy.safetensors").exists()
    monkeypatch.undo()
    train(toy, tmp_path, resume=True)
    assert_same_state(weights(toy["output"]), straight)


RUN = """
import sys
from painn_fast.settings import load_settings
from painn_fast.train import TrainSettings, loop
loop.CHECKPOINT_EVERY = 0.0
loop.run(load_settings(TrainSettings, sys.argv[1]), data_folder=sys.argv[2])
"""


def test_a_killed_run_leaves_a_checkpoint_that_goes_on_to_the_same_result(toy, tmp_path):
    """SIGKILL at whatever moment after the second checkpoint, while they are written one after another."""
    endless = toy | {"max_epochs": 10_000}
    (tmp_path / "run.toml").write_bytes(tomli_w.dumps(endless).encode())
    saved = Path(toy["output"]) / "checkpoint.safetensors"
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path / "run.toml"), str(tmp_path)])
    wait_for(lambda: saved.exists() and checkpoint.load(saved)[1]["epoch"] >= 2, process)
    process.kill()
    process.wait()
    end = checkpoint.load(saved)[1]["epoch"] + 2
    train(toy, tmp_path, resume=True, max_epochs=end)
    train(toy, tmp_path, output=str(tmp_path / "straight"), max_epochs=end)
    assert_same_state(weights(toy["output"]), weights(tmp_path / "straight"))


def wait_for(condition, process):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "nothing happened for a minute"
        assert process.poll() is None, "the run ended by itself"
        time.sleep(0.01)


def test_the_running_time_does_not_count_while_nothing_runs(toy, tmp_path):
    train(toy, tmp_path, max_epochs=2)
    tensors, numbers = weights(toy["output"])
    path = Path(toy["output"]) / "checkpoint.safetensors"
    checkpoint.save(path, tensors, numbers | {"seconds": 1000.0})
    train(toy, tmp_path, resume=True, max_time="1000.5 s", max_epochs=1000)
    assert 1000.5 <= weights(toy["output"])[1]["seconds"] < 1010


def test_four_molecules_are_learned_by_heart(toy, tmp_path, arrays, write):
    arrays["split"] = [0, 0, 0, 0, 1, 1, *[2] * 18]
    write(arrays)
    path = train(
        toy,
        tmp_path,
        max_epochs=150,
        learning_rate=1e-2,
        cooldown_epochs=100,
        validate_every=50,
        ema_decay=0.9,
        plateau_patience=1000,
        weight_decay=0.0,
        loss={"energy": 1.0, "forces": 1.0, "dipole": 100.0, "polarizability": 10.0},
    )
    errors = json.loads((path.parent / "errors.json").read_text())["train"]
    limits = {"energy": 0.3, "forces": 2.0, "dipole": 0.01, "polarizability": 0.01}
    assert {name: row["mae"] for name, row in errors.items() if row["mae"] > limits[name]} == {}


def test_labels_that_are_missing_do_not_keep_the_rest_from_being_learned(toy, tmp_path, arrays, write):
    arrays["E"][::2] = torch.nan
    arrays["F"][1::2] = torch.nan
    arrays["polarizability"][:] = torch.nan
    write(arrays)
    train(toy, tmp_path, max_epochs=15, learning_rate=5e-3)
    history = weights(toy["output"])[1]["history"]
    assert "polarizability" not in history[0]
    for name in ("validation_loss", "energy", "forces"):
        assert history[-1][name] < history[0][name], name


def test_test_rows_are_never_trained_on(toy, tmp_path, arrays, write, straight):
    test = arrays["split"] == 2
    for name in ("E", "F", "dipole", "polarizability"):
        arrays[name][test] += 10.0
    write(arrays)
    train(toy, tmp_path)
    assert_same_state(weights(toy["output"]), straight)


def test_the_model_file_gives_the_errors_that_the_report_says(toy, tmp_path):
    path = train(toy, tmp_path)
    tables = json.loads((path.parent / "errors.json").read_text())
    potential = load_model(path)
    for split in ("train", "validation", "test"):
        assert error_table(potential, tmp_path / "toy.npz", split=split) == tables[split]
    assert tables["test, toy.npz"] == tables["test"]
    assert potential.config.elements == (1, 8)
    assert "energy" in potential.config.provenance["MAE, test"]


def test_a_run_too_short_for_a_validation_still_leaves_what_it_learned(toy, tmp_path):
    path = train(toy, tmp_path, validate_every=10)
    tensors, _ = weights(toy["output"])
    for name, value in load_model(path).state_dict().items():
        assert torch.equal(value, tensors[f"average.{name}"]), name


def test_an_output_folder_in_use_is_refused_and_left_alone(toy, tmp_path):
    train(toy, tmp_path, max_epochs=1)
    before = {path.name: path.read_bytes() for path in Path(toy["output"]).iterdir()}
    with pytest.raises(PaiNNFastError, match=r"holds a training.*--resume"):
        train(toy, tmp_path)
    assert {path.name: path.read_bytes() for path in Path(toy["output"]).iterdir()} == before


def test_a_checkpoint_of_other_settings_or_other_data_is_refused(toy, tmp_path, arrays, write):
    train(toy, tmp_path, max_epochs=1)
    with pytest.raises(PaiNNFastError, match="other settings"):
        train(toy, tmp_path, resume=True, learning_rate=1e-4)
    arrays["E"][0] += 1.0
    write(arrays)
    with pytest.raises(PaiNNFastError, match="other data"):
        train(toy, tmp_path, resume=True)


def test_a_damaged_checkpoint_is_one_clear_error(toy, tmp_path):
    train(toy, tmp_path, max_epochs=1)
    path = Path(toy["output"]) / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PaiNNFastError, match=r"not a readable checkpoint.*checkpoint\.safetensors"):
        train(toy, tmp_path, resume=True)


def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on_to_the_same_result(toy, tmp_path, capsys):
    train(toy, tmp_path, max_epochs=2)
    train(toy, tmp_path, max_epochs=3, resume=True)
    path = Path(toy["output"]) / "checkpoint.safetensors"
    data = bytearray(path.read_bytes())
    data[-10] ^= 4
    path.write_bytes(data)
    train(toy, tmp_path, max_epochs=4, resume=True)
    printed = " ".join(capsys.readouterr().err.split())
    assert "checkpoint.safetensors: a damaged checkpoint, another SHA-256 than written" in printed
    assert "going on from the checkpoint before, epoch 2" in printed
    train(toy, tmp_path, max_epochs=4, output=str(tmp_path / "straight"))
    assert_same_state(weights(toy["output"]), weights(tmp_path / "straight"))
    assert checkpoint.load(path.with_name("checkpoint.previous.safetensors"))[1]["epoch"] == 2


def test_a_training_that_diverges_is_stopped(toy, tmp_path):
    with pytest.raises(PaiNNFastError, match=r"diverged.*learning_rate"):
        train(toy, tmp_path, learning_rate=10.0, gradient_clip=1e10, warmup_steps=0, max_epochs=50)


def test_without_training_or_validation_rows_or_fitting_labels_nothing_starts(toy, tmp_path, arrays, write):
    for split, message in ((1, "no labelled train rows"), (0, "no labelled validation rows")):
        write(arrays | {"split": arrays["split"] * 0 + split})
        with pytest.raises(PaiNNFastError, match=message):
            train(toy, tmp_path)
    write(arrays | {"E": None, "F": None})
    with pytest.raises(PaiNNFastError, match=r"no labelled train rows.*labels of energy, forces.*data\.keys"):
        train(toy, tmp_path, heads=[{"type": "energy"}])
    assert not Path(toy["output"]).exists()


def test_a_wrong_key_in_the_settings_is_an_error_with_a_suggestion(toy, tmp_path):
    for wrong, message in (
        ({"batchsize": 3}, "batchsize.*did you mean 'batch_size'"),
        ({"loss": {"force": 1.0}}, "loss.force.*did you mean 'forces'"),
        ({"data": [{"file": "toy.npz", "unit": {"energy": "eV"}}]}, "unit.*did you mean 'units'"),
        ({"max_time": 3}, "max_time.*missing unit"),
        ({"data": []}, "data"),
    ):
        (tmp_path / "wrong.toml").write_bytes(tomli_w.dumps(toy | wrong).encode())
        with pytest.raises(PaiNNFastError, match=rf"(?s)wrong settings.*{message}.*wrong\.toml"):
            load_settings(TrainSettings, tmp_path / "wrong.toml")


def test_the_settings_that_were_resolved_can_be_run_again(toy, tmp_path):
    output = train(toy, tmp_path, max_epochs=1, max_time="60 s").parent
    again = load_settings(TrainSettings, output / "settings.toml")
    assert again == TrainSettings.parse(toy | {"max_epochs": 1, "max_time": "60 s"})


def test_every_shipped_configuration_is_valid():
    assert "ethanol" in shipped()
    for name in shipped():
        assert load_config(name).name == name
    with pytest.raises(PaiNNFastError, match=r"no such training configuration.*ethanol"):
        load_config("methanol")


def test_real_ethanol_data_are_learned(tmp_path, own_data):
    """Three epochs of a tiny network on the real set bring every error down to a fraction of the spread."""
    values = load_config("ethanol").model_dump(mode="json", exclude_none=True)
    small = {"n_features": 16, "n_layers": 2, "n_rbf": 12, "cutoff": 5.0}
    values |= {"data": [{"file": "ethanol_pbe0.npz"}], "output": str(tmp_path / "run"), "representation": small}
    values |= {"max_epochs": 3, "cooldown_epochs": 0, "warmup_steps": 20, "learning_rate": 5e-3, "ema_decay": 0.9}
    values |= {"model_units": {}}
    path = run(TrainSettings.parse(values), data_folder=own_data)
    errors = json.loads((path.parent / "errors.json").read_text())["validation"]
    limits = {"energy": 3.0, "forces": 10.0, "dipole": 0.15, "polarizability": 0.15}
    assert {name: row["mae"] for name, row in errors.items() if row["mae"] > limits[name]} == {}


def test_the_recipe_of_the_bundled_model_finds_all_its_data_and_trains_on_no_test_row(shared_data):
    settings = load_config("ethanol")
    data = read_data(settings, shared_data)
    assert [data["train"].labelled(name) for name in ("energy", "forces", "dipole", "polarizability")] == [
        1901,
        1539,
        1901,
        298,
    ]
    for split in ("validation", "test"):
        assert not geometries(data[split]) & geometries(data["train"]), split


def geometries(data):
    return {data.positions[first:last].tobytes() for first, last in pairwise(data.first)}


def test_a_training_starts_from_the_weights_of_a_model(toy, tmp_path):
    first = train(toy, tmp_path, output=str(tmp_path / "first"))
    again = {"output": str(tmp_path / "second"), "start_from": str(first), "learning_rate": 1e-9, "max_epochs": 1}
    tuned = load_model(train(toy, tmp_path, **again, minimum_learning_rate=1e-12)).state_dict()
    for name, tensor in load_model(first).state_dict().items():
        if not name.endswith("atomic_reference"):  # moved to where the labels are
            assert torch.allclose(tensor, tuned[name], atol=1e-6), name
    card = (tmp_path / "second").glob("*.md")
    assert f"from the weights of {first.name}, 1 epochs" in next(card).read_text()  # without folders of this machine
    again["output"] = str(tmp_path / "third")
    with pytest.raises(PaiNNFastError, match=r"another representation.*n_features 32 instead of 16"):
        train(toy, tmp_path, **again | {"representation": {**toy["representation"], "n_features": 32}})


def test_a_training_may_go_on_with_another_epsilon_if_the_settings_name_it(toy, tmp_path):
    sizes = toy["representation"]
    first = train(toy | {"representation": sizes | {"epsilon": 1e-8}, "max_epochs": 1}, tmp_path)
    go_on = toy | {"start_from": str(first), "max_epochs": 1}
    kept = train(go_on, tmp_path, output=str(tmp_path / "kept"))
    smooth = train(go_on, tmp_path, output=str(tmp_path / "smooth"), representation=sizes | {"epsilon": 2e-3})
    assert [load_model(path).config.representation.epsilon for path in (kept, smooth)] == [1e-8, 2e-3]


def test_a_head_that_no_label_trains_stays_as_it_is(toy, tmp_path, arrays, write):
    """Weight decay alone would make it smaller."""
    heads = [{"type": "energy"}, {"type": "dipole"}]
    first = train(toy | {"heads": heads}, tmp_path, output=str(tmp_path / "first"))
    write({name: value for name, value in arrays.items() if name not in ("E", "F")})
    del toy["representation"]
    values = {"heads": heads, "start_from": str(first), "freeze_representation": True, "weight_decay": 10.0}
    second = load_model(train(toy | values, tmp_path, output=str(tmp_path / "second")))
    for name, tensor in load_model(first).state_dict().items():
        trained = name.startswith("heads.dipole.network.")
        assert torch.equal(tensor, second.state_dict()[name]) != trained, name


def test_a_new_head_without_labels_is_reported(toy, tmp_path, capsys):
    train(
        toy | {"heads": [{"type": "energy"}, {"type": "scalar", "name": "gap", "unit": "eV"}]}, tmp_path, max_epochs=1
    )
    assert "head gap keeps random weights: no training structure has gap" in capsys.readouterr().err


def test_units_of_new_heads_do_not_disturb_a_foreign_model_to_start_from(toy, tmp_path):
    first = train(toy | {"heads": [{"type": "energy"}], "max_epochs": 1}, tmp_path, output=str(tmp_path / "first"))
    convert(first, tmp_path / "weights.pt")
    values = {
        "start_from": str(tmp_path / "weights.pt"),
        "model_units": {"energy": "eV", "dipole": "D"},
        "max_epochs": 1,
    }
    del toy["representation"]
    second = load_model(train(toy | {"heads": [{"type": "energy"}, {"type": "dipole"}]}, tmp_path, **values))
    assert (second.config.energy_unit, second.config.dipole_unit) == ("eV", "D")


def test_energies_of_another_zero_are_met_at_the_start(toy, tmp_path, arrays, write):
    first = train(toy, tmp_path, output=str(tmp_path / "first"))
    before = error_table(load_model(first), tmp_path / "toy.npz", split="train")["energy"]["mae"]
    write(arrays | {"E": arrays["E"] + 1000.0})
    values = {"output": str(tmp_path / "second"), "start_from": str(first), "learning_rate": 1e-9, "max_epochs": 1}
    second = train(toy, tmp_path, **values, minimum_learning_rate=1e-12)
    after = error_table(load_model(second), tmp_path / "toy.npz", split="train")["energy"]["mae"]
    assert after <= before * 1.05


def test_heads_can_be_trained_on_a_representation_that_stays(toy, tmp_path):
    first = train(toy | {"heads": [{"type": "energy"}]}, tmp_path, output=str(tmp_path / "first"))
    values = {"output": str(tmp_path / "second"), "start_from": str(first), "freeze_representation": True}
    del toy["representation"]
    second = load_model(train(toy | {"heads": [{"type": "energy"}, {"type": "dipole"}]}, tmp_path, **values))
    for name, tensor in load_model(first).state_dict().items():
        if name.startswith("representation."):
            assert torch.equal(tensor, second.state_dict()[name]), name
        elif name.endswith("weight"):
            assert not torch.equal(tensor, second.state_dict()[name]), name
    assert second.properties == ("energy", "energies", "forces", "stress", "dipole", "charges")
    with pytest.raises(PaiNNFastError, match="freeze_representation needs start_from"):
        TrainSettings.parse(toy | {"freeze_representation": True})
