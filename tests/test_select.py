"""Structures that an ensemble disagrees on."""

import ase.io
import numpy as np
import pytest
from ase.build import molecule

import painn_fast as pf
from painn_fast.cli import main
from painn_fast.io.model_file import save_model
from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.select import select
from painn_fast.testing import random_potential

CONFIG = PotentialConfig(
    representation=RepresentationConfig(n_features=16, n_layers=2, n_rbf=8), heads=(EnergyHead(),), elements=(1, 8)
)


@pytest.fixture(scope="module")
def members():
    return [random_potential(CONFIG, seed=seed).float() for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def candidates():
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(40):
        frames.append(molecule("H2O"))
        frames[-1].positions += rng.normal(scale=0.1, size=(3, 3))
    copies = [atoms.copy() for atoms in frames[:10]]
    for atoms in copies:
        atoms.rotate(30, "x")
    return frames + copies


def test_the_most_doubtful_come_first_and_none_twice(members, candidates):
    ensemble = pf.Ensemble(members)
    selection = select(ensemble, candidates, 100, apart=0.01)
    spread = np.array([s.max() for s in pf.evaluate(ensemble, candidates, ("forces_spread",))["forces_spread"]])
    assert np.allclose(selection.spread, spread)
    assert list(selection.chosen) == sorted(selection.chosen, key=lambda k: -spread[k])
    assert len(selection.chosen) == 40, "turned copies are not new"
    far = select(ensemble, candidates, 100, apart=0.3)
    assert len(far.chosen) < 30
    distances = [candidates[k].get_all_distances()[np.triu_indices(3, 1)] for k in far.chosen]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(distances) for b in distances[:i]]
    assert min(apart) >= 0.3
    assert len(select(ensemble, candidates, 5).chosen) == 5


def test_what_is_broken_is_left_out(members, candidates):
    ensemble = pf.Ensemble(members)
    limit = float(np.median(select(ensemble, candidates, 1).spread))
    selection = select(ensemble, candidates, 100, apart=0.0, spread_below=limit)
    assert (selection.spread[selection.chosen] < limit).all()
    assert len(selection.chosen) == (selection.spread < limit).sum()
    with pytest.raises(pf.PaiNNFastError, match="no structure to choose"):
        select(ensemble, candidates, 5, spread_below=0.0)


def test_the_command_writes_structures_with_their_spread(members, candidates, tmp_path, capsys):
    ase.io.write(tmp_path / "all.xyz", candidates)
    paths = []
    for k, member in enumerate(members):
        paths += ["--model", str(tmp_path / f"{k}.safetensors")]
        save_model(member, tmp_path / f"{k}.safetensors")
    output = tmp_path / "chosen.xyz"
    assert main(["select", str(tmp_path / "all.xyz"), *paths, "-n", "7", "-o", str(output)]) == 0
    frames = ase.io.read(output, index=":")
    spread = [atoms.info["forces_spread"] for atoms in frames]
    assert spread == sorted(spread, reverse=True)
    assert len(frames) == 7
    for atoms in frames:
        assert np.allclose(atoms.positions, candidates[atoms.info["candidate"]].positions, atol=1e-7)
    assert "chosen: 7 structures" in capsys.readouterr().out


def test_other_charges_and_cells_are_other_structures(members):
    frames = [molecule("H2O") for _ in range(6)]
    frames[1].info["charge"] = 1
    frames[2].info["total_charge"] = np.array([1.0])  # the same as before
    frames[3].info["multiplicity"] = 3
    for atoms, length in zip(frames[4:], (9.0, 9.5), strict=True):
        atoms.set_cell([length] * 3)
        atoms.pbc = True
    assert len(select(pf.Ensemble(members), frames, 10).chosen) == 5
