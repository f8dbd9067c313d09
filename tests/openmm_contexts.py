"""Contexts of OpenMM, their energies and forces, for tests of the adapter."""

import numpy as np
from engines import require

from painn_fast import evaluate
from painn_fast.units import KJ_PER_MOL

openmm = require("openmm")
unit = openmm.unit
TIGHT = 1e-6  # eV, eV/Å


def topology(atoms):
    """One residue without bonds; the cell if there is one."""
    made = openmm.app.Topology()
    residue = made.addResidue("ONE", made.addChain())
    for number in atoms.numbers:
        made.addAtom("X", openmm.app.Element.getByAtomicNumber(int(number)), residue)
    if atoms.pbc.any():
        made.setPeriodicBoxVectors(atoms.cell.array * unit.angstrom)
    return made


def context_of(system, atoms, integrator=None, platform="Reference"):
    integrator = integrator or openmm.VerletIntegrator(0.5 * unit.femtosecond)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    context.setPositions(atoms.positions * unit.angstrom)
    return context


def results(context):
    """Energy (eV) and forces (eV/Å)."""
    state = context.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * KJ_PER_MOL
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.angstrom) * KJ_PER_MOL
    return energy, forces


def assert_same(context, model, atoms):
    expected = evaluate(model, [atoms])
    energy, forces = results(context)
    assert abs(energy - expected["energy"][0]) < TIGHT
    np.testing.assert_allclose(forces, expected["forces"][0], atol=TIGHT)
