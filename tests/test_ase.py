"""The calculator in ASE's own tools."""

import warnings

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.constraints import FixAtoms
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.vibrations import Infrared

from painn_fast.ase import PaiNNCalculator
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import assert_close, random_potential

SMALL = RepresentationConfig(n_features=16, n_layers=2, n_rbf=8, cutoff=4.0)


@pytest.fixture(scope="module")
def potential():
    return random_potential(
        PotentialConfig(representation=SMALL, heads=(EnergyHead(), DipoleHead(), PolarizabilityHead()))
    )


@pytest.fixture
def water(potential):
    atoms = molecule("H2O")
    atoms.calc = PaiNNCalculator(potential)
    return atoms


def test_every_property_equals_evaluate(water, potential):
    names = ["energy", "energies", "forces", "dipole", "charges", "polarizability", "hessian"]
    expected = evaluate(potential, [water], names)
    for name in names:
        assert_close(water.calc.get_property(name, water), expected[name][0], 1e-14, name)
    assert water.get_potential_energy(force_consistent=True) == water.get_potential_energy()
    assert_close(water.get_dipole_moment(), expected["dipole"][0], 1e-14)
    assert_close(water.get_charges(), expected["charges"][0], 1e-14)


def test_optimizer_finds_a_minimum_and_md_conserves_energy(water):
    BFGS(water, logfile=None).run(fmax=1e-3, steps=200)
    assert np.abs(water.get_forces()).max() < 1e-3
    water.set_momenta(np.random.default_rng(0).normal(scale=0.1, size=(3, 3)))
    start = water.get_total_energy()
    VelocityVerlet(water, 0.1 * units.fs).run(100)
    assert abs(water.get_total_energy() - start) < 1e-3 * water.get_kinetic_energy() + 1e-4


def test_infrared_of_ase_runs(water, tmp_path):
    BFGS(water, logfile=None).run(fmax=1e-4, steps=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        infrared = Infrared(water, name=str(tmp_path / "ir"))
        infrared.run()
        frequencies = infrared.get_frequencies()
    assert np.isfinite(infrared.intensities).all()
    assert len(frequencies) == 9


def test_subclasses_and_constraints_of_atoms_work(potential):
    class Molecule(Atoms):
        pass

    atoms = Molecule(molecule("H2O"))
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = PaiNNCalculator(potential)
    assert not atoms.get_forces()[0].any()
    assert atoms.get_forces(apply_constraint=False)[0].any()


def test_results_follow_the_atoms(water):
    before = water.get_potential_energy()
    water.positions[0, 2] += 0.1
    assert water.get_potential_energy() != before


def test_one_evaluation_serves_energy_and_forces(water, monkeypatch):
    calls = []
    calculate = PaiNNCalculator.calculate
    monkeypatch.setattr(PaiNNCalculator, "calculate", lambda *args: (calls.append(1), calculate(*args)))
    water.get_potential_energy()
    water.get_forces()
    assert len(calls) == 1


def test_dtype_and_device_work_on_a_copy(potential):
    calculator = PaiNNCalculator(potential, "cpu", dtype=torch.float32)
    assert calculator.potential.dtype == torch.float32
    assert potential.dtype == torch.float64


def test_missing_properties_and_unknown_elements_are_refused_clearly():
    config = PotentialConfig(representation=SMALL, heads=(EnergyHead(),), elements=(1, 8))
    calculator = PaiNNCalculator(random_potential(config))
    water, methane = molecule("H2O"), molecule("CH4")
    with pytest.raises(PropertyNotImplementedError):
        calculator.get_property("dipole", water)
    with pytest.raises(PaiNNFastError, match=r"C.*expected: H, O"):
        calculator.get_potential_energy(methane)
    with pytest.raises(PaiNNFastError, match="backend"):
        PaiNNCalculator(random_potential(config), backend="magic")


def test_evaluate_batches_many_structures_and_leaves_them_alone(potential):
    structures = [molecule(name) for name in ("H2O", "CH4", "CH3CH2OH")] * 5
    together = evaluate(potential, structures, ["energy", "forces"], atoms_per_batch=10)
    apart = [evaluate(potential, [atoms], ["energy", "forces"]) for atoms in structures]
    for k, single in enumerate(apart):
        assert_close(together["energy"][k], single["energy"][0], 1e-12)
        assert_close(together["forces"][k], single["forces"][0], 1e-11)
    assert all(atoms.calc is None for atoms in structures)
    with pytest.raises(PaiNNFastError, match=r"\[atoms\]"):
        evaluate(potential, structures[0], ["energy"])
