"""An ensemble is what trainings from its seeds are one by one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from painn_fast.errors import PaiNNFastError
from painn_fast.io import load
from painn_fast.train import TrainSettings, run, run_members
from painn_fast.train.evaluation import error_table


def weights(path):
    return load(path).state_dict()


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_members_are_the_trainings_of_their_seeds(toy, tmp_path, capsys):
    settings = TrainSettings.parse({**toy, "threads": 2})
    paths = run_members(settings, 2, data_folder=tmp_path)
    printed = capsys.readouterr().err
    assert [path.parent.name for path in paths] == ["member-0", "member-1"]
    assert "member 1: stopped after epoch 4" in printed
    assert "MAE, mean of all, test: energy" in printed

    first, second = (weights(path) for path in paths)
    alone = run(TrainSettings.parse({**toy, "seed": 4, "output": str(tmp_path / "alone")}), data_folder=tmp_path)
    assert same(second, weights(alone))
    assert not same(first, second)

    tables = json.loads((tmp_path / "run" / "errors.json").read_text())
    for k, path in enumerate(paths):
        expected = error_table(load(path), tmp_path / "toy.npz")["dipole"]["mae"]
        assert tables[f"test, member {k}"]["dipole"]["mae"] == pytest.approx(expected, rel=1e-5)
    maes = [tables[name]["energy"]["mae"] for name in ("test", "test, member 0", "test, member 1")]
    assert maes[0] <= np.mean(maes[1:]) + 1e-12

    run_members(settings, 3, data_folder=tmp_path, resume=True)
    assert same(weights(paths[0]), first)
    assert (tmp_path / "run" / "member-2" / "toy.safetensors").exists()


def test_a_member_that_fails_is_named_with_its_last_line(toy, tmp_path):
    settings = TrainSettings.parse({**toy, "data": [{"file": "absent.npz"}]})
    with pytest.raises(PaiNNFastError, match=r"member 0 stopped; where: .*log.txt.*absent.npz"):
        run_members(settings, 2, data_folder=tmp_path)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_members_save_and_end_on_request_or_when_their_parent_ends(toy, tmp_path, number):
    values = {**toy, "max_epochs": 100_000, "threads": 2, "plateau_patience": 100_000}
    program = "import json, sys; from painn_fast.train import TrainSettings, run_members\n"
    program += f"run_members(TrainSettings.parse(json.loads(sys.argv[1])), 2, data_folder={str(tmp_path)!r})"
    process = subprocess.Popen([sys.executable, "-c", program, json.dumps(values)], stderr=subprocess.PIPE, text=True)
    logs = [tmp_path / "run" / f"member-{k}" / "log.txt" for k in range(2)]
    wait_for(lambda: all(log.exists() and log.read_text() for log in logs))
    os.kill(process.pid, number)
    printed = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    if number == signal.SIGTERM:
        assert "interrupted; everything is saved" in printed
    wait_for(lambda: all("everything is saved" in log.read_text() for log in logs))
    assert all((log.parent / "checkpoint.safetensors").exists() for log in logs)


def wait_for(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.1)


def test_one_member_is_no_ensemble_and_torchrun_has_none(toy, tmp_path, monkeypatch):
    settings = TrainSettings.parse(toy)
    with pytest.raises(PaiNNFastError, match="two members or more"):
        run_members(settings, 1)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PaiNNFastError, match="without torchrun"):
        run_members(settings, 2)
    assert not Path(settings.output).exists()
