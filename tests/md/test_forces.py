"""The model as a force field, and runs with it."""

import copy

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.io import save_model
from painn_fast.md import MDSettings, ModelForces, Trajectory, run
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import TOLERANCE, assert_close, random_potential

HEADS = (EnergyHead(), DipoleHead(), PolarizabilityHead())
BACKENDS = [("reference", torch.float64, 1e-9), ("fused", torch.float32, 1e-4), ("auto", torch.float64, 1e-10)]
EMBEDDINGS = {"charge_embedding": {}, "spin_embedding": {"n_residual": 2}, "activation": "shifted_softplus"}


def config(heads=HEADS, network=(), **changes):
    representation = RepresentationConfig(n_features=16, n_layers=2, n_rbf=8, cutoff=4.0, **dict(network))
    return PotentialConfig(representation=representation, heads=heads, **changes)


def shaken(atoms, copies, size=0.05):
    noise = np.random.default_rng(0).normal(size=(copies, len(atoms), 3)) * size
    return torch.tensor(atoms.positions + noise)


def cluster():
    """70 atoms, 12 Å across: larger than all pairs are good for."""
    grid = np.stack(np.meshgrid(*[np.arange(5)] * 3), -1).reshape(-1, 3)[:70] * 2.4
    return Atoms("Ne70", positions=grid)


SYSTEMS = {
    "molecule": lambda: molecule("CH3CH2OH"),
    "crystal": lambda: bulk("NaCl", "rocksalt", a=5.6, cubic=True),
    "cluster": cluster,
}


@pytest.mark.parametrize(("backend", "dtype", "tolerance"), BACKENDS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_forces_are_those_of_evaluate(system, backend, dtype, tolerance):
    atoms = SYSTEMS[system]()
    potential = random_potential(config(), dtype=dtype)
    positions = shaken(atoms, 5)
    energy, forces = ModelForces(potential, atoms, backend=backend)(positions)
    copies = [Atoms(atoms.numbers, positions=p, cell=atoms.cell, pbc=atoms.pbc) for p in positions.numpy()]
    expected = evaluate(copy.deepcopy(potential).double(), copies, backend="reference")
    assert energy.dtype == forces.dtype == torch.float64
    assert_close(energy, expected["energy"], tolerance, "energy")
    assert_close(forces, np.stack(expected["forces"]), tolerance, "forces")


@pytest.mark.parametrize(("backend", "dtype", "tolerance"), BACKENDS)
@pytest.mark.parametrize("network", [{}, EMBEDDINGS], ids=["charge of the dipole", "charge of the network"])
def test_observed_properties_are_those_of_evaluate_of_a_charged_molecule(network, backend, dtype, tolerance):
    atoms = molecule("CH3CH2OH")
    atoms.info["charge"] = 1.0
    potential = random_potential(config(network=network), dtype=dtype)
    positions = shaken(atoms, 70)  # more than the reference takes at once
    names = ("dipole", "polarizability")
    forces = ModelForces(potential, atoms, backend=backend)
    energy, gradient, observed = forces.evaluate(positions, names)
    copies = [Atoms(atoms.numbers, positions=p, info={"charge": 1.0}) for p in positions.numpy()]
    wanted = ("energy", "forces", *names)
    expected = evaluate(copy.deepcopy(potential).double(), copies, wanted, backend="reference")
    got = {"energy": energy, "forces": gradient, **observed}
    for name, values in expected.items():
        assert_close(got[name], np.stack(values), tolerance, name)
    for name, values in forces.observe(positions, names).items():
        assert torch.equal(values, observed[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_molecules_evaluated_together_have_a_charge_and_a_multiplicity_each(dtype):
    potential = random_potential(config(network=EMBEDDINGS), dtype=dtype)
    states = [(1, 2), (-1, 2), (0, 3)]
    atoms = [molecule(name) for name in ("H2O", "CH3CH2OH", "O2")]
    for one, (charge, spin) in zip(atoms, states, strict=True):
        one.info |= {"charge": charge, "spin": spin}
    positions = [shaken(one, 3) for one in atoms]
    got = ModelForces(potential, atoms).together(positions)
    for one, moved, (energy, forces, _) in zip(atoms, positions, got, strict=True):
        copies = [Atoms(one.numbers, positions=p, info=one.info) for p in moved.numpy()]
        expected = evaluate(copy.deepcopy(potential).double(), copies, backend="reference")
        assert_close(energy, expected["energy"], TOLERANCE[dtype], "energy")
        assert_close(forces, np.stack(expected["forces"]), 1e-4 if dtype == torch.float32 else 1e-10, "forces")


def test_the_callers_model_is_left_alone():
    potential = random_potential(config())
    atoms = molecule("H2O")
    field = ModelForces(potential, atoms)
    before, _ = field(shaken(atoms, 2))
    with torch.no_grad():
        potential.representation.embedding.weight.zero_()
    assert potential.representation.embedding.weight.requires_grad
    assert torch.equal(field(shaken(atoms, 2))[0], before)


def test_an_element_that_the_model_does_not_know_is_refused_before_the_first_step():
    potential = random_potential(config(elements=(1, 6, 8)))
    with pytest.raises(PaiNNFastError, match=r"element that the model does not know.*got: N;"):
        ModelForces(potential, molecule("NH3"))


@pytest.fixture
def model_file(tmp_path):
    def save(**options):
        path = tmp_path / "model.safetensors"
        save_model(random_potential(config(**options), seed=len(options), dtype=torch.float32), path)
        return path

    return save


def settings(folder, model, **changes):
    values = {"output": str(folder), "model": str(model), "ensemble": "t-rpmd", "beads": 2, "trajectories": 2}
    every = {"positions_every": "0.5 fs", "energies_every": "0.5 fs"}
    return MDSettings.parse({**values, **every, "duration": "10 fs", "time_step": "0.25 fs", **changes})


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_n_steps_restart_and_n_steps_equal_2n_steps_bit_for_bit_with_a_model(tmp_path, model_file, system, backend):
    atoms = SYSTEMS[system]()
    model, hot = model_file(), {"temperature": "600 K", "backend": backend}
    if system == "cluster":
        hot |= {"beads": 1, "trajectories": 1, "duration": "4 fs"}
    half = "2 fs" if system == "cluster" else "5 fs"
    run(settings(tmp_path / "whole", model, **hot), atoms=atoms)
    run(settings(tmp_path / "half", model, **hot | {"duration": half}), atoms=atoms)
    run(settings(tmp_path / "half", model, **hot), atoms=atoms, resume=True)
    one, other = Trajectory(tmp_path / "whole"), Trajectory(tmp_path / "half")
    assert np.array_equal(one.positions, other.positions)
    assert np.array_equal(one.energies["conserved"], other.energies["conserved"])


def test_a_resumed_run_keeps_its_model(tmp_path, model_file):
    atoms = molecule("H2O")
    run(settings(tmp_path / "run", model_file()), atoms=atoms)
    other = model_file(name="other")
    with pytest.raises(PaiNNFastError, match="the run began with another model"):
        run(settings(tmp_path / "run", other, duration="20 fs"), atoms=atoms, resume=True)


def test_the_models_fingerprint_is_written_down(tmp_path, model_file):
    run(settings(tmp_path / "run", model_file()), atoms=molecule("H2O"))
    fingerprint = Trajectory(tmp_path / "run").header["model_sha256"]
    assert len(fingerprint) == 64
    assert fingerprint in (tmp_path / "run" / "settings.toml").read_text()


def test_a_property_that_the_model_does_not_give_is_refused_before_anything_is_written(tmp_path, model_file):
    model = model_file(heads=(EnergyHead(),))
    with pytest.raises(PaiNNFastError, match="the model gives no dipole; where: dipole_every"):
        run(settings(tmp_path / "run", model, dipole_every="1 fs"), atoms=molecule("H2O"))
    assert not (tmp_path / "run").exists()


def test_a_broken_model_costs_no_old_run(tmp_path, model_file):
    model = model_file()
    path = run(settings(tmp_path / "run", model), atoms=molecule("H2O"))
    before = path.read_bytes()
    model.write_bytes(model.read_bytes()[:5000])
    with pytest.raises(PaiNNFastError):
        run(settings(tmp_path / "run", model), atoms=molecule("H2O"), overwrite=True)
    assert path.read_bytes() == before


def test_no_rotation_can_be_removed_from_a_crystal(tmp_path, model_file):
    with pytest.raises(PaiNNFastError, match="remove_rotation makes no sense in a periodic cell"):
        run(settings(tmp_path / "run", model_file(), remove_rotation=True), atoms=SYSTEMS["crystal"]())


def test_a_crystal_in_nve_keeps_its_energy_through_rebuilds(tmp_path):
    """Rebuilds change only which edges of zero weight are in the list."""
    atoms = SYSTEMS["crystal"]()
    potential = random_potential(config())
    field = ModelForces(potential, atoms, skin=0.05)
    values = {"ensemble": "nve", "beads": 1, "time_step": "0.1 fs", "duration": "20 fs", "temperature": "300 K"}
    run(settings(tmp_path / "run", "", **values), force_field=field, atoms=atoms)
    energies = Trajectory(tmp_path / "run").energies
    assert field._parts[0][1].list.builds > 10
    swing = np.ptp(energies["potential"], axis=0)
    assert (np.ptp(energies["conserved"], axis=0) < 1e-3 * swing).all()
