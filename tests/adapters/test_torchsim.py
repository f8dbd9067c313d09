"""Models in TorchSim: their own validation, equal to `evaluate`, and runs of many molecules."""

import doctest

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from engines import require

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential

torch_sim = require("torch_sim")
from torch_sim.models import interface  # noqa: E402

from painn_fast.adapters import torchsim  # noqa: E402
from painn_fast.adapters.torchsim import TorchSimModel  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of TorchSim, of what it imports
CPU = torch.device("cpu")
NEW = hasattr(torch_sim, "Optimizer")
"""Version 0.6; with Python 3.11 there is 0.3."""
FIRE = torch_sim.Optimizer.fire if NEW else torch_sim.optimizers.fire
LANGEVIN = torch_sim.Integrator.nvt_langevin if NEW else torch_sim.integrators.nvt_langevin


def potential(dtype=torch.float64, **given):
    config = PotentialConfig(
        representation=RepresentationConfig(n_features=16, n_layers=2, n_rbf=8, cutoff=4.0, **given),
        heads=(EnergyHead(), DipoleHead(), PolarizabilityHead()),
    )
    return random_potential(config, dtype=dtype)


def state_of(systems, dtype=torch.float64, **extras):
    return torch_sim.io.atoms_to_state(systems, CPU, dtype, **extras)


def crystals():
    rng = np.random.default_rng(0)
    systems = [bulk("Si", "diamond", a=5.43, cubic=True), bulk("Mg", "hcp", a=3.21, c=5.21).repeat([3, 2, 1])]
    systems.append(bulk("Cu", a=3.6))
    for atoms in systems:
        atoms.positions += 0.05 * rng.normal(size=(len(atoms), 3))
        atoms.set_cell(atoms.cell.array + 0.1 * rng.normal(size=(3, 3)))
    return systems


def molecules():
    return [molecule("CH3CH2OH"), molecule("H2O"), molecule("C6H6"), molecule("CH4")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_their_own_validation(dtype):
    model = TorchSimModel(potential(), dtype=dtype)
    if hasattr(interface, "validate_model_outputs"):
        interface.validate_model_outputs(model, CPU, dtype)
    else:
        from torch_sim.testing import make_validate_model_outputs_test

        make_validate_model_outputs_test(lambda: model, device=CPU, dtype=dtype)()


@pytest.mark.parametrize("systems", [crystals(), molecules()], ids=["crystals", "molecules"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_are_those_of_evaluate(systems, dtype):
    own, periodic = potential(dtype), bool(systems[0].pbc.all())
    extras = () if periodic else ("dipole", "polarizability", "charges")
    results = TorchSimModel(own, properties=extras)(state_of(systems))
    names = ["energy", "forces", *extras, *["stress"] * periodic]
    right = pf.evaluate(own, systems, names)
    for name in names:
        if name == "stress":
            voigt = torch_sim.elastic.full_3x3_to_voigt_6_stress(results["stress"])
            np.testing.assert_allclose(voigt, np.stack(right["stress"]), atol=1e-6)
            continue
        joined = np.concatenate if name in ("forces", "charges") else np.stack
        np.testing.assert_allclose(results[name], joined(right[name]), rtol=1e-7, atol=1e-6)
        assert results[name].dtype == torch.float64
    if not periodic:
        assert bool(results["stress"].isnan().all())


def test_forces_of_the_bundled_model_are_those_of_evaluate():
    rng = np.random.default_rng(1)
    systems = [molecule("CH3CH2OH") for _ in range(5)]
    for atoms in systems:
        atoms.rattle(0.1, rng=rng)
    results = TorchSimModel("ethanol")(state_of(systems))
    right = pf.evaluate("ethanol", systems)
    np.testing.assert_allclose(results["forces"], np.concatenate(right["forces"]), atol=1e-6)
    np.testing.assert_allclose(results["energy"], right["energy"], rtol=0, atol=1e-6)


def test_a_graph_is_kept_until_a_pair_could_be_missing(monkeypatch):
    own, built = potential(), []
    original = torchsim.batch_atoms
    monkeypatch.setattr(torchsim, "batch_atoms", lambda *given: built.append(1) or original(*given))
    model, state = TorchSimModel(own), state_of([one.repeat(2) for one in crystals()])
    rng = np.random.default_rng(2)
    for _ in range(12):
        state.positions += torch.tensor(0.05 * rng.normal(size=state.positions.shape))
        fresh = TorchSimModel(own)(state)
        for name, value in model(state).items():
            np.testing.assert_allclose(value, fresh[name], atol=1e-9)
    assert 13 < len(built) < 18, "12 of the fresh ones, and a few"
    for change in ("cell", "atomic_numbers"):
        before = len(built)
        setattr(state, change, getattr(state, change) * 1.01 if change == "cell" else state.atomic_numbers + 1)
        model(state)
        assert len(built) == before + 1, change


@pytest.mark.skipif(not NEW, reason="states of TorchSim 0.3 have no extras")
def test_charge_and_spin_are_those_of_the_state():
    own = potential(charge_embedding={}, spin_embedding={})
    systems = [molecule("OH"), molecule("H2O")]
    state = state_of(systems)
    results = []
    for charge, spin in (([0.0, 0.0], [1.0, 1.0]), ([-1.0, 1.0], [1.0, 2.0])):
        for atoms, q, multiplicity in zip(systems, charge, spin, strict=True):
            atoms.info |= {"charge": q, "spin": multiplicity}
        extended = type(state)(
            positions=state.positions, masses=state.masses, cell=state.cell, pbc=state.pbc,
            atomic_numbers=state.atomic_numbers, system_idx=state.system_idx,
            charge=torch.tensor(charge), spin=torch.tensor(spin),
        )  # fmt: skip
        results.append(TorchSimModel(own)(extended)["energy"])
        np.testing.assert_allclose(results[-1], pf.evaluate(own, systems)["energy"])
    assert bool((results[0] != results[1]).all())


def test_optimisation_and_nvt_of_64_molecules():
    rng = np.random.default_rng(3)
    start = ase.io.read(pf.io.find.MODELS / "ethanol.xyz")
    systems = [start.copy() for _ in range(64)]
    for atoms in systems:
        atoms.rattle(0.05, rng=rng)
    model = TorchSimModel("ethanol", properties=["dipole"])
    final = torch_sim.optimize(
        system=systems, model=model, optimizer=FIRE, max_steps=400,
        convergence_fn=torch_sim.generate_force_convergence_fn(force_tol=0.05, include_cell_forces=False),
    )  # fmt: skip
    assert final.n_systems == 64
    relaxed = pf.evaluate("ethanol", final.to_atoms(), ["energy", "forces", "dipole"])
    assert np.abs(np.stack(relaxed["forces"])).max() < 0.05
    lowest = pf.evaluate("ethanol", [start])["energy"][0]
    np.testing.assert_allclose(final.energy, relaxed["energy"], atol=1e-3)
    assert max(relaxed["energy"]) < lowest + 0.2  # one of the conformers

    state = torch_sim.integrate(
        system=final, model=model, integrator=LANGEVIN, n_steps=200, temperature=300.0, timestep=0.0005,
        gamma=torch.tensor(50.0),
    )  # fmt: skip
    if NEW:
        assert state.dipole.shape == (64, 3)
    kinetic = torch_sim.calc_kT(masses=state.masses, momenta=state.momenta, system_idx=state.system_idx)
    temperature = float(kinetic.mean()) / 8.617333e-5
    assert 240 < temperature < 360, temperature  # 64 x 27 degrees of freedom: 3.4 % at equilibrium
    bonds = [atoms.get_distance(0, 1) for atoms in state.to_atoms()]
    assert 1.3 < min(bonds) < max(bonds) < 1.8
    positions = np.concatenate([atoms.positions for atoms in state.to_atoms()])
    assert np.abs(positions - np.concatenate([atoms.positions for atoms in final.to_atoms()])).max() > 0.05


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"properties": ["hessian"]}, r"does not give these; got: hessian; expected: energies, dipole"),
        ({"properties": "dipole"}, r"one name where a list.*\['dipole'\]"),
        ({"device": "cpu"}, r"takes no more options.*device"),
    ],
)
def test_wrong_arguments_are_named(given, message):
    with pytest.raises(PaiNNFastError, match=message):
        TorchSimModel(potential(), **given)


def test_elements_and_overlaps_are_refused_with_the_system():
    model = TorchSimModel("ethanol")
    with pytest.raises(PaiNNFastError, match=r"an element that the model does not know.*Si"):
        model(state_of([bulk("Si")]))
    state = state_of([molecule("CH3CH2OH"), molecule("CH3OH")])
    model(state)
    state.positions[10] = state.positions[9]
    with pytest.raises(PaiNNFastError, match=r"on top of each other.*structure 1"):
        model(state)
    state.positions[10] = float("nan")
    with pytest.raises(PaiNNFastError, match=r"not finite.*structure 1"):
        model(state)


def test_the_example_of_the_docstring():
    failed, tried = doctest.testmod(torchsim)
    assert (failed, tried) == (0, 7)
