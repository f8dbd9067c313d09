"""The engine gives what the reference gives, for every configuration that it accepts."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from painn_fast.engine import CopiesEngine, CpuEngine, engine_for, supports
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.graph import batch_arrays, batch_atoms
from painn_fast.kernels.message.cpu import edge_geometry, message_fwd
from painn_fast.kernels.message.reference import message
from painn_fast.kernels.radial.table import tabulate
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
    with torch.no_grad():
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
    got, expected = engine(engine.workspace(batch), batch.positions), potential(batch)
    assert_close(got["energy"], expected["energy"].detach(), TABLE)
    assert_close(got["forces"], expected["forces"], 100 * TABLE)


def test_forces_are_the_exact_derivative_of_the_engine_s_own_energy():
    potential = build()
    atoms = molecules()[0]
    batch = batch_atoms([atoms], potential.cutoff)
    engine = CpuEngine(potential)
    work = engine.workspace(batch)
    forces = engine(work, batch.positions)["forces"]
    step = 1e-4
    for i, c in ((0, 0), (4, 2), (8, 1)):
        values = []
        for k in (-2, -1, 1, 2):
            moved = batch.positions.clone()
            moved[i, c] += k * step
            values.append(float(engine(work, moved, ["energy"])["energy"]))
        slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
        assert slope == pytest.approx(-float(forces[i, c]), abs=1e-7 * float(forces.abs().max()))


def test_float32_is_as_good_as_the_reference_in_float32():
    exact, single = build(), build().float()
    batch = batch_atoms(molecules(), exact.cutoff)
    engine = CpuEngine(single)
    got = engine(engine.workspace(batch), batch.positions)
    assert_close(got["forces"], exact(batch)["forces"], 1e-4)


def test_copies_do_not_depend_on_threads_and_are_bitwise_repeatable():
    potential = build(dtype=torch.float32)
    atoms = molecule("CH3CH2OH")
    positions = torch.from_numpy(atoms.positions + 0.05 * np.random.default_rng(0).normal(size=(37, 9, 3)))
    one = batch_atoms([atoms], potential.cutoff)
    names = ("energy", "forces", "dipole", "polarizability")
    results = [CopiesEngine(potential, one, threads=n)(positions, names) for n in (1, 2, 2, 3)]
    reference = potential(batch_arrays(atoms.numbers, positions), names)
    before = torch.get_num_threads()
    for name in names:
        assert_close(results[0][name].reshape(reference[name].shape), reference[name].detach(), 2e-5, name)
        for other in results[1:]:
            assert torch.equal(results[0][name], other[name]), name
    assert torch.get_num_threads() == before


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


def test_models_that_it_cannot_run_are_told_apart():
    assert supports(build())
    for values in ({"ablation": "no_vector_features"}, {"activation": "shifted_softplus"}, {"charge_embedding": {}}):
        config = PotentialConfig(representation=RepresentationConfig(**SMALL, **values), heads=(EnergyHead(),))
        assert not supports(random_potential(config))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("features", [1, 16, 63])
def test_message_kernel_equals_its_reference(features, dtype):
    generator = torch.Generator().manual_seed(0)
    atoms = molecules()[2]
    batch = batch_atoms([atoms], 4.0, neighbors="list")
    n, e = batch.n_total, len(batch.receiver)
    coefficients = torch.randn(6, 3 * features, generator=generator, dtype=torch.float64)

    def filters(d):
        powers = torch.stack([torch.sin(k * d) for k in range(1, 7)], dim=1)
        return powers @ coefficients * (0.5 * (torch.cos(d * torch.pi / 4.0) + 1))[:, None]

    table = tabulate(filters, 4.0, dtype=dtype)
    x = torch.randn(n, 3 * features, generator=generator, dtype=torch.float64).to(dtype)
    v = torch.randn(n, 3, features, generator=generator, dtype=torch.float64).to(dtype)
    r = batch.edge_vectors()
    d = r.norm(dim=1)
    expected = message(x, v, filters(d).to(dtype), (r / d[:, None]).to(dtype), batch.receiver, batch.sender)
    direction, distance, fraction = np.zeros((e, 3), x.numpy().dtype), *(np.zeros(e, x.numpy().dtype) for _ in range(2))
    knot = np.zeros(e, np.int64)
    rows, senders = batch.row_ptr.numpy(), batch.sender.numpy()
    edge_geometry(
        batch.positions.numpy(), rows, senders, batch.shift.numpy(), 1.0, table.start, table.spacing, table.cutoff,
        direction, distance, knot, fraction,
    )  # fmt: skip
    ds, dv = np.zeros((n, features), x.numpy().dtype), np.zeros((n, 3, features), x.numpy().dtype)
    message_fwd(x.numpy(), v.numpy(), table.rows.numpy(), rows, senders, direction, knot, fraction, True, ds, dv)
    tolerance = 1e-7 if dtype == torch.float64 else 1e-5
    assert_close(ds, expected[0], tolerance, "ds")
    assert_close(dv, expected[1], tolerance, "dv")


def test_engine_that_disagrees_with_the_reference_refuses_to_go_on():
    potential = build(dtype=torch.float32)
    atoms = molecule("CH3CH2OH")
    engine = CopiesEngine(potential, batch_atoms([atoms], potential.cutoff))
    engine.engine.layers[1].rows[:] *= 1.01
    with pytest.raises(PaiNNFastError, match="disagrees with the reference"):
        engine(torch.from_numpy(atoms.positions)[None])


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
        representation=RepresentationConfig(**SMALL, activation="shifted_softplus"), heads=(EnergyHead(),)
    )
    with pytest.raises(PaiNNFastError, match="cannot run this model"):
        evaluate(random_potential(config), [molecule("H2O")], backend="fused")
    with pytest.raises(PaiNNFastError, match=r"auto \| fused \| reference"):
        evaluate(random_potential(config), [molecule("H2O")], backend="magic")
