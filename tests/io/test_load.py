"""`painn_fast.load`: by name, by path, by what is in the file."""

import pytest
import torch

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.io import bundled, save_model
from painn_fast.nn import PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential

CONFIG = PotentialConfig(representation=RepresentationConfig(n_features=8, n_layers=1, n_rbf=5))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(random_potential(CONFIG, dtype=torch.float32), path)
    return path


def test_every_bundled_model_loads_by_name():
    assert "ethanol" in bundled()
    for name in bundled():
        model = pf.load(name)
        assert {"energy", "forces"} <= set(model.properties)
        assert model.config.elements is not None


def test_the_content_decides_not_the_ending(saved, spk, tmp_path):
    saved.rename(tmp_path / "best_model")
    assert pf.load(tmp_path / "best_model").config == CONFIG
    spk.save(spk.model(), tmp_path / "odd.safetensors")
    assert pf.load(tmp_path / "odd.safetensors", energy_unit="eV").properties[0] == "energy"


def test_dtype_and_mode(saved):
    assert pf.load(saved).dtype == torch.float32
    model = pf.load(saved, dtype=torch.float64)
    assert model.dtype == torch.float64
    assert model.device == torch.device("cpu")
    assert not model.training
    with pytest.raises(PaiNNFastError, match=r"no network runs in this type.*float16"):
        pf.load(saved, dtype=torch.float16)


def test_a_file_that_says_its_units_takes_none(saved):
    for unit in ("energy_unit", "dipole_unit", "polarizability_unit"):
        with pytest.raises(PaiNNFastError, match=rf"contains its units and heads.*{unit}"):
            pf.load(saved, **{unit: "eV"})


@pytest.mark.parametrize("device", ["foo", "meta"])
def test_a_device_that_is_not_there_is_refused(saved, device):
    with pytest.raises(PaiNNFastError, match=f"no such device; got: {device}"):
        pf.load(saved, device=device)


def test_an_error_for_what_is_no_model_lists_the_bundled_names(tmp_path):
    with pytest.raises(PaiNNFastError, match=r"no such model.*methanol.*ethanol"):
        pf.load("methanol")
    with pytest.raises(PaiNNFastError, match=r"no such model"):
        pf.load(tmp_path)  # a folder
    for content, message in ((b"", "an empty file"), (b"hello, world", r"begins with b'hello, w'")):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(PaiNNFastError, match=rf"{message}.*ethanol"):
            pf.load(tmp_path / "file")
