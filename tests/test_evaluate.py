"""Errors and warnings of `evaluate` about the caller's structures."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.md import ModelForces
from painn_fast.nn import DipoleHead, EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.nn.config import ElectronicConfig
from painn_fast.testing import random_potential


def build(**representation):
    small = RepresentationConfig(n_features=16, n_layers=1, n_rbf=8, cutoff=4.0, **representation)
    return random_potential(
        PotentialConfig(name="small", representation=small, heads=(EnergyHead(), DipoleHead())), dtype=torch.float32
    )


@pytest.fixture(scope="module")
def model():
    return build()


def water(**info):
    atoms = molecule("H2O")
    atoms.info |= info
    return atoms


def displaced(value):
    atoms = water()
    atoms.positions[1, 2] = value
    return atoms


WRONG = {
    "not finite": (displaced(np.nan), r"structure 7 \(H2O\)"),
    "on top of each other": (Atoms("HH", [[0, 0, 0], [0, 0, 0.01]]), r"structure 7 \(H2\)"),
    "without atoms": (Atoms(), r"structure 7 \(empty\)"),
    "not a spin multiplicity": (water(spin="none"), r"structure 7 \(H2O\), 'spin'"),
}


@pytest.mark.parametrize("atoms_per_batch", [1, 7, 1024])
@pytest.mark.parametrize("problem", WRONG)
def test_an_error_names_the_structure_by_its_index_in_the_list(model, problem, atoms_per_batch):
    atoms, where = WRONG[problem]
    molecules = [water() for _ in range(10)]
    molecules[7] = atoms
    with pytest.raises(PaiNNFastError, match=f"{problem}.*where: {where}"):
        pf.evaluate(model, molecules, atoms_per_batch=atoms_per_batch)


def test_so_it_does_where_properties_split_the_list(model):
    molecules = [bulk("Cu", cubic=True) if k % 2 else water() for k in range(9)]
    molecules[6] = displaced(np.inf)
    with pytest.raises(PaiNNFastError, match=r"not finite.*where: structure 6 \(H2O\)"):
        pf.evaluate(model, molecules, ["energy", "dipole", "stress"])


@pytest.mark.parametrize("properties", [["energy"], ["hessian"]])
def test_a_result_that_is_not_finite_names_the_structure_by_its_index(properties):
    model = build()
    with torch.no_grad():
        model.representation.embedding.weight[8] = torch.nan  # of oxygen
    molecules = [molecule("CH4"), molecule("CH4"), water(), molecule("CH4")]
    with pytest.raises(PaiNNFastError, match=r"no finite numbers; where: structure 2"):
        pf.evaluate(model, molecules, properties, atoms_per_batch=6)


def test_a_charge_that_the_network_ignores_is_reported_once_a_model(capfd):
    model = build()
    usual = pf.evaluate(model, [water()], ["energy"])["energy"]
    assert capfd.readouterr().err == ""
    charged = [water(), water(charge=1, spin=2)]
    assert pf.evaluate(model, charged, ["energy"])["energy"] == 2 * usual
    text = " ".join(capfd.readouterr().err.split())
    assert "warning: a total charge of 1 is ignored by the network of model 'small'" in text
    pf.evaluate(model, charged)
    assert capfd.readouterr().err == ""


def test_a_spin_that_the_network_ignores_is_reported_by_calculator_ensemble_and_dynamics(capfd):
    for use in (
        lambda model, atoms: pf.PaiNNCalculator(model).get_property("energy", atoms),
        lambda model, atoms: pf.evaluate(pf.Ensemble([model, build()]), [atoms], ["energy"]),
        ModelForces,
    ):
        use(build(charge_embedding=ElectronicConfig()), water(charge=1, multiplicity=3))
        assert "a spin multiplicity of 3 is ignored" in " ".join(capfd.readouterr().err.split())


def test_what_the_network_knows_is_not_reported(capfd):
    model = build(charge_embedding=ElectronicConfig(), spin_embedding=ElectronicConfig())
    pf.evaluate(model, [water(charge=1, spin=2)])
    assert capfd.readouterr().err == ""
