"""The real OpenMM, by openmm-ml, gets what `evaluate` gives: on its platforms, with beads and barostats."""

import doctest
import importlib.metadata
import threading

import numpy as np
import pytest
from engines import config, require, water_box
from openmm_contexts import assert_same, context_of, topology

from painn_fast import Ensemble, evaluate, load
from painn_fast.testing import random_potential
from painn_fast.units import AMU_A2_PER_FS2, KB, KJ_PER_MOL

openmmml = require("openmmml")
openmm = require("openmm")
unit = openmm.unit
from painn_fast.adapters import openmm as adapter  # noqa: E402  needs OpenMM

PLATFORMS = [openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())]


@pytest.fixture(scope="module")
def water():
    return water_box()


def thermal(atoms, copies=1, seed=0, temperature=300.0):
    """Velocities [P, N, 3] Å/fs."""
    rng = np.random.default_rng(seed)
    spread = np.sqrt(KB * temperature / atoms.get_masses() / AMU_A2_PER_FS2)
    return rng.normal(size=(copies, len(atoms), 3)) * spread[:, None]


def test_openmm_ml_knows_the_potential_by_its_entry_point():
    (entry,) = importlib.metadata.entry_points(group="openmmml.potentials", name="painn-fast")
    assert entry.load() is adapter.PotentialFactory


def test_examples_of_docstrings_run():
    assert doctest.testmod(adapter) == (0, 11)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_energies_and_forces_are_those_of_evaluate(platform, potential, ethanol):
    context = context_of(potential.createSystem(topology(ethanol)), ethanol, platform=platform)
    for seed in range(3):
        atoms = ethanol.copy()
        atoms.rattle(0.05, seed=seed)
        context.setPositions(atoms.positions * unit.angstrom)
        assert_same(context, "ethanol", atoms)


def test_ensembles_and_loaded_models_do_as_well(water):
    model, box = water
    ensemble = Ensemble([model, random_potential(config(), seed=1)])
    for one in (model, ensemble):
        system = openmmml.MLPotential("painn-fast", model=one).createSystem(topology(box))
        assert_same(context_of(system, box), one, box)


def test_a_periodic_box_is_the_one_that_the_context_has(water):
    model, box = water
    system = openmmml.MLPotential("painn-fast", model=model).createSystem(topology(box))
    context = context_of(system, box)
    assert_same(context, model, box)
    wrapped = box.copy()
    wrapped.positions += wrapped.cell.array[1]  # the list is made anew
    context.setPositions(wrapped.positions * unit.angstrom)
    assert_same(context, model, box)
    larger = box.copy()
    larger.set_cell(1.03 * box.cell.array, scale_atoms=True)
    context.setPeriodicBoxVectors(*(larger.cell.array * unit.angstrom))
    context.setPositions(larger.positions * unit.angstrom)
    assert_same(context, model, larger)


def test_pressure_is_that_of_the_stress(water):
    """OpenMM gets it from energies in scaled boxes, a molecule of one atom each."""
    model, box = water
    system = openmmml.MLPotential("painn-fast", model=model).createSystem(topology(box), removeCMMotion=False)
    barostat = openmm.MonteCarloBarostat(1 * unit.bar, 300 * unit.kelvin)
    system.addForce(barostat)
    context = context_of(system, box)
    pressure = barostat.computeCurrentPressure(context)
    pressure = pressure.value_in_unit(unit.bar) if unit.is_quantity(pressure) else pressure
    (stress,) = evaluate(model, [box], ["stress"])["stress"]
    bar = 1e5 * 1e-30 / 1.602176634e-19  # eV/Å^3
    assert pressure * bar == pytest.approx(-stress[:3].mean(), rel=1e-4)


def test_a_barostat_changes_the_box_and_energies_stay_right(water):
    model, box = water
    system = openmmml.MLPotential("painn-fast", model=model).createSystem(topology(box))
    barostat = openmm.MonteCarloBarostat(1 * unit.bar, 300 * unit.kelvin, 2)
    barostat.setRandomNumberSeed(1)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(300, 10.0, 0.0005)
    integrator.setRandomNumberSeed(1)
    context = context_of(system, box, integrator)
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(60)
    state = context.getState(positions=True)
    after = box.copy()
    after.cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
    after.positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    assert abs(after.get_volume() / box.get_volume() - 1) > 1e-4
    assert_same(context, model, after)


def test_nve_conserves_energy_and_is_our_trajectory(potential, ethanol, ours):
    velocities = thermal(ethanol)
    system = potential.createSystem(topology(ethanol), removeCMMotion=False)
    _set_masses(system, ethanol)
    integrator = openmm.CustomIntegrator(0.0005)  # velocity Verlet; OpenMM's own is leapfrog
    for step in ("v", "x", "v"):
        integrator.addComputePerDof(step, "x+dt*v" if step == "x" else "v+0.5*dt*f/m")
    context = context_of(system, ethanol, integrator)
    context.setVelocities(velocities[0] * unit.angstrom / unit.femtosecond)
    frames, totals = [], []
    for _ in range(400):
        integrator.step(1)
        state = context.getState(positions=True, energy=True)
        frames.append(state.getPositions(asNumpy=True).value_in_unit(unit.angstrom))
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        totals.append(total.value_in_unit(unit.kilojoule_per_mole) * KJ_PER_MOL)
    expected = ours(load("ethanol"), ethanol, ethanol.positions[None], velocities, steps=400, time_step=0.5)
    np.testing.assert_allclose(frames[:50], expected[1:51, 0], atol=1e-5)
    drift = np.polyfit(np.arange(400) * 0.5e-3, totals, 1)[0]  # eV/ps
    assert abs(drift) < 5e-3 * 0.025 * len(ethanol)
    assert np.std(totals) < 5e-3


def _set_masses(system, atoms):
    """Those of ASE, which differ from OpenMM's in the fifth digit."""
    for k, mass in enumerate(atoms.get_masses()):
        system.setParticleMass(k, mass)


def beads_of(potential, ethanol, integrator, velocities, steps, *, together):
    """Positions [T, P, N, 3] Å of ring polymers without a thermostat."""
    arguments = {"integrator": integrator} if together else {}
    system = potential.createSystem(topology(ethanol), removeCMMotion=False, **arguments)
    _set_masses(system, ethanol)
    integrator.setApplyThermostat(False)
    context = context_of(system, ethanol, integrator)
    rng = np.random.default_rng(5)
    starts = ethanol.positions + 0.03 * rng.normal(size=velocities.shape)
    for k, (start, velocity) in enumerate(zip(starts, velocities, strict=True)):
        integrator.setPositions(k, start * unit.angstrom)
        integrator.setVelocities(k, velocity * unit.angstrom / unit.femtosecond)
    frames = []
    for _ in range(steps):
        integrator.step(1)
        states = [integrator.getState(k, getPositions=True) for k in range(len(starts))]
        frames.append([state.getPositions(asNumpy=True).value_in_unit(unit.angstrom) for state in states])
    del context
    return starts, np.array(frames)


@pytest.fixture
def batches(monkeypatch):
    """Numbers of copies of the calls."""
    seen = []
    evaluated = adapter.Computation._evaluated

    def counted(self, positions):
        seen.append(len(positions))
        return evaluated(self, positions)

    monkeypatch.setattr(adapter.Computation, "_evaluated", counted)
    return seen


@pytest.mark.parametrize("together", [False, True])
def test_ring_polymers_of_four_beads_move_as_ours(together, potential, ethanol, ours, batches):
    velocities = thermal(ethanol, 4)
    kind = adapter.BatchedRPMDIntegrator if together else openmm.RPMDIntegrator
    integrator = kind(4, 300.0, 1.0, 0.0005)
    starts, frames = beads_of(potential, ethanol, integrator, velocities, 40, together=together)
    assert batches == ([4] * 41 if together else [1] * 164)
    expected = ours(load("ethanol"), ethanol, starts, velocities, steps=40, time_step=0.5)
    np.testing.assert_allclose(frames, expected[1:], atol=1e-5)


def test_beads_in_a_batch_have_the_bits_of_beads_alone(potential, ethanol):
    velocities = thermal(ethanol, 8)
    integrators = adapter.BatchedRPMDIntegrator, openmm.RPMDIntegrator
    together, alone = (
        beads_of(potential, ethanol, kind(8, 300.0, 1.0, 0.0005), velocities, 10, together=kind is integrators[0])[1]
        for kind in integrators
    )
    np.testing.assert_array_equal(together, alone)


def test_beads_are_asked_for_one_by_one_outside_of_steps_and_with_contractions(potential, ethanol, batches):
    integrator = adapter.BatchedRPMDIntegrator(4, 300.0, 1.0, 0.0005)
    context = context_of(potential.createSystem(topology(ethanol), integrator=integrator), ethanol, integrator)
    assert_same(context, "ethanol", ethanol)
    context = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    np.testing.assert_allclose(context, ethanol.positions, atol=1e-12)  # not those of a bead
    assert batches == [1]
    contracted = adapter.BatchedRPMDIntegrator(4, 300.0, 1.0, 0.0005, {0: 2})
    system = potential.createSystem(topology(ethanol), integrator=contracted)
    context = context_of(system, ethanol, contracted)
    batches.clear()
    contracted.step(1)
    assert batches == [1] * 4  # two beads, before and after


def test_threads_that_python_has_not_started_read_no_beads(ethanol):
    integrator = adapter.BatchedRPMDIntegrator(4, 300.0, 1.0, 0.0005)
    integrator.stepping = True
    seen, done = [], threading.Lock()
    done.acquire()

    def ask():
        seen.append(adapter._may_read_beads(integrator))
        done.release()

    threading._start_new_thread(ask, ())
    assert done.acquire(timeout=10)
    ask()
    assert seen == [False, True]


def test_beads_of_periodic_boxes_under_a_barostat(water, batches):
    model, box = water
    integrator = adapter.BatchedRPMDIntegrator(3, 300.0, 10.0, 0.0005)
    integrator.setRandomNumberSeed(2)
    system = openmmml.MLPotential("painn-fast", model=model).createSystem(topology(box), integrator=integrator)
    barostat = openmm.RPMDMonteCarloBarostat(1.0, 2)
    barostat.setRandomNumberSeed(2)
    system.addForce(barostat)
    context = context_of(system, box, integrator)
    for _ in range(40):  # the barostat acts once a call, whatever the number of steps
        integrator.step(1)
    assert set(batches) == {1, 3}
    assert batches.count(1) == 2 * 20  # a barostat scales the beads one by one: the first comes with those not scaled
    volumes = []
    for copy in range(3):
        state = integrator.getState(copy, getPositions=True)
        after = box.copy()
        after.cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        after.positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        volumes.append(after.get_volume())
        context.setPositions(after.positions * unit.angstrom)
        assert_same(context, model, after)
    assert abs(volumes[0] / box.get_volume() - 1) > 1e-4
