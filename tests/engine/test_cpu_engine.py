"""The engine gives what the reference gives, for every configuration that it accepts."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from painn_fast.engine import CpuEngine, engine_for, supports
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.graph import batch_atoms
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import assert_close, random_potential

SMALL = {"n_features": 24, "n_layers": 3, "n_rbf": 8, "cutoff": 4.0}
OPTIONS = {
    "sinc": {},
    "gaussian": {"radial_basis": "gaussian"},
    "mollifier": {"cutoff_function": "mollifier"},
    "switch": {"cutoff_function": "switch", "switch_on": 2.0},
    "shared_filters": {"shared_filters": True},
    "shared_interactions": {"shared_interactions": True},
    "one layer": {"n_layers": 1},
    "features that fill vectors": {"n_features": 64},
    "shifted softplus": {"activation": "shifted_softplus"},
}
HEADS = (EnergyHead(), DipoleHead(), PolarizabilityHead())
TABLE = 1e-6
"""What the table of filters may cost, relative to the largest value."""


def build(option="sinc", dtype=torch.float64, **more):
    config = PotentialConfig(representation=RepresentationConfig(**{**SMALL, **OPTIONS[option]}), heads=HEADS, **more)
    return random_potential(config, dtype=dtype)


def molecules():
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=0)
    return [atoms, Atoms("H"), molecule("C6H6"), Atoms("OC", [[0, 0, 0], [0, 0, 6.0]])]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("neighbors", ["all_pairs", "list"])
def test_equals_the_reference_for_molecules(option, neighbors):
    potential = build(option)
    batch = batch_atoms(molecules(), potential.cutoff, neighbors=neighbors)
    names = ["energy", "energies", "forces", "dipole", "charges", "polarizability"]
    engine = CpuEngine(potential)
    work = engine.workspace(batch)
    with torch.no_grad(), potential.reference():
        expected = potential(batch, names)
    for _ in range(2):  # the second time in memory that is not fresh
        got = engine(work, batch.positions, names)
        for name in names:
            assert_close(got[name], expected[name], TABLE * (100 if name == "forces" else 10), name)


def test_equals_the_reference_in_a_crystal_and_in_other_units():
    potential = build(energy_unit="kcal/mol", length_unit="Bohr")
    atoms = bulk("MgO", "rocksalt", a=3.2)
    atoms.rattle(0.05, seed=0)
    batch = batch_atoms([atoms], potential.cutoff)
    engine = CpuEngine(potential)
    names = ["energy", "forces", "stress"]
    got = engine(engine.workspace(batch), batch.positions, names)
    with potential.reference():
        expected = potential(batch, names)
    assert_close(got["energy"], expected["energy"].detach(), TABLE)
    assert_close(got["stress"], expected["stress"], 100 * TABLE)
    assert_close(got["forces"], expected["forces"], 100 * TABLE)


def test_float32_is_as_good_as_the_reference_in_float32():
    exact, single = build(), build().float()
    batch = batch_atoms(molecules(), exact.cutoff)
    engine = CpuEngine(single)
    got = engine(engine.workspace(batch), batch.positions)
    assert_close(got["forces"], exact(batch)["forces"], 1e-4)


def test_results_do_not_depend_on_threads_or_on_the_batch_and_are_bitwise_repeatable(monkeypatch):
    monkeypatch.setattr("painn_fast.engine.cpu.CHUNK_ATOMS", 40)
    potential = build(dtype=torch.float32)
    structures = [atoms for k in range(5) for atoms in molecules()]
    for k, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=k)
    batch = batch_atoms(structures, potential.cutoff)
    names = ("energy", "forces", "energies")
    engines = [CpuEngine(potential, threads=n) for n in (1, 2, 2, 3)]
    results = [engine(engine.workspace(batch), batch.positions, names) for engine in engines]
    assert len(engines[0].workspace(batch).chunks) > 3
    for name in names:
        for other in results[1:]:
            assert torch.equal(results[0][name], other[name]), name
    start = 0
    for k, atoms in enumerate(structures):
        one = batch_atoms([atoms], potential.cutoff)
        alone = engines[0](engines[0].workspace(one), one.positions, names)
        assert torch.equal(alone["forces"], results[0]["forces"][start : start + len(atoms)])
        assert torch.equal(alone["energies"], results[0]["energies"][start : start + len(atoms)])
        assert alone["energy"][0] == results[0]["energy"][k]
        start += len(atoms)


def test_results_do_not_change_when_the_workspace_is_used_again():
    potential = build()
    batch = batch_atoms(molecules(), potential.cutoff)
    engine = CpuEngine(potential)
    work = engine.workspace(batch)
    first = engine(work, batch.positions)
    kept = {name: value.clone() for name, value in first.items()}
    engine(work, batch.positions + 0.1 * torch.randn_like(batch.positions))
    for name, value in first.items():
        assert torch.equal(value, kept[name])


def test_supports_exactly_the_models_that_it_runs():
    assert supports(build())
    assert supports(build("shifted softplus"))
    for values in ({"ablation": "no_vector_features"}, {"charge_embedding": {}}):
        config = PotentialConfig(representation=RepresentationConfig(**SMALL, **values), heads=(EnergyHead(),))
        assert not supports(random_potential(config))


def test_engine_that_disagrees_with_the_reference_refuses_to_go_on():
    potential = build(dtype=torch.float32)
    atoms = molecule("CH3CH2OH")
    batch = batch_atoms([atoms], potential.cutoff)
    engine = CpuEngine(potential)
    engine.weights.table[1] *= 1.01
    with pytest.raises(PaiNNFastError, match="disagrees with the reference"):
        engine(engine.workspace(batch), batch.positions)


def test_auto_takes_the_engine_for_float32_and_the_reference_for_float64():
    assert engine_for(build()) is None
    assert isinstance(engine_for(build(dtype=torch.float32)), CpuEngine)
    assert engine_for(build(dtype=torch.float32), "reference") is None
    assert isinstance(engine_for(build(), "fused"), CpuEngine)


def test_engine_follows_weights_that_change():
    potential = build(dtype=torch.float32)
    atoms = [molecule("CH3CH2OH")]
    before = evaluate(potential, atoms)["energy"][0]
    optimizer = torch.optim.SGD(potential.parameters(), lr=1e-3)
    potential(batch_atoms(atoms, potential.cutoff), ["energy"])["energy"].sum().backward()
    optimizer.step()
    after = evaluate(potential, atoms)["energy"][0]
    assert after != before
    assert after == pytest.approx(evaluate(potential, atoms, backend="reference")["energy"][0], rel=1e-5)


def test_fused_refuses_a_model_that_it_cannot_run():
    config = PotentialConfig(
        representation=RepresentationConfig(**SMALL, ablation="no_vector_features"), heads=(EnergyHead(),)
    )
    with pytest.raises(PaiNNFastError, match="cannot run this model"):
        evaluate(random_potential(config), [molecule("H2O")], backend="fused")
    with pytest.raises(PaiNNFastError, match=r"auto \| fused \| reference"):
        evaluate(random_potential(config), [molecule("H2O")], backend="magic")
