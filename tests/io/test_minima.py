"""A model's file that holds minima stands for a structure to start from."""

import sys

import numpy as np
import pytest
from ase.build import molecule

from painn_fast.cli import main
from painn_fast.errors import PaiNNFastError
from painn_fast.io import load, save_model
from painn_fast.io.find import start_structure
from painn_fast.io.minima import keep_minima, minima_of, start_structures
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.nn import PotentialConfig
from painn_fast.testing import random_potential


@pytest.fixture
def with_minima(tmp_path):
    """A model of the cation of water with two minima, as a file."""
    first, second = molecule("H2O"), molecule("H2O")
    for one in (first, second):
        one.info |= {"charge": 1, "spin": 2}
    second.positions[1] += [0.1, 0.0, 0.02]
    potential = random_potential(PotentialConfig())
    keep_minima(potential, [first, second])
    path = tmp_path / "water.safetensors"
    save_model(potential, path)
    return path, [first, second]


def test_minima_come_back_with_charge_and_multiplicity(with_minima):
    path, expected = with_minima
    assert start_structure(None, str(path)) == path
    for frames in (minima_of(load(path)), start_structures(None, str(path))):
        assert len(frames) == 2
        for frame, one in zip(frames, expected, strict=True):
            np.testing.assert_allclose(frame.positions, one.positions, atol=1e-10)
            assert list(frame.symbols) == list(one.symbols)
            assert (frame.info["charge"], frame.info["spin"]) == (1, 2)


def test_dynamics_start_at_the_minima(with_minima, tmp_path):
    path, expected = with_minima
    settings = MDSettings(
        model=str(path), trajectories=2, ensemble="nve", duration="1 fs", positions_every="0.5 fs",
        output=str(tmp_path / "md"),
    )  # fmt: skip
    start = Trajectory(run(settings)).positions[0]
    np.testing.assert_allclose(start.reshape(2, 3, 3), [one.positions for one in expected], atol=1e-6)


def test_a_structure_that_is_given_comes_first(with_minima, tmp_path):
    path, _ = with_minima
    other = tmp_path / "other.xyz"
    molecule("H2O").write(other)
    assert start_structure(other, str(path)) == other


@pytest.mark.parametrize("text", ["{}", "no json", '{"__metadata__": {"painn_fast": "[]"}}'])
def test_a_file_without_minima_is_no_structure(tmp_path, text):
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode())
    with pytest.raises(PaiNNFastError, match="no structure to start from"):
        start_structure(None, str(path))


def test_vibrations_of_a_model_without_minima_are_refused_before_torch_is_imported(tmp_path, capsys, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_model(random_potential(PotentialConfig()), path)
    monkeypatch.setitem(sys.modules, "painn_fast.vibrations", None)
    assert main(["vib", str(path)]) == 2
    assert "no structure to start from" in capsys.readouterr().err
