"""Several models as one: means, spreads, and where they are taken for one model."""

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.optimize import BFGS

import painn_fast as pf
from painn_fast.nn import DipoleHead, EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import assert_close, random_potential

MOLECULES = [molecule("H2O"), molecule("CH3CH2OH"), molecule("CO2")]
NAMES = ("energy", "forces", "dipole")


HEADS = (EnergyHead(), DipoleHead())


def build(seed, heads=HEADS):
    config = PotentialConfig(representation=RepresentationConfig(n_features=16, n_layers=2, n_rbf=8), heads=heads)
    return random_potential(config, seed=seed).double()


@pytest.fixture(scope="module")
def members():
    return [build(seed) for seed in (1, 2, 3)]


def test_values_are_means_and_spreads_standard_deviations(members):
    ensemble = pf.Ensemble(members)
    names = [*NAMES, *(f"{name}_spread" for name in NAMES)]
    out = pf.evaluate(ensemble, MOLECULES, names)
    single = [pf.evaluate(member, MOLECULES, NAMES) for member in members]
    for k in range(len(MOLECULES)):
        for name in NAMES:
            values = np.array([one[name][k] for one in single])
            assert_close(out[name][k], values.mean(axis=0), 1e-12, name)
            squares = ((values - values.mean(axis=0)) ** 2).sum(axis=0) / 2
            axes = 1 if name == "forces" else None
            assert_close(out[f"{name}_spread"][k], np.sqrt(squares.sum(axis=axes)), 1e-10, name)
        assert out["forces_spread"][k].shape == (len(MOLECULES[k]),)


def test_models_that_agree_have_no_spread(members):
    out = pf.evaluate(pf.Ensemble([members[0]] * 4), MOLECULES, ("energy_spread", "forces_spread"))
    assert max(out["energy_spread"]) < 1e-9
    assert max(spread.max() for spread in out["forces_spread"]) < 1e-9


def test_the_calculator_gives_means_and_spreads(members):
    ensemble = pf.Ensemble(members)
    atoms = molecule("H2O")
    atoms.calc = pf.PaiNNCalculator(ensemble)
    expected = pf.evaluate(ensemble, [atoms], ("energy", "forces", "energy_spread", "forces_spread"))
    assert_close(atoms.get_potential_energy(), expected["energy"][0], 1e-12)
    assert_close(atoms.get_forces(), expected["forces"][0], 1e-12)
    assert_close(atoms.calc.results["forces_spread"], expected["forces_spread"][0], 1e-12)
    assert_close(atoms.calc.results["energy_spread"], expected["energy_spread"][0], 1e-12)
    assert atoms.get_dipole_moment().shape == (3,)
    BFGS(atoms, logfile=None).run(fmax=0.5, steps=2)


def test_members_in_another_dtype_are_copies(members):
    single = pf.PaiNNCalculator(pf.Ensemble(members), dtype=torch.float32)
    assert [member.dtype for member in single.potential.members] == [torch.float32] * 3
    assert members[0].dtype == torch.float64


def test_what_is_no_ensemble_is_refused(members):
    with pytest.raises(pf.PaiNNFastError, match="two models or more"):
        pf.Ensemble(members[:1])
    with pytest.raises(pf.PaiNNFastError, match="without a property in common"):
        pf.Ensemble([members[0], build(4, heads=({"type": "scalar", "name": "gap", "unit": "eV"},))])
    with pytest.raises(pf.PaiNNFastError, match=r"does not give.*'gap'.*energy_spread"):
        pf.evaluate(pf.Ensemble(members), MOLECULES, ("gap",))
