"""Systems of OpenMM with a model: mixed, with a cut bond, interpolated, charged, serialized; options and errors."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from engines import config, require
from openmm_contexts import TIGHT, assert_same, context_of, results, topology

from painn_fast import PaiNNFastError, evaluate, load
from painn_fast.nn.config import ElectronicConfig
from painn_fast.testing import random_potential
from painn_fast.units import KJ_PER_MOL

openmmml = require("openmmml")
openmm = require("openmm")
unit = openmm.unit
from painn_fast.adapters import openmm as adapter  # noqa: E402  needs OpenMM


@pytest.fixture
def mixture(ethanol):
    """Ethanol between two argon atoms in a periodic box, with a force field of Lennard-Jones terms."""
    atoms = Atoms("Ar") + ethanol + Atoms("Ar")
    atoms.set_cell(np.diag([24.0, 25.0, 26.0]))
    atoms.pbc = True
    atoms.positions[0], atoms.positions[-1] = [5.0, 0.0, 0.0], [0.0, 5.0, 1.0]
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(atoms.cell.array * unit.angstrom))
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    for k, mass in enumerate(atoms.get_masses()):
        system.addParticle(mass)
        force.addParticle(0.0, 0.05 + 0.28 * (k % 10 == 0), 0.9)
    system.addForce(force)
    return atoms, system, list(range(1, len(atoms) - 1))


@pytest.mark.parametrize("order", [1, -1])
def test_a_mixed_system_has_the_model_on_its_atoms_and_nothing_else(order, mixture, potential, ethanol):
    atoms, system, inside = mixture
    mixed = potential.createMixedSystem(topology(atoms), system, inside[::order])
    rest = openmm.XmlSerializer.clone(mixed)
    (added,) = [k for k, one in enumerate(mixed.getForces()) if isinstance(one, openmm.PythonForce)]
    rest.removeForce(added)
    wrapped = atoms.copy()
    wrapped.positions[4] += wrapped.cell.array[2]  # of the molecule
    energy, forces = results(context_of(mixed, wrapped))
    other_energy, other_forces = results(context_of(rest, wrapped))
    expected = evaluate("ethanol", [ethanol])
    assert abs(energy - other_energy - expected["energy"][0]) < TIGHT
    difference = forces - other_forces
    np.testing.assert_allclose(difference[inside], expected["forces"][0], atol=TIGHT)
    np.testing.assert_allclose(difference[[0, -1]], 0.0, atol=TIGHT)
    assert abs(other_forces[[0, -1]]).max() > 1e-4


def test_a_bond_that_is_cut_is_capped_by_a_hydrogen_of_the_model(potential, ethanol):
    """openmm-ml puts it on the bond, as a virtual site; beads are then evaluated alone."""
    made = topology(ethanol)
    atoms = list(made.atoms())
    made.addBond(atoms[0], atoms[1])  # the bond between the carbon atoms
    system = openmm.System()
    for mass in ethanol.get_masses():
        system.addParticle(mass)
    bonds = openmm.HarmonicBondForce()
    bonds.addBond(0, 1, 0.153, 1000.0)
    system.addForce(bonds)
    distances = ethanol.get_all_distances()
    methyl = [0, *(k for k in range(9) if ethanol.symbols[k] == "H" and distances[0, k] < 1.3)]
    integrator = adapter.BatchedRPMDIntegrator(2, 300.0, 1.0, 0.0005)
    info = potential.createMixedSystem(made, system, methyl, returnInfo=True, integrator=integrator)
    mixed, both = info["system"], info["topology"]
    (cap,) = [k for k in range(mixed.getNumParticles()) if mixed.isVirtualSite(k)]
    assert [atom.element.symbol for atom in both.atoms()][cap] == "H"
    context = openmm.Context(mixed, integrator, openmm.Platform.getPlatformByName("Reference"))
    positions = np.zeros((mixed.getNumParticles(), 3))
    positions[info["oldToNew"]] = ethanol.positions
    context.setPositions(positions * unit.angstrom)
    context.computeVirtualSites()
    state = context.getState(positions=True)
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    inside = [*(info["oldToNew"][k] for k in methyl), cap]
    capped = Atoms([*ethanol.symbols[methyl], "H"], positions[inside])
    bond = 0.5 * 1000.0 * (ethanol.get_distance(0, 1) / 10 - 0.153) ** 2 * KJ_PER_MOL
    assert abs(results(context)[0] - bond - evaluate("ethanol", [capped])["energy"][0]) < TIGHT
    integrator.step(2)


def test_an_interpolated_system_goes_from_the_force_field_to_the_model(mixture, potential):
    atoms, system, inside = mixture
    context = context_of(potential.createMixedSystem(topology(atoms), system, inside, interpolate=True), atoms)
    ends = [system, potential.createMixedSystem(topology(atoms), system, inside)]
    expected = [results(context_of(end, atoms)) for end in ends]
    for weight in (0.0, 0.4, 1.0):
        context.setParameter("lambda_interpolate", weight)
        energy, forces = results(context)
        assert abs(energy - (1 - weight) * expected[0][0] - weight * expected[1][0]) < 10 * TIGHT
        np.testing.assert_allclose(forces, (1 - weight) * expected[0][1] + weight * expected[1][1], atol=TIGHT)


def test_charge_and_multiplicity_reach_a_model_with_embeddings():
    model = random_potential(config(charge_embedding=ElectronicConfig(), spin_embedding=ElectronicConfig()))
    potential = openmmml.MLPotential("painn-fast", model=model)
    energies = []
    for charge, multiplicity in ((0, 1), (-1, 1), (0, 3)):
        atoms = molecule("H2O")
        system = potential.createSystem(topology(atoms), charge=charge, multiplicity=multiplicity)
        atoms.info |= {"charge": charge, "spin_multiplicity": multiplicity}
        context = context_of(system, atoms)
        assert_same(context, model, atoms)
        energies.append(results(context)[0])
    assert len({round(energy, 6) for energy in energies}) == 3


def test_a_system_that_is_serialized_and_read_has_the_model(potential, ethanol):
    text = openmm.XmlSerializer.serialize(potential.createSystem(topology(ethanol)))
    assert_same(context_of(openmm.XmlSerializer.deserialize(text), ethanol), "ethanol", ethanol)


def test_options_of_the_model(ethanol):
    exact = openmmml.MLPotential("painn-fast", model="ethanol", dtype="float64", backend="reference")
    context = context_of(exact.createSystem(topology(ethanol)), ethanol)
    assert_same(context, load("ethanol", dtype=torch.float64), ethanol)


def test_errors_say_what_is_wrong(potential, ethanol):
    with pytest.raises(PaiNNFastError, match=r"no model.*MLPotential\('painn-fast', model='ethanol'\)"):
        openmmml.MLPotential("painn-fast")
    with pytest.raises(PaiNNFastError, match=r"no such argument.*multiplicities.*charge"):
        potential.createSystem(topology(ethanol), multiplicities=3)
    with pytest.raises(PaiNNFastError, match=r"element that the model does not know.*S"):
        potential.createSystem(topology(molecule("CH3SH")))
    without = topology(ethanol)
    without.addAtom("M", None, next(without.residues()))
    with pytest.raises(PaiNNFastError, match=r"without an element.*atom 9 \(M\)"):
        potential.createSystem(without)
    with pytest.raises(PaiNNFastError, match=r"beads can be read.*RPMDIntegrator"):
        potential.createSystem(topology(ethanol), integrator=openmm.RPMDIntegrator(4, 300.0, 1.0, 0.0005))
    context = context_of(potential.createSystem(topology(ethanol)), ethanol)
    context.setPositions(0.0 * ethanol.positions)
    with pytest.raises(openmm.OpenMMException, match="atoms on top of each other"):
        context.getState(energy=True)
