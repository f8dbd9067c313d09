"""Many structures relaxed at once end where each would alone."""

from __future__ import annotations

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.filters import UnitCellFilter
from ase.optimize import BFGS

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.nn import EnergyHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential
from painn_fast.vibrations import quasi_newton, relax_many
from painn_fast.vibrations.quasi_newton import Bfgs

NAMES = ("CH3CH2OH", "CH3OH", "C2H6", "CH3OCH3", "CH4", "CH3CH2OCH3")


@pytest.fixture(scope="module")
def ethanol():
    return pf.load("ethanol", dtype=torch.float64)


def by_ase(model, atoms: ase.Atoms, fmax: float, steps: int = 500) -> tuple[ase.Atoms, int]:
    """The minimum and the number of steps."""
    alone = atoms.copy()
    alone.calc = pf.PaiNNCalculator(model)
    optimizer = BFGS(alone, logfile=None)
    optimizer.run(fmax=fmax, steps=steps)
    return alone, optimizer.nsteps


def distorted() -> list[ase.Atoms]:
    rng = np.random.default_rng(0)
    molecules = [molecule(name) for name in NAMES]
    for atoms in molecules:
        atoms.positions += 0.03 * rng.normal(size=atoms.positions.shape)
    return molecules


def test_steps_are_those_of_bfgs_one_by_one(ethanol):
    molecules = distorted()
    before = [atoms.positions.copy() for atoms in molecules]
    ends = relax_many(ethanol, molecules, tolerance=1e-3)
    for name, atoms, start, end in zip(NAMES, molecules, before, ends, strict=True):
        alone, steps = by_ase(ethanol, atoms, 1e-3)
        assert end.converged, name
        assert end.force <= 1e-3, name
        assert end.steps == steps, name
        assert end.energy == pytest.approx(alone.get_potential_energy(), abs=1e-7), name
        np.testing.assert_allclose(end.atoms.positions, alone.positions, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(atoms.positions, start)


def test_negative_curvatures_are_met_as_by_bfgs(ethanol):
    """In the first steps from bonds that are far too long, and in a step from a Hessian of both signs."""
    atoms = molecule("CH3CH2OCH3")
    atoms.positions *= 1.25
    (end,) = relax_many(ethanol, [atoms], steps=20)
    alone, _ = by_ase(ethanol, atoms, 0.01, steps=20)
    search = Bfgs(len(atoms))
    assert end.steps == 20
    np.testing.assert_allclose(end.atoms.positions, alone.positions, atol=1e-6)
    rng = np.random.default_rng(1)
    indefinite = np.diag(rng.uniform(-50, 50, 3 * len(atoms)))
    search.hessian = np.asfortranarray(indefinite)
    gradient = rng.normal(size=3 * len(atoms))
    np.testing.assert_allclose(search.newton(gradient), -gradient / np.abs(np.diag(indefinite)))


def test_large_structures_relax_with_limited_memory(ethanol, monkeypatch):
    molecules = distorted()
    ends = relax_many(ethanol, molecules, tolerance=1e-3)
    monkeypatch.setattr(quasi_newton, "LARGE", 0)
    limited = relax_many(ethanol, molecules, tolerance=1e-3)
    assert [type(quasi_newton.quasi_newton(n)).__name__ for n in (0, 1)] == ["Bfgs", "LimitedBfgs"]
    for name, one, other in zip(NAMES, ends, limited, strict=True):
        assert other.converged, name
        assert other.energy == pytest.approx(one.energy, abs=2e-5), name


def test_results_are_those_of_the_final_positions(ethanol):
    (end,) = relax_many(ethanol, [molecule("CH3OH")], steps=2)
    assert (end.converged, end.steps) == (False, 2)
    forces = pf.evaluate(ethanol, [end.atoms])["forces"][0]
    np.testing.assert_allclose(end.atoms.get_forces(), forces, atol=1e-9)
    assert end.force == pytest.approx(np.linalg.norm(forces, axis=1).max())


def test_a_structure_does_not_depend_on_the_others(ethanol):
    (alone,) = relax_many(ethanol, [molecule("CH3OH")])
    _, among, _ = relax_many(ethanol, [molecule("CH4"), molecule("CH3OH"), molecule("CH3CH2OCH3")])
    assert among.steps == alone.steps
    np.testing.assert_allclose(among.atoms.positions, alone.atoms.positions, atol=1e-6)


def test_fixed_atoms_stay(ethanol):
    atoms = molecule("CH3OH")
    atoms.positions[0] += [0.1, 0.0, 0.0]
    atoms.set_constraint(FixAtoms([0, 1]))
    (end,) = relax_many(ethanol, [atoms])
    assert end.converged
    np.testing.assert_array_equal(end.atoms.positions[:2], atoms.positions[:2])


def test_cells_relax_as_with_the_filter_of_ase():
    config = PotentialConfig(
        representation=RepresentationConfig(n_features=8, n_layers=1, n_rbf=5, cutoff=4.0),
        heads=(EnergyHead(),),
        elements=(29,),
    )
    model = random_potential(config, seed=3)
    crystal = bulk("Cu", cubic=True)
    crystal.rattle(0.05, seed=1)
    (end,) = relax_many(model, [crystal], tolerance=1e-3, cell=True)
    alone = crystal.copy()
    alone.calc = pf.PaiNNCalculator(model)
    optimizer = BFGS(UnitCellFilter(alone), logfile=None)
    optimizer.run(fmax=1e-3, steps=1000)
    assert end.converged
    assert abs(alone.get_volume() / crystal.get_volume() - 1.0) > 1e-3, "the cell must have something to relax"
    assert end.energy == pytest.approx(alone.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(end.atoms.cell.array, alone.cell.array, atol=1e-4)
    np.testing.assert_allclose(end.atoms.positions, alone.positions, atol=1e-4)
    assert np.abs(end.atoms.get_stress()).max() < 1e-3
    assert end.steps == optimizer.nsteps


def test_a_structure_that_the_model_fails_at_gives_up_alone(ethanol, monkeypatch):
    """From the second step on the model refuses methane."""
    from painn_fast.vibrations import batch_relax

    calls = []

    def failing(model, molecules, *words, **options):
        calls.append(len(molecules))
        small = [k for k, atoms in enumerate(molecules) if len(atoms) == 5]
        if len(calls) > 1 and small:
            raise PaiNNFastError("atoms on top of each other", where=f"structure {small[0]} (CH4)")
        return pf.evaluate(model, molecules, *words, **options)

    monkeypatch.setattr(batch_relax, "evaluate", failing)
    stretched = molecule("CH4")
    stretched.positions *= 1.1
    first, failed, last = relax_many(ethanol, [molecule("CH3OH"), stretched, molecule("C2H6")])
    assert first.converged
    assert last.converged
    assert (failed.converged, failed.failure, failed.steps) == (False, "atoms on top of each other", 0)
    np.testing.assert_array_equal(failed.atoms.positions, stretched.positions)


def test_wrong_input_is_an_error(ethanol):
    with pytest.raises(PaiNNFastError, match="Si"):
        relax_many(ethanol, [molecule("CH4"), molecule("SiH4")])
    with pytest.raises(PaiNNFastError, match="tolerance"):
        relax_many(ethanol, [molecule("CH4")], tolerance=0.0)
