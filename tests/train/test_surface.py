"""Roughness of a finished model, for its card."""

import copy
import sys

import numpy as np
import pytest
import torch

from painn_fast import PaiNNFastError, load
from painn_fast.engine import CpuEngine
from painn_fast.io.find import MODELS
from painn_fast.io.structures import read_structures
from painn_fast.spectra import Roughness, roughness
from painn_fast.testing import with_epsilon
from painn_fast.train.data import Dataset
from painn_fast.train.surface import describe_surface, surface


def dataset(structures, energies=None):
    n = len(structures)
    return Dataset(
        numbers=np.concatenate([atoms.numbers for atoms in structures]),
        positions=np.concatenate([atoms.positions for atoms in structures]),
        n_atoms=np.array([len(atoms) for atoms in structures]),
        labels={} if energies is None else {"energy": np.array(energies, dtype=float)},
        cell=np.zeros((n, 3, 3)),
        pbc=np.array([atoms.pbc for atoms in structures]).reshape(n, 3),
        charge=np.zeros(n),
        spin=np.ones(n),
        file=np.zeros(n, dtype=int),
        frame=np.arange(n),
        files=("set.xyz",),
    )


@pytest.fixture(scope="module")
def model():
    return with_epsilon(load("ethanol", dtype=torch.float64), 1e-3)


@pytest.fixture(scope="module")
def structures():
    """Three geometries of ethanol, the middle one nearest to the minimum."""
    start = read_structures(MODELS / "ethanol.xyz")[0]
    shifts = np.random.default_rng(3).normal(size=(3, 9, 3)) * np.array([0.08, 0.01, 0.08])[:, None, None]
    frames = [start.copy() for _ in shifts]
    for frame, shift in zip(frames, shifts, strict=True):
        frame.positions += shift
    return frames


def test_roughness_is_that_of_the_minimum_next_to_the_lowest_structure(model, structures):
    found = surface(model, dataset(structures, [-1.0, -5.0, np.nan]))
    expected = roughness(model, structures[1])
    assert found["at"] == "set.xyz, frame 1"
    assert found["largest"] == pytest.approx(expected.largest, abs=0.01)
    assert found["mean"] == pytest.approx(expected.mean, abs=0.01)
    assert describe_surface(found).startswith(f"at most {expected.largest:.2f} cm-1")
    assert "epsilon" not in describe_surface(found)
    assert surface(model, dataset(structures))["at"] == "set.xyz, frame 0", "no energies to go by"


def test_a_small_molecule_relaxes_without_an_engine_in_float64(model, structures, monkeypatch):
    """Which a training would have to compile for this alone."""
    engines, make = [], CpuEngine.__init__
    monkeypatch.setattr(
        CpuEngine, "__init__", lambda self, potential: engines.append(potential.dtype) or make(self, potential)
    )
    single = copy.deepcopy(model).float()
    found = surface(single, dataset(structures))
    assert engines == [torch.float32]
    expected = roughness(single, structures[0])
    assert engines == [torch.float32, torch.float64]
    assert found["largest"] == pytest.approx(expected.largest, abs=0.05)


def test_what_has_no_single_minimum_is_left_out_with_the_reason(model, structures, monkeypatch):
    crystal = structures[0].copy()
    crystal.set_cell([9, 9, 9])
    crystal.pbc = True
    other = structures[0].copy()
    other.numbers = other.numbers[::-1]
    single = structures[0][:1]
    for frames, reason in (
        ([crystal], "periodic"),
        ([structures[0], other], "of different molecules"),
        ([structures[0], structures[0][:5]], "of different molecules"),
        ([single], "molecules of 1 atoms"),
    ):
        found = surface(model, dataset(frames))
        assert reason in found["left_out"]
        assert describe_surface(found) == f"not computed: {found['left_out']}"

    def fails(*_, **__):
        raise PaiNNFastError("the structure does not relax")

    monkeypatch.setattr(sys.modules["painn_fast.train.surface"], "roughness", fails)
    found = surface(model, dataset(structures))
    assert found["left_out"] == "no minimum near set.xyz, frame 0: the structure does not relax"


def test_a_rough_surface_is_described_as_one(model, structures, monkeypatch):
    monkeypatch.setattr(sys.modules["painn_fast.train.surface"], "roughness", lambda *_, **__: Roughness(41.0, 7.7))
    text = describe_surface(surface(model, dataset(structures)))
    assert text.startswith("at most 41.00 cm-1, 7.70 cm-1 in the mean")
    assert "train with a larger representation.epsilon" in text
