"""Several processes train one model as one process does."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from safetensors.torch import load_file

from painn_fast.runtime import checkpoint
from painn_fast.settings import load_settings
from painn_fast.testing import assert_close
from painn_fast.train import TrainSettings, run
from painn_fast.train.loop import read_data
from painn_fast.train.training import Training

GRADIENTS = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from painn_fast.settings import load_settings
from painn_fast.train import TrainSettings
from painn_fast.train.loop import read_data
from painn_fast.train.training import Training
from painn_fast.runtime.ranks import ranks

folder = Path(sys.argv[1])
settings = load_settings(TrainSettings, folder / "run.toml")
with ranks("cpu") as (together, device):
    training = Training(settings, read_data(settings, folder), together, device)
    training.optimizer.step = lambda rate: None
    training.run_step(training.next_rows())
    gradients = {name: p.grad for name, p in training.model.named_parameters()}
    save_file(gradients, folder / f"gradients-{together.rank}.safetensors")
"""

TRAIN = """
import sys
from painn_fast.settings import load_settings
from painn_fast.train import TrainSettings, report, run

report.pictures = lambda *_: None
run(load_settings(TrainSettings, sys.argv[1] + "/run.toml"), data_folder=sys.argv[1])
"""


def torchrun(script, folder):
    """Two processes of `script`."""
    (folder / "script.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(folder / "script.py"), str(folder)], check=False, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture
def folder(toy, tmp_path, arrays, write):
    arrays["polarizability"][3:9] = np.nan  # so that processes have different numbers of labels
    arrays["F"][0] = np.nan
    write(arrays)
    values = toy | {"batch_size": 7, "gradient_clip": 1e9, "precision": "float64"}
    (tmp_path / "run.toml").write_bytes(tomli_w.dumps(values).encode())
    return tmp_path


def test_gradients_of_two_processes_are_those_of_one_on_the_joined_batch(folder):
    torchrun(GRADIENTS, folder)
    settings = load_settings(TrainSettings, folder / "run.toml")
    alone = Training(settings, read_data(settings, folder))
    alone.optimizer.step = lambda rate: None
    alone.run_step(alone.next_rows())
    first, second = (load_file(folder / f"gradients-{rank}.safetensors") for rank in (0, 1))
    for name, parameter in alone.model.named_parameters():
        assert torch.equal(first[name], second[name]), name
        assert_close(first[name], parameter.grad, 1e-10, name)


def test_a_training_of_two_processes_ends_as_that_of_one(folder):
    settings = load_settings(TrainSettings, folder / "run.toml")
    output = Path(settings.output)
    done = torchrun(TRAIN, folder)
    together, numbers = checkpoint.load(output / "checkpoint.safetensors")
    assert done.stderr.count("stopped after epoch 4") == 1, "each process prints"
    assert numbers["epoch"] == 4
    assert (output / "toy.safetensors").is_file()
    alone = settings.model_copy(update={"output": str(folder / "alone")})
    run(alone, data_folder=folder)
    tensors, expected = checkpoint.load(folder / "alone" / "checkpoint.safetensors")
    for name, tensor in tensors.items():
        assert_close(together[name], tensor, 1e-7, name)
    for here, there in zip(numbers["history"], expected["history"], strict=True):
        assert here["train_loss"] == pytest.approx(there["train_loss"], rel=1e-9)
    assert json.loads((output / "errors.json").read_text())["test"].keys() == {
        "energy",
        "forces",
        "dipole",
        "polarizability",
    }
