"""Members of an ensemble or a sum, evaluated as one: the bits of each alone, whatever they share."""

import copy
import gc
import itertools
import weakref

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

import painn_fast as pf
from painn_fast.engine.committee import Committee
from painn_fast.md import ModelForces
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import assert_close, random_potential

HEADS = (EnergyHead(), DipoleHead(), PolarizabilityHead())
NAMES = ("energy", "energies", "forces", "dipole", "polarizability")
NETWORKS = {
    "alike": [{}] * 4,
    "of different sizes": [{}, {"n_features": 24}, {"n_layers": 3, "cutoff": 3.5}, {"activation": "shifted_softplus"}],
    "with charges": [{"charge_embedding": {}}, {}, {"charge_embedding": {}, "n_features": 20}],
}


def build(seed=0, dtype=torch.float32, heads=HEADS, **network):
    shape = RepresentationConfig(**{"n_features": 16, "n_layers": 2, "n_rbf": 8, "cutoff": 4.0, **network})
    return random_potential(PotentialConfig(representation=shape, heads=heads), seed=seed, dtype=dtype)


def shaken(name, copies=1):
    rng = np.random.default_rng(copies)
    made = [molecule(name) for _ in range(copies)]
    for atoms in made:
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        atoms.info["charge"] = 1.0
    return made


def cluster():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(6.0)] * 3), -1).reshape(-1, 3)[:170] * 2.0
    return ase.Atoms("Ne170", grid + rng.normal(scale=0.1, size=(170, 3)))


def crystal():
    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    atoms.rattle(0.05, seed=0)
    return atoms


STRUCTURES = {
    "one molecule": (shaken("CH3CH2OH"), NAMES),
    "many": ([*shaken("CH3CH2OH", 40), *shaken("H2O", 3)], NAMES),
    "a large one": ([cluster(), *shaken("H2O")], NAMES),
    "a crystal": ([crystal()], ("energy", "forces", "stress")),
}


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def assert_same_bits(got, expected, name):
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert np.array_equal(a, b), name


@pytest.mark.filterwarnings("ignore:a total charge")
@pytest.mark.parametrize("structures", STRUCTURES)
@pytest.mark.parametrize("networks", NETWORKS)
@pytest.mark.parametrize(("dtype", "threads"), [(torch.float32, 2), (torch.float64, 1)], indirect=["threads"])
@pytest.mark.usefixtures("threads")
def test_means_and_sums_are_those_of_the_members_alone_bit_for_bit(networks, dtype, structures):
    atoms, names = STRUCTURES[structures]
    members = [build(seed, dtype, **network) for seed, network in enumerate(NETWORKS[networks])]
    ensemble, total = pf.Ensemble(members), pf.Sum(members)
    assert isinstance(ensemble.evaluator().engine, Committee)
    alone = [pf.evaluate(member, atoms, names) for member in members]
    means, sums = pf.evaluate(ensemble, atoms, names), pf.evaluate(total, atoms, names)
    for name in names:
        values = [np.array(each) for each in zip(*(one[name] for one in alone), strict=True)]
        assert_same_bits(means[name], [each.mean(axis=0) for each in values], name)
        added = name in ("energy", "energies", "forces", "stress")
        assert_same_bits(sums[name], [each.sum(axis=0) if added else each[0] for each in values], name)


@pytest.mark.parametrize(("beads", "threads"), [(1, 1), (1, 2), (16, 2)], indirect=["threads"])
@pytest.mark.usefixtures("threads")
def test_forces_of_dynamics_are_the_mean_of_those_of_the_members_bit_for_bit(beads):
    members = [build(seed) for seed in range(4)]
    atoms = molecule("CH3CH2OH")
    x = torch.tensor(np.stack([one.positions for one in shaken("CH3CH2OH", beads)]))
    energy, forces, observed = ModelForces(pf.Ensemble(members), atoms).evaluate(x, ("dipole",))
    alone = [ModelForces(member, atoms).evaluate(x, ("dipole",)) for member in members]
    each = np.stack([one[1].numpy() for one in alone])
    assert np.array_equal(energy, np.mean([one[0].numpy() for one in alone], axis=0))
    assert np.array_equal(forces, each.mean(axis=0))
    assert np.array_equal(observed["dipole"], np.mean([one[2]["dipole"].numpy() for one in alone], axis=0))
    assert observed["forces_spread"].shape == (beads, len(atoms))
    assert_close(observed["forces_spread"], np.sqrt(each.var(axis=0, ddof=1).sum(axis=-1)), 1e-12)


def test_a_spread_has_the_same_bits_in_any_batch():
    ensemble = pf.Ensemble([build(seed) for seed in range(4)])
    many = shaken("CH3CH2OH", 40)
    names = [name for name in ensemble.properties if not name.startswith("stress")]
    together = pf.evaluate(ensemble, many, names)
    for k, name in itertools.product((0, 7, 39), names):
        if not name.startswith(("dipole", "polarizability", "charges")):  # products of torch's, which know their batch
            assert np.array_equal(together[name][k], pf.evaluate(ensemble, [many[k]], [name])[name][0]), name


def test_the_spread_of_a_stress_counts_each_component_once():
    members = [build(seed) for seed in range(3)]
    spread = pf.evaluate(pf.Ensemble(members), [crystal()], ["stress_spread"])["stress_spread"][0]
    each = [pf.evaluate(member, [crystal()], ["stress"])["stress"][0] for member in members]
    assert_close(spread, np.sqrt(np.var(each, axis=0, ddof=1).sum()), 1e-12)


def test_members_without_an_engine_are_evaluated_one_by_one():
    members = [build(1), build(2).bfloat16()]
    ensemble = pf.Ensemble(members)
    assert ensemble.evaluator().engine is None
    atoms = shaken("H2O", 3)
    means = pf.evaluate(ensemble, atoms, ["forces"])["forces"]
    alone = [pf.evaluate(member, atoms, ["forces"])["forces"] for member in members]
    assert_same_bits(means, [(a.astype(np.float64) + b) / 2 for a, b in zip(*alone, strict=True)], "forces")


def test_an_ensemble_without_an_energy():
    ensemble = pf.Ensemble([build(seed, heads=HEADS[1:]) for seed in (1, 2)])
    atoms = shaken("H2O")
    dipole = pf.evaluate(ensemble, atoms, ["dipole", "dipole_spread"])
    alone = [pf.evaluate(member, atoms, ["dipole"])["dipole"][0] for member in ensemble.members]
    assert np.array_equal(dipole["dipole"][0], np.mean(alone, axis=0))
    with pytest.raises(pf.PaiNNFastError, match="does not give this property"):
        pf.evaluate(ensemble, atoms, ["forces_spread"])


def test_a_member_without_finite_numbers_is_an_error():
    members = [build(1), build(2)]
    with torch.no_grad():
        members[1].representation.embedding.weight.fill_(torch.nan)
    with pytest.raises(pf.PaiNNFastError, match="no finite numbers"):
        pf.evaluate(pf.Ensemble(members), shaken("H2O"))


def test_a_committee_is_kept_until_weights_change_and_goes_with_its_model():
    ensemble = pf.Ensemble([build(1), build(2)])
    first = ensemble.evaluator().engine
    assert ensemble.evaluator().engine is first
    other = copy.deepcopy(ensemble)
    assert other.evaluator().engine is not first
    before = pf.evaluate(ensemble, shaken("H2O"))["energy"][0]
    with torch.no_grad():
        ensemble.members[1].heads["energy"].mean += 1.0
    assert ensemble.evaluator().engine is not first
    assert pf.evaluate(ensemble, shaken("H2O"))["energy"][0] == pytest.approx(before + 1.5)  # of three atoms, halved
    gone = weakref.ref(ensemble), weakref.ref(ensemble.evaluator().engine)
    del ensemble, first
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
