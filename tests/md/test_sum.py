"""Sums of models as one: in dynamics, in `evaluate` and in the calculator."""

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.io.model_file import save_model
from painn_fast.md import ForceField, MDSettings, ModelForces, Trajectory, run
from painn_fast.md.forces import SumForces
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import assert_close, random_potential

ETHANOL = molecule("CH3CH2OH")


def build(seed, heads, cutoff=5.0):
    network = RepresentationConfig(n_features=16, n_layers=2, n_rbf=8, cutoff=cutoff)
    model = random_potential(PotentialConfig(representation=network, heads=heads), seed=seed).double()
    if any(isinstance(head, EnergyHead) for head in heads):
        with torch.no_grad():  # soft, so that atoms that nothing binds stay where they are for some steps
            for parameter in list(model.heads["energy"].parameters())[-2:]:
                parameter.mul_(0.05)
    return model


@pytest.fixture(scope="module")
def models():
    """One that gives dipoles, one with a shorter cut-off that gives dipoles too, one that gives polarizabilities."""
    heads = ((EnergyHead(), DipoleHead()),) * 2 + ((EnergyHead(), PolarizabilityHead()),)
    return [build(k, some, cutoff) for k, (some, cutoff) in enumerate(zip(heads, (5.0, 2.5, 4.0), strict=True))]


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sum")
    for k, model in enumerate(models):
        save_model(model, folder / f"{k}.safetensors")
    ase.io.write(folder / "start.xyz", ETHANOL)
    return folder


def test_energies_and_derivatives_add_and_the_first_that_has_another_property_gives_it(models):
    together = pf.Sum(models)
    frames = [ETHANOL, molecule("H2O")]
    names = ("energy", "energies", "forces", "hessian")
    out = pf.evaluate(together, frames, (*names, "dipole", "polarizability"))
    each = [pf.evaluate(model, frames, names) for model in models]
    for k in range(len(frames)):
        for name in names:
            assert_close(out[name][k], sum(one[name][k] for one in each), 1e-12, name)
        assert_close(out["dipole"][k], pf.evaluate(models[0], frames, ["dipole"])["dipole"][k], 1e-14)
        expected = pf.evaluate(models[2], frames, ["polarizability"])["polarizability"][k]
        assert_close(out["polarizability"][k], expected, 1e-14)


def test_stresses_add(models):
    salt = bulk("NaCl", "rocksalt", 5.6)
    salt.rattle(0.1, seed=1)
    each = [pf.evaluate(model, [salt], ["stress"])["stress"][0] for model in models]
    assert_close(pf.evaluate(pf.Sum(models), [salt], ["stress"])["stress"][0], sum(each), 1e-12)


def test_the_calculator_of_a_sum_has_forces_of_its_energy(models):
    atoms = ETHANOL.copy()
    atoms.calc = pf.PaiNNCalculator(pf.Sum(models))
    forces, step = atoms.get_forces(), 1e-4
    for atom, axis in ((0, 0), (4, 2), (8, 1)):
        energies = []
        for sign in (1, -1):
            atoms.positions[atom, axis] += sign * step
            energies.append(atoms.get_potential_energy())
            atoms.positions[atom, axis] -= sign * step
        assert (energies[1] - energies[0]) / (2 * step) == pytest.approx(forces[atom, axis], abs=1e-6)
    with pytest.raises(PaiNNFastError, match=r"does not give this property.*'magmom'"):
        pf.evaluate(pf.Sum(models), [atoms], ["magmom"])


def test_a_member_without_an_energy_is_refused(models):
    with pytest.raises(PaiNNFastError, match="without an energy in a sum; where: member 1"):
        pf.Sum([models[0], build(5, (DipoleHead(),))])
    with pytest.raises(PaiNNFastError, match="a sum of models needs two"):
        pf.Sum(models[:1])


def test_the_force_field_of_a_sum_is_that_of_evaluate(models):
    positions = torch.tensor(np.stack([ETHANOL.positions, 1.01 * ETHANOL.positions]))
    field = SumForces([ModelForces(model, ETHANOL) for model in models], {"polarizability": 2})
    energy, forces, observed = field.evaluate(positions, ("dipole", "polarizability"))
    frames = [ase.Atoms(ETHANOL.numbers, place) for place in positions.numpy()]
    expected = pf.evaluate(pf.Sum(models), frames, ("energy", "forces", "dipole", "polarizability"))
    assert_close(energy, np.array(expected["energy"]), 1e-10)
    assert_close(forces, np.array(expected["forces"]), 1e-10)
    for name in ("dipole", "polarizability"):
        assert_close(observed[name], np.array(expected[name]), 1e-10)
        assert_close(field.observe(positions, [name])[name], observed[name], 1e-14)


def settings(files, output, **others):
    start = {"model": str(files / "0.safetensors"), "structure": str(files / "start.xyz"), "dtype": "float64"}
    added = [str(files / f"{k}.safetensors") for k in (1, 2)]
    every = {f"{name}_every": "1 fs" for name in ("positions", "dipole", "polarizability")}
    return MDSettings.parse(
        {**start, "add": added, "trajectories": 2, "fragments": "off", **every, "output": str(output), **others}
    )


def test_a_run_of_a_sum_goes_on_bit_for_bit_and_conserves_energy(files, tmp_path):
    whole = Trajectory(run(settings(files, tmp_path / "whole", duration="40 fs", time_step="0.25 fs")))
    run(settings(files, tmp_path / "parts", duration="20 fs", time_step="0.25 fs"))
    parts = Trajectory(run(settings(files, tmp_path / "parts", duration="40 fs", time_step="0.25 fs"), resume=True))
    for name in ("positions", "dipole", "polarizability"):
        assert np.array_equal(whole.read(name), parts.read(name)), name
    conserved = whole.energies["conserved"]
    assert np.ptp(conserved, axis=0).max() < 0.02 * np.ptp(whole.energies["potential"], axis=0).max()


def test_a_run_does_not_go_on_with_another_sum(files, tmp_path):
    run(settings(files, tmp_path, duration="2 fs"))
    for numbers in ((2,), (2, 1)):
        added = [str(files / f"{k}.safetensors") for k in numbers]
        with pytest.raises(PaiNNFastError, match="began with another model"):
            run(settings(files, tmp_path, duration="4 fs", add=added), resume=True)


def test_corrections_are_added_to_the_mean_of_an_ensemble(files, models, tmp_path):
    members = [str(files / "0.safetensors"), str(files / "1.safetensors")]
    added = [str(files / "2.safetensors")]
    path = run(
        settings(files, tmp_path, model="", members=members, add=added, duration="1 fs", energies_every="0.5 fs")
    )
    first = Trajectory(path).energies["potential"][0]
    mean, correction = (pf.evaluate(one, [ETHANOL])["energy"][0] for one in (pf.Ensemble(models[:2]), models[2]))
    assert_close(first, np.full(2, mean + correction), 1e-8)


def test_the_command_adds_models(files, tmp_path):
    from typer.testing import CliRunner

    from painn_fast.cli.app import app

    flags = [
        "--model",
        str(files / "0.safetensors"),
        "--structure",
        str(files / "start.xyz"),
        "--duration",
        "1 fs",
        "--fragments",
        "off",
    ]
    added = ["--add", str(files / "1.safetensors"), "--add", str(files / "2.safetensors")]
    output = ["--output", str(tmp_path / "md"), "--polarizability-every", "0.5 fs"]
    result = CliRunner().invoke(app, ["md", *flags, *added, *output])
    assert result.exit_code == 0, result.output
    assert Trajectory(tmp_path / "md").read("polarizability").shape == (3, 1, 3, 3)


class Springs(ForceField):
    """Atoms on springs to the origin, as a CUDA graph needs them."""

    def __init__(self, stiffness):
        self.stiffness = stiffness

    def __call__(self, positions):
        return 0.5 * self.stiffness * positions.square().sum((1, 2)), -self.stiffness * positions

    def launches(self, positions):
        return lambda: [self(x) for x in positions]


def test_launches_of_a_sum_add_and_need_those_of_all_members(models):
    positions = [torch.tensor(ETHANOL.positions)[None].expand(2, -1, -1), torch.ones(1, 3, 3, dtype=torch.float64)]
    launches = SumForces([Springs(1.0), Springs(2.5)]).launches(positions)
    for (energy, forces), x in zip(launches(), positions, strict=True):
        assert_close(energy, 1.75 * x.square().sum((1, 2)), 1e-14)
        assert_close(forces, -3.5 * x, 1e-14)
    assert SumForces([Springs(1.0), ModelForces(models[0], ETHANOL)]).launches(positions[:1]) is None
