"""Crystals beside molecules: a property is computed for the structures that have it, and left out elsewhere."""

import json

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

import painn_fast as pf
from painn_fast.cli import main
from painn_fast.errors import PaiNNFastError
from painn_fast.graph import batch_atoms
from painn_fast.io import save_model
from painn_fast.nn import DipoleHead, EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import assert_close, random_potential
from painn_fast.train import run
from painn_fast.train.data import read_file
from painn_fast.train.evaluation import error_table, predict, usable
from painn_fast.train.loss import joint_loss
from painn_fast.train.settings import DataFile, TrainSettings

PROPERTIES = ("energy", "forces", "stress", "dipole")


@pytest.fixture(scope="module")
def potential():
    config = PotentialConfig(
        name="mixed",
        representation=RepresentationConfig(n_features=8, n_layers=1, n_rbf=5, cutoff=4.0),
        heads=(EnergyHead(), DipoleHead()),
    )
    return random_potential(config, seed=1)


@pytest.fixture
def structures():
    """Crystal, molecule, slab, crystal, molecule, with whatever labels they may have."""
    rng = np.random.default_rng(0)
    slab = bulk("MgO", "rocksalt", 4.3, cubic=True)
    slab.pbc = [True, True, False]
    found = [bulk("MgO", "rocksalt", 4.2), molecule("H2O"), slab, bulk("MgO", "rocksalt", 4.4), molecule("CH4")]
    for atoms in found:
        atoms.rattle(0.02, rng=rng)
        results = {"energy": rng.normal(), "forces": rng.normal(size=(len(atoms), 3))}
        results |= {"stress": rng.normal(size=6)} if atoms.pbc.any() else {"dipole": rng.normal(size=3)}
        atoms.calc = SinglePointCalculator(atoms, **results)
    return found


@pytest.fixture
def mixed(structures, tmp_path):
    ase.io.write(tmp_path / "set.xyz", structures * 4)
    return tmp_path / "set.xyz"


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_evaluate_gives_what_is_defined_and_nan_elsewhere(potential, structures, backend):
    together = pf.evaluate(potential, structures, PROPERTIES, backend=backend)
    for k, atoms in enumerate(structures):
        own = ["energy", "forces", *(["stress"] * int(atoms.pbc.all())), *(["dipole"] * (not atoms.pbc.any()))]
        alone = pf.evaluate(potential, [atoms], own, backend=backend)
        for name in own:
            assert_close(together[name][k], alone[name][0], 1e-10, f"{name} of {k}")
        for name in set(PROPERTIES) - set(own):
            assert np.isnan(together[name][k]).all()
            assert together[name][k].shape == {"stress": (6,), "dipole": (3,)}[name]


def test_a_property_that_no_structure_has_is_an_error(potential, structures):
    for atoms, name in ((structures[1], "stress"), (structures[2], "stress"), (structures[0], "dipole")):
        with pytest.raises(PaiNNFastError, match="periodic"):
            pf.evaluate(potential, [atoms] * 2, [name])


def test_an_ensemble_has_means_and_spreads_of_what_is_defined(potential, structures):
    other = random_potential(potential.config, seed=2)
    names = ("energy", "stress", "stress_spread", "dipole_spread", "charges_spread")
    found = pf.evaluate(pf.Ensemble([potential, other]), structures, names)
    parts = [pf.evaluate(one, [structures[0]], ["stress"])["stress"][0] for one in (potential, other)]
    assert_close(found["stress"][0], np.mean(parts, axis=0), 1e-12)
    assert np.isnan(found["stress_spread"]).tolist() == [False, True, True, False, True]
    assert np.isnan(found["dipole_spread"]).tolist() == [True, False, True, True, False]
    assert [np.isnan(entry).any() for entry in found["charges_spread"]] == [True, False, True, True, False]
    assert len(found["charges_spread"][2]) == 8


def test_errors_are_over_the_labels_that_are_defined(potential, mixed, structures):
    lines = []
    table = error_table(potential, mixed, split="all", tell=lines.append)
    assert {name: row["labels"] for name, row in table.items()} == {
        "energy": 20,
        "forces": 80,
        "stress": 8,
        "dipole": 8,
    }
    assert "stress of 4 structures is not used, as they are not periodic in three directions" in lines
    crystal = structures[0]
    ase.io.write(mixed, crystal)
    alone = error_table(potential, mixed, split="all")["stress"]["mae"]
    stress = pf.evaluate(potential, [ase.io.read(mixed)], ["stress"])["stress"][0] - crystal.get_stress()
    assert alone == pytest.approx(np.abs(stress[[0, 1, 2, 3, 3, 4, 4, 5, 5]]).mean(), rel=1e-6)


def test_predictions_of_a_mixed_set_are_those_of_its_structures(potential, mixed):
    data = read_file(DataFile(file=mixed.name), mixed.parent)
    together = predict(potential, data)
    assert np.isnan(together["stress"]).all(axis=(1, 2)).tolist() == [False, True, True, False, True] * 4
    for row in range(5):
        part = data.select([row])
        for name, values in predict(potential, part).items():
            index = slice(data.first[row], data.first[row + 1]) if name == "forces" else slice(row, row + 1)
            np.testing.assert_allclose(together[name][index], values, rtol=1e-9, atol=1e-12, err_msg=name)


def test_the_gradient_of_a_mixed_batch_is_the_sum_of_those_of_its_parts(potential, structures):
    """Nothing of the structures that lack a property, such as 0 / 0, reaches the weights."""
    shapes = {"energy": (), "stress": (3, 3), "dipole": (3,)}

    def gradient(atoms):
        batch = batch_atoms(atoms, potential.cutoff)
        names = [
            name
            for name in shapes
            if name == "energy" or (batch.pbc.all(1) if name == "stress" else ~batch.pbc.any(1)).any()
        ]
        results = potential(batch, names, create_graph=True)
        labels = {name: torch.zeros(len(atoms), *shapes[name]) for name in names}
        for name in set(names) - {"energy"}:
            has = batch.pbc.all(1) if name == "stress" else ~batch.pbc.any(1)
            labels[name][~has] = torch.nan
        weights, counts = dict.fromkeys(shapes, 1.0), dict.fromkeys(shapes, 1)
        loss, _ = joint_loss(results, labels, batch, weights, counts)
        potential.zero_grad()
        loss.backward()
        return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).ravel() for p in potential.parameters()])

    whole, parts = gradient(structures), sum(gradient([atoms]) for atoms in structures)
    assert torch.isfinite(whole).all()
    assert_close(whole, parts, 1e-8)


def test_training_takes_a_mixed_set(mixed, tmp_path):
    settings = TrainSettings.parse(
        {
            "name": "mixed",
            "output": str(tmp_path / "run"),
            "data": [{"file": mixed.name}],
            "heads": [{"type": "energy"}, {"type": "dipole"}],
            "representation": {"n_features": 8, "n_layers": 1, "n_rbf": 5, "cutoff": 4.0},
            "batch_size": 2,
            "max_epochs": 2,
            "checks": "warn",
            "threads": 1,
        }
    )
    model = pf.load(run(settings, data_folder=tmp_path))
    errors = json.loads((tmp_path / "run" / "errors.json").read_text())
    assert {"energy", "forces", "stress", "dipole"} <= errors["train"].keys()
    assert all(np.isfinite(row["mae"]) for table in errors.values() for row in table.values())
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_a_set_in_which_nothing_wanted_is_defined_says_why(potential, mixed, structures):
    ase.io.write(mixed, [structures[0]] * 2, write_results=False)
    mixed.write_text(mixed.read_text().replace("pbc=", 'dipole="0 0 1" pbc='))
    message = r"nothing to compare.*dipole of 2 structures is not used.*periodic = false"
    with pytest.raises(PaiNNFastError, match=message):
        error_table(potential, mixed, split="all", keys={"energy": "", "forces": ""})
    assert len(usable(read_file(DataFile(file=mixed.name), mixed.parent))) == 0


def test_the_verb_eval_takes_mixed_files(potential, mixed, structures, tmp_path, capsys):
    model = tmp_path / "mixed.safetensors"
    save_model(potential, model)
    assert main(["eval", str(model), str(mixed)]) == 0
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines()] == ["property", "energy", "forces", "stress", "dipole"]
    assert "set.xyz: length Ang (ASE's convention)" in shown.err
    ase.io.write(tmp_path / "bare.xyz", structures, write_results=False)
    everything = tmp_path / "all.json"
    words = ["eval", str(model), str(tmp_path / "bare.xyz"), "--json", str(everything), "--properties"]
    assert main([*words, "energy,stress,dipole"]) == 0
    assert [entry["stress"] is None for entry in json.loads(everything.read_text())] == [False, True, True, False, True]
    ase.io.write(tmp_path / "bare.xyz", structures[0], write_results=False)
    assert main(["eval", str(model), str(tmp_path / "bare.xyz")]) == 0
    assert "mu_x" not in capsys.readouterr().out.splitlines()[-2]
