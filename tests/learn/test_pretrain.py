"""`painn-fast learn --pretrain`: dear labels are learned from the weights of a training on cheap ones."""

import json

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule

import painn_fast as pf
from painn_fast.learn import LearnSettings, learn, training
from painn_fast.settings import load_settings
from painn_fast.train import TrainSettings
from painn_fast.train.loop import read_data
from painn_fast.train.training import Training

TINY = {
    "method": "spring_water:DearWater", "surface": "spring_water:SpringWater", "labels": 60, "rounds": 1, "beads": 2,
    "features": 16, "layers": 1, "steps": 1500, "final_steps": 100, "explore": "20 fs", "dynamics": "100 fs",
    "workers": 1, "seed": 1,
}  # fmt: skip
CHEAP = {"pretrain": "spring_water:SpringWater:100"}


class Killed(Exception):
    """In the middle of a run."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that was interrupted after the cheap training, and gone on with."""
    folder = tmp_path_factory.mktemp("pretrain") / "water"
    settings = LearnSettings(**TINY, **CHEAP, output=str(folder))
    trained = training.train

    def once(*arguments):
        if (folder / "pretrain/models.json").exists():
            raise Killed
        return trained(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", once)
        with pytest.raises(Killed):
            learn(settings, molecule("H2O"))
    before = (folder / "pretrain/member-0/model.safetensors").stat().st_mtime_ns
    learn(settings, molecule("H2O"), resume=True)
    assert (folder / "pretrain/member-0/model.safetensors").stat().st_mtime_ns == before
    return folder


def _forces_error(model, frames):
    found = pf.evaluate(model, frames, ("forces",))["forces"]
    return np.abs(np.array(found) - [one.get_forces() for one in frames]).mean()


def test_the_second_training_starts_from_the_weights_of_the_first(folder):
    for member in (0, 1):
        chosen = load_settings(TrainSettings, folder / f"final/member-{member}/settings.toml")
        first = pf.load(folder / f"pretrain/member-{member}/model.safetensors").state_dict()
        with torch.no_grad():
            start = Training(chosen, read_data(chosen, folder)).model.state_dict()
        assert first.keys() == start.keys()
        other = {name for name in start if not torch.equal(start[name], first[name])}
        assert other == {"heads.energy.atomic_reference"}


def test_energies_have_the_zero_of_the_dear_method(folder):
    frames = ase.io.read(folder / "final/held-out.xyz", ":")
    energies = np.array([one.get_potential_energy() for one in frames])
    assert energies.max() < -1990.0
    found = np.array(pf.evaluate(folder / "model.safetensors", frames, ("energy",))["energy"])
    assert np.abs(found - energies).mean() < 0.5 * energies.std()
    cheap = np.array(pf.evaluate(folder / "pretrain/member-0/model.safetensors", frames, ("energy",))["energy"])
    assert (cheap > -10.0).all()


def test_few_dear_steps_after_cheap_ones_are_better_than_few_dear_steps_alone(folder):
    plain = folder.with_name("plain")
    learn(LearnSettings(**TINY, output=str(plain)), molecule("H2O"))
    frames = ase.io.read(folder / "final/held-out.xyz", ":")
    error, alone = (_forces_error(one / "model.safetensors", frames) for one in (folder, plain))
    assert error < 0.7 * alone


def test_cheap_labels_are_not_trained_on_again_and_count_extra(folder):
    assert len(ase.io.read(folder / "pretrain/labelled.xyz", ":")) == 100
    labelled = len(ase.io.read(folder / "round-0/labelled.xyz", ":"))
    assert labelled + len(ase.io.read(folder / "final/held-out.xyz", ":")) == 60
    (chosen,) = (load_settings(TrainSettings, path) for path in folder.glob("final/member-0/settings.toml"))
    assert {source.file.split("/")[0] for source in chosen.data} == {"round-0"}


def test_the_card_tells_of_the_cheap_labels(folder):
    text = (folder / "model.md").read_text()
    assert "from weights of a training on 100 labels of spring_water:SpringWater" in text
    assert "from the weights of model.safetensors" in text
    assert "Level of theory**: spring_water:DearWater" in text
    card = (folder / "pretrain/member-0/model.md").read_text()
    assert "pretrain, spring_water:SpringWater" in card
    assert "Dear" not in card
    assert "steps of pretrain" in json.loads((folder / "plan.json").read_text())
