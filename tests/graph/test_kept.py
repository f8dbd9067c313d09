"""A graph is kept while it holds, and built again for each cause that makes it another."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from painn_fast.ase import PaiNNCalculator
from painn_fast.engine.cpu import CpuEngine
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.graph import batch_atoms
from painn_fast.graph.kept import KeptGraph
from painn_fast.graph.skin import SKIN
from painn_fast.nn import DipoleHead, ElectronicConfig, EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential

CUTOFF, CPU = 4.0, torch.device("cpu")
HEADS = (EnergyHead(), DipoleHead())


@pytest.fixture(scope="module")
def potential():
    representation = RepresentationConfig(n_features=16, n_layers=2, n_rbf=8, cutoff=CUTOFF)
    return random_potential(PotentialConfig(representation=representation, heads=HEADS)).float()


@pytest.fixture
def crystal():
    return bulk("NaCl", "rocksalt", a=5.6, cubic=True)


@pytest.fixture
def cluster():
    atoms = bulk("Cu", cubic=True) * (3, 3, 2)
    atoms.pbc = False
    return atoms


@pytest.fixture
def large(crystal):
    return crystal * (3, 3, 3)


def moved(atoms, scale, seed=0):
    other = atoms.copy()
    other.positions += np.random.default_rng(seed).uniform(-scale, scale, other.positions.shape)
    return other


def change(atoms, cause):
    match cause:
        case "element":
            atoms.numbers[0] = 7
        case "cell":
            atoms.cell[0, 0] += 0.1
        case "pbc":
            atoms.set_pbc((True, True, False))
        case "charge":
            atoms.info["charge"] = 1
        case "spin":
            atoms.info["spin"] = 3
        case "atoms":
            atoms += Atoms("H", [[1.4, 1.4, 4.0]])
    return atoms


@pytest.mark.parametrize("cause", ["element", "cell", "pbc", "charge", "spin", "atoms"])
@pytest.mark.parametrize("name", ["molecule", "crystal"])
def test_each_cause_builds_another_graph(crystal, name, cause):
    atoms, kept = molecule("CH3CH2OH") if name == "molecule" else crystal, KeptGraph()
    if (name, cause) == ("molecule", "pbc"):
        atoms.center(vacuum=3.0)
    for k in range(3):
        kept.batch(moved(atoms, 0.01, k), CUTOFF, CPU, lambda: SKIN)
    builds = kept.builds
    assert builds == (1 if name == "molecule" else 2), "of a crystal a plain list first"
    kept.batch(change(atoms, cause), CUTOFF, CPU, lambda: SKIN)
    assert kept.builds == builds + 1


def test_the_cutoff_and_the_number_of_threads_make_another_graph(crystal, monkeypatch):
    kept = KeptGraph()
    for cutoff in (4.0, 4.0, 4.5):
        kept.batch(crystal, cutoff, CPU)
    assert kept.builds == 2
    monkeypatch.setattr("painn_fast.kernels.threads.count", lambda: 7)
    kept.batch(crystal, 4.5, CPU)
    assert kept.builds == 3


@pytest.mark.parametrize("name", ["crystal", "cluster"])
def test_a_list_with_a_skin_holds_until_an_atom_has_moved_by_half_of_it(request, name):
    atoms, kept = request.getfixturevalue(name), KeptGraph()
    for _ in range(2):
        atoms.positions += 0.01
        kept.batch(atoms, CUTOFF, CPU, lambda: SKIN)
    start = atoms.positions.copy()
    for distance, builds in ((0.2, 2), (0.4, 2), (0.499 * SKIN, 2), (0.501 * SKIN, 3)):
        atoms.positions[1] = start[1] + [0.0, distance, 0.0]
        kept.batch(atoms, CUTOFF, CPU, lambda: SKIN)
        assert kept.builds == builds, distance


def test_atoms_that_jump_get_no_skin(crystal):
    kept = KeptGraph()
    for k in range(4):
        batch, _ = kept.batch(moved(crystal, 0.8, k), CUTOFF, CPU, lambda: SKIN)
        assert float(batch.edge_vectors().norm(dim=1).max()) <= CUTOFF
    assert kept.builds == 4


def test_without_leave_a_list_has_no_skin(crystal):
    kept = KeptGraph()
    for k in range(3):
        kept.batch(moved(crystal, 0.01, k), CUTOFF, CPU, lambda: SKIN)
    batch, _ = kept.batch(moved(crystal, 0.01, 2), CUTOFF, CPU)
    assert float(batch.edge_vectors().norm(dim=1).max()) <= CUTOFF


def test_evaluate_keeps_the_graph_of_a_large_structure_that_moves(potential, crystal, monkeypatch):
    made = []
    monkeypatch.setattr("painn_fast.graph.kept.batch_atoms", lambda *args: made.append(1) or batch_atoms(*args))
    model = copy.deepcopy(potential)
    for k in range(5):
        atoms = moved(crystal, 0.02, k)
        forces = evaluate(model, [atoms], ["forces"])["forces"][0]
        assert np.array_equal(forces, evaluate(potential, [atoms, molecule("H2O")], ["forces"])["forces"][0])
    assert len(made) == 2, "a plain list, and one with a skin"
    few = bulk("NaCl", "rocksalt", a=5.6)
    for _ in range(2):
        few.positions[1] += 0.01  # a Hessian is the reference's, for which pairs beyond the cut-off count
        got = evaluate(model, [few], ["hessian"])["hessian"][0]
        assert np.array_equal(got, evaluate(copy.deepcopy(potential), [few], ["hessian"])["hessian"][0])


def test_copies_begin_without_a_graph():
    kept = KeptGraph()
    kept.batch(molecule("H2O"), CUTOFF, CPU)
    for other in (copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        assert other.builds == 0
        other.batch(molecule("H2O"), CUTOFF, CPU)
        assert other.builds == 1


@pytest.mark.parametrize(
    ("position", "message"),
    [(np.nan, "not finite"), (np.inf, "not finite"), (1e9, "absurdly large"), (0.05, "on top of each other")],
)
@pytest.mark.parametrize("name", ["molecule", "crystal"])
def test_every_guard_stays_where_a_graph_is_kept(potential, crystal, name, position, message):
    atoms = molecule("H2O") if name == "molecule" else crystal
    atoms.calc = PaiNNCalculator(potential)
    for _ in range(3):
        atoms.positions += 0.01
        atoms.get_forces()
    atoms.positions[1] = atoms.positions[0] + [0.0, 0.0, position]
    with pytest.raises(PaiNNFastError, match=message) as of_calculator:
        atoms.get_forces()
    with pytest.raises(PaiNNFastError) as of_evaluate:
        evaluate(potential, [atoms])
    assert str(of_calculator.value) == str(of_evaluate.value)
    atoms.positions[1] = atoms.positions[0] + [0.0, 0.0, 1.0]
    assert np.array_equal(atoms.get_forces(), evaluate(potential, [atoms])["forces"][0])


@pytest.mark.parametrize("name", ["molecule", "crystal", "cluster", "large"])
@pytest.mark.parametrize("changing", ["positions", "cell"])
def test_a_trajectory_is_that_of_calculators_without_a_past(potential, request, name, changing):
    atoms = molecule("CH3CH2OH") if name == "molecule" else request.getfixturevalue(name)
    calculator, generator = PaiNNCalculator(potential), np.random.default_rng(3)
    names = ["energy", "forces", "energies", *(["stress"] if atoms.pbc.all() else ["dipole"])]
    for _ in range(30):
        atoms.positions += generator.normal((0.05, 0.0, -0.02), 0.06, atoms.positions.shape)
        if changing == "cell" and atoms.pbc.any():
            atoms.set_cell(atoms.cell.array * generator.uniform(0.995, 1.005), scale_atoms=True)
        expected = evaluate(copy.deepcopy(potential), [atoms], names)
        for key in names:
            assert np.array_equal(calculator.get_property(key, atoms), expected[key][0]), key
    built = 1 if name == "molecule" else 30 if changing == "cell" and name != "cluster" else 15
    assert calculator._graph.builds <= built


def test_charges_along_a_trajectory_are_those_of_the_moment():
    representation = RepresentationConfig(
        n_features=16, n_layers=2, n_rbf=8, cutoff=CUTOFF,
        charge_embedding=ElectronicConfig(), spin_embedding=ElectronicConfig(),
    )  # fmt: skip
    charged = random_potential(PotentialConfig(representation=representation, heads=HEADS)).float()
    atoms, calculator, energies = molecule("H2O"), PaiNNCalculator(charged), []
    for charge, spin in ((0, 1), (1, 2), (-1, 2), (0, 3), (0, 1)):
        atoms.info.update(charge=charge, spin=spin)
        energies.append(calculator.get_property("energy", atoms))
        assert energies[-1] == evaluate(copy.deepcopy(charged), [atoms], ["energy"])["energy"][0]
    assert len(set(energies)) == 4
    assert energies[0] == energies[-1]


def test_threads_that_share_a_model_get_their_own_numbers(potential):
    structures = [moved(molecule(name), 0.05, k) for k in range(8) for name in ("CH3CH2OH", "CH3OCH3")]
    expected = [evaluate(copy.deepcopy(potential), [atoms])["forces"][0] for atoms in structures]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for got, right in zip(
                pool.map(lambda atoms: evaluate(potential, [atoms]), structures), expected, strict=True
            ):
                assert np.array_equal(got["forces"][0], right)


def test_one_workspace_serves_every_step_until_the_weights_change(potential, monkeypatch):
    model, made = copy.deepcopy(potential), []
    workspace = CpuEngine.workspace
    monkeypatch.setattr(CpuEngine, "workspace", lambda self, batch: made.append(batch) or workspace(self, batch))
    atoms, calculator = molecule("H2O"), PaiNNCalculator(model)
    before = calculator.get_property("energy", atoms)
    made.clear()  # the first call compares the engine with the reference, in a workspace of its own
    for _ in range(3):
        atoms.positions += 0.01
        calculator.get_property("energy", atoms)
        evaluate(model, [atoms])
    assert len(made) == 1, "that of evaluate"
    with torch.no_grad():
        model.representation.embedding.weight.mul_(1.5)
    atoms.positions += 0.01
    assert abs(calculator.get_property("energy", atoms) - before) > 1e-4
    assert np.array_equal(evaluate(model, [atoms])["forces"][0], evaluate(copy.deepcopy(model), [atoms])["forces"][0])
