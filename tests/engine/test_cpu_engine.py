"""The engine gives what the reference gives, for every configuration that it accepts."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from painn_fast.engine import CpuEngine, engine_for, refusal
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.graph import batch_atoms
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import TOLERANCE, assert_close, random_potential

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
    "charge": {"charge_embedding": {}},
}
HEADS = (EnergyHead(), DipoleHead(), PolarizabilityHead())
TABLE = 1e-4
"""What the table of filters may cost in float32, relative to the largest value."""
EXACT = TOLERANCE[torch.float64]


def build(option="sinc", dtype=torch.float64, **more):
    config = PotentialConfig(representation=RepresentationConfig(**{**SMALL, **OPTIONS[option]}), heads=HEADS, **more)
    return random_potential(config, dtype=dtype)


def molecules():
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=0)
    return [atoms, Atoms("H"), molecule("C6H6"), Atoms("OC", [[0, 0, 0], [0, 0, 6.0]])]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("neighbors", ["all_pairs", "list"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_the_reference_for_molecules(option, neighbors, dtype):
    potential = build(option, dtype)
    batch = batch_atoms(molecules(), potential.cutoff, neighbors=neighbors)
    names = ["energy", "energies", "forces", "dipole", "charges", "polarizability"]
    engine = CpuEngine(potential)
    work = engine.workspace(batch)
    with torch.no_grad(), potential.reference():
        expected = potential(batch, names)
    for _ in range(2):  # the second time in memory that is not fresh
        got = engine(work, batch.positions, names)
        for name in names:
            assert_close(got[name], expected[name], EXACT if dtype == torch.float64 else TABLE, name)


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
    for name in names:
        assert_close(got[name], expected[name].detach(), EXACT, name)


def test_float32_is_as_good_as_the_reference_in_float32():
    exact, single = build(), build().float()
    batch = batch_atoms(molecules(), exact.cutoff)
    engine = CpuEngine(single)
    got = engine(engine.workspace(batch), batch.positions)
    assert_close(got["forces"], exact(batch)["forces"], 1e-4)


@pytest.mark.parametrize("option", ["sinc", "charge"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_results_do_not_depend_on_threads_or_on_the_batch_and_are_bitwise_repeatable(dtype, option, monkeypatch):
    monkeypatch.setattr("painn_fast.engine.chunks.CHUNK_ATOMS", 40)
    potential = build(option, dtype)
    structures = [atoms for k in range(5) for atoms in molecules()]
    for k, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=k)
        atoms.info["charge"] = k % 3 - 1
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


def with_heads(*heads, **values):
    config = PotentialConfig(representation=RepresentationConfig(**{**SMALL, **values}), heads=heads)
    return random_potential(config)


def test_rows_of_features_and_weights_begin_with_a_line_of_the_cache():
    engine = CpuEngine(random_potential(PotentialConfig(heads=(EnergyHead(),))).float())
    engine(engine.workspace(batch_atoms([molecule("CH3CH2OH")], 5.0)), torch.from_numpy(molecule("CH3CH2OH").positions))
    (scratch,) = engine._memory._local.kinds.values()
    w = engine.weights
    weights = {name: value for name, value in w.layers._asdict().items() if np.ndim(value) == 4}
    rows = weights | {"table": w.table} | scratch.kept._asdict() | {"gs": scratch.gs, "gv_out": scratch.gv_out}
    assert not {name for name, array in rows.items() if array.ndim > 1 and array.size and array.ctypes.data % 64}


def test_on_a_cpu_it_runs_every_model_in_float32_and_float64():
    everything = {"charge_embedding": {}, "spin_embedding": {}, "activation": "shifted_softplus"}
    for potential in (
        with_heads(EnergyHead(), ablation="no_vector_features"),
        with_heads(EnergyHead(n_layers=1), **everything),
        with_heads(DipoleHead()),
    ):
        for dtype in (torch.float32, torch.float64):
            assert refusal(potential.to(dtype)) is None
            assert isinstance(engine_for(potential), CpuEngine)
    half = potential.to(torch.bfloat16)
    assert refusal(half) == "engines run float32 and float64, not bfloat16"
    assert engine_for(half) is None


def test_what_it_refuses_on_a_gpu_is_named():
    assert refusal(with_heads(EnergyHead()), "cuda") is None
    for values, heads, reason in (
        ({"ablation": "no_scalar_product"}, (EnergyHead(),), "ablation 'no_scalar_product'"),
        ({"activation": "shifted_softplus"}, (EnergyHead(),), "activation 'shifted_softplus'"),
        ({"charge_embedding": {}, "spin_embedding": {}}, (EnergyHead(),), "embedding of the charge and the spin"),
        ({}, (DipoleHead(),), "no energy"),
        ({}, (EnergyHead(n_layers=1),), "energy without a hidden layer"),
    ):
        assert refusal(with_heads(*heads, **values), "cuda") == f"the engine for GPUs does not run: {reason}"


def test_engine_that_disagrees_with_the_reference_refuses_to_go_on():
    potential = build(dtype=torch.float32)
    atoms = molecule("CH3CH2OH")
    batch = batch_atoms([atoms], potential.cutoff)
    engine = CpuEngine(potential)
    engine.weights.table[1] *= 1.01
    with pytest.raises(PaiNNFastError, match="disagrees with the reference"):
        engine(engine.workspace(batch), batch.positions)


def test_a_filter_that_is_off_is_found_in_float64_too():
    potential = build()
    batch = batch_atoms(molecules(), potential.cutoff)
    engine = CpuEngine(potential)
    engine.weights.filter[1] *= 1.0 + 1e-7
    with pytest.raises(PaiNNFastError, match="disagrees with the reference"):
        engine(engine.workspace(batch), batch.positions)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["message_1", "mix", "update_2", "update_1_bias"])
def test_a_model_without_an_energy_is_checked_by_its_features(name, dtype):
    potential = with_heads(DipoleHead(), charge_embedding={}).to(dtype)
    batch = batch_atoms(molecules(), potential.cutoff)
    right, wrong = CpuEngine(potential), CpuEngine(potential)
    right(right.workspace(batch), batch.positions, ["dipole"])
    assert right.checked
    getattr(wrong.weights.layers, name)[1] *= -1.0
    with pytest.raises(PaiNNFastError, match=r"disagrees with the reference.*(scalar|vector) features off by"):
        wrong(wrong.workspace(batch), batch.positions, ["dipole"])


def test_auto_takes_the_engine_but_not_inside_of_the_reference():
    for dtype in (torch.float32, torch.float64):
        potential = build(dtype=dtype)
        assert isinstance(engine_for(potential), CpuEngine)
        assert engine_for(potential, "reference") is None
        with potential.reference():
            assert engine_for(potential) is None
            assert isinstance(engine_for(potential, "fused"), CpuEngine)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_atoms_that_coincide_leave_other_molecules_as_they_are(dtype):
    """Exact filters of pairs lie side by side, and the rows of a pair are read with the one behind it."""
    potential = build("charge", dtype)
    structures = [molecule("CH3CH2OH"), molecule("C6H6"), molecule("H2O")]
    batch = batch_atoms(structures, potential.cutoff)
    engine = CpuEngine(potential, threads=1)
    work = engine.workspace(batch)
    right = engine(work, batch.positions)
    for bad in (batch.positions[9], torch.nan, torch.inf):
        positions = batch.positions.clone()
        positions[10] = bad
        got = engine(work, positions, finite=False)
        assert got["forces"][9:21].isnan().any()
        for part in (slice(9), slice(21, None)):
            assert torch.equal(got["forces"][part], right["forces"][part])


def test_a_charge_belongs_to_the_graph_of_a_workspace():
    potential = build("charge")
    names = ["energy", "forces"]
    ions = []
    for charge in (0, 1, -1):
        atoms = molecules()[0]
        atoms.info["charge"] = charge
        ions.append(atoms)
    got = evaluate(potential, ions, names, backend="fused")
    expected = evaluate(potential, ions, names, backend="reference")
    for k in range(3):
        assert_close(got["energy"][k], expected["energy"][k], EXACT)
        assert_close(got["forces"][k], expected["forces"][k], EXACT)
    assert len({round(energy, 6) for energy in got["energy"]}) == 3


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
    potential = with_heads(EnergyHead())
    with pytest.raises(PaiNNFastError, match=r"auto \| fused \| reference"):
        evaluate(potential, [molecule("H2O")], backend="magic")
    with pytest.raises(PaiNNFastError, match=r"cannot run this model.*float64, not bfloat16"):
        evaluate(potential.to(torch.bfloat16), [molecule("H2O")], backend="fused")
