"""What every way of evaluating a model promises: inherit `Conformance` and give a `Way`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.nn import (
    DipoleHead,
    ElectronicConfig,
    EnergyHead,
    PolarizabilityHead,
    PotentialConfig,
    RepresentationConfig,
    ScalarHead,
    SpatialExtentHead,
)
from painn_fast.testing import SLOPE_TOLERANCE, TOLERANCE, assert_close, random_potential, rotated

SMALL = {"n_features": 16, "n_layers": 2, "n_rbf": 8, "cutoff": 4.0}
HEADS = (
    EnergyHead(),
    DipoleHead(magnitude=True),
    PolarizabilityHead(),
    SpatialExtentHead(unit="Bohr^2"),
    ScalarHead(name="gap", unit="eV", aggregation="mean"),
    ScalarHead(name="volume", unit="Ang^3"),
)
INVARIANT_HEADS = (HEADS[0], DipoleHead(atomic_dipoles=False), *HEADS[3:])
OPTIONS = {
    "sinc": {},
    "gaussian": {"radial_basis": "gaussian"},
    "mollifier": {"cutoff_function": "mollifier"},
    "switch": {"cutoff_function": "switch", "switch_on": 2.0},
    "shared_filters": {"shared_filters": True},
    "shared_interactions": {"shared_interactions": True},
    "one_layer": {"n_layers": 1},
    "padded_features": {"n_features": 24},
    "softplus": {"activation": "shifted_softplus"},
    "charge": {"charge_embedding": ElectronicConfig(n_residual=2)},
    "spin": {"spin_embedding": ElectronicConfig(activation="silu")},
    "no_scalar_product": {"ablation": "no_scalar_product"},
    "no_vector_propagation": {"ablation": "no_vector_propagation"},
    "neither": {"ablation": "no_scalar_product_no_vector_propagation"},
    "no_vector_features": {"ablation": "no_vector_features"},
    "both_embeddings": {"charge_embedding": ElectronicConfig(), "spin_embedding": ElectronicConfig(), "n_features": 20},
    "linear_energy": {},
    "deep_energy": {},
}
HEADS_OF = {
    "no_vector_features": INVARIANT_HEADS,
    "linear_energy": (EnergyHead(n_layers=1), *HEADS[1:]),
    "deep_energy": (EnergyHead(hidden=(20, 10)), *HEADS[1:]),
}
"""Of options that do not have `HEADS`."""
VECTORS = ("forces", "dipole")
PER_ATOM = {f"{name}{of}" for name in ("forces", "energies", "charges") for of in ("", "_spread")}


def build(option="sinc", heads=None, *, dtype=torch.float64, seed=3, **more):
    """A model of random weights with this one of `OPTIONS`."""
    heads = heads or HEADS_OF.get(option, HEADS)
    values = {**SMALL, **OPTIONS[option]}
    config = PotentialConfig(representation=RepresentationConfig(**values), heads=heads, **more)
    return random_potential(config, seed=seed, dtype=dtype)


def molecular(potential):
    """Properties that a model gives for molecules in vacuum."""
    return tuple(name for name in potential.properties if name != "stress")


@dataclass
class Way:
    """One way to evaluate one model."""

    evaluate: Callable[[list[Atoms], Sequence[str]], dict[str, list[Any]]]
    """As `painn_fast.evaluate`: structures and names to one entry a structure."""
    names: Sequence[str]
    """Properties of molecules."""
    cutoff: float
    expected: Callable[[list[Atoms], Sequence[str]], dict[str, list[Any]]] | None = None
    """The same model by the reference."""
    tolerance: float | None = None
    """Of the comparison with it, relative; None is that of the dtype."""
    dtype: torch.dtype = torch.float64
    states: Sequence[str] = ()
    """Keys of `atoms.info` that the energy depends on, out of charge and spin."""
    bitwise: bool = False
    """Whether a structure gives the same bits in every batch."""
    refuses: bool = True
    """Whether positions that are not finite are an error; otherwise results are NaN."""


def of_model(model, *, backend="auto", **more):
    """A model through `painn_fast.evaluate`."""
    if backend != "reference":
        more.setdefault("expected", lambda atoms, names: evaluate(model, atoms, names, backend="reference"))
    config = model.config.representation
    states = [name for name in ("charge", "spin") if getattr(config, f"{name}_embedding")]
    return Way(
        lambda atoms, names: evaluate(model, atoms, names, backend=backend),
        more.pop("names", molecular(model)),
        model.cutoff,
        states=states,
        dtype=model.dtype,
        **more,
    )


def central_differences(values, step):
    """Derivatives [n, ...] from values at -2, -1, 1 and 2 steps of each coordinate, [4 n, ...]; of order four."""
    a, b, c, d = np.moveaxis(np.asarray(values).reshape(-1, 4, *np.shape(values)[1:]), 1, 0)
    return (a - 8 * b + 8 * c - d) / (12 * step)


def displaced(positions, step, every=1):
    """Copies of an array [4 n, ...], n of its entries moved by -2, -1, 1 and 2 steps."""
    entries = np.arange(0, positions.size, every).repeat(4)
    copies = np.repeat(positions[None], len(entries), axis=0)
    copies.reshape(len(copies), -1)[np.arange(len(copies)), entries] += step * np.resize([-2, -1, 1, 2], len(entries))
    return copies


def with_positions(atoms, positions):
    moved = atoms.copy()
    moved.positions = positions
    return moved


def crystal():
    atoms = bulk("MgO", "rocksalt", a=4.2)
    atoms.rattle(0.05, seed=1)
    atoms.set_cell(atoms.cell.array + np.random.default_rng(0).normal(scale=0.05, size=(3, 3)), scale_atoms=True)
    return atoms


class Conformance:
    """Tests of a way of evaluation. A subclass has a fixture `way`, and sets tests that do not apply to None."""

    every = 1
    """Differentiate in every so many coordinates, and take a smaller molecule, where a way is slow."""
    together = True
    """Evaluate displaced structures in one batch."""

    @pytest.fixture
    def way(self):
        raise NotImplementedError

    def atoms(self):
        atoms = molecule("CH3CH2OH" if self.every == 1 else "H2O")
        atoms.rattle(0.05, seed=2)
        return atoms

    def ion(self):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=2)
        atoms.info |= {"charge": 1, "spin": 2}
        return atoms

    def same(self, way, got, expected, name, tolerance=None):
        assert_close(got, expected, TOLERANCE[way.dtype] if tolerance is None else tolerance, name)

    def many(self, way, structures, names):
        if self.together:
            return way.evaluate(structures, names)
        single = [way.evaluate([atoms], names) for atoms in structures]
        return {name: [one[name][0] for one in single] for name in names}

    def test_it_equals_the_reference(self, way):
        structures = [self.atoms(), Atoms("H"), Atoms("OC", [[0, 0, 0], [0, 0, 6.0]])]
        got, expected = (of(structures, way.names) for of in (way.evaluate, way.expected))
        for name in way.names:
            for k in range(len(structures)):
                self.same(way, got[name][k], expected[name][k], f"{name} of structure {k}", way.tolerance)

    @pytest.mark.parametrize("improper", [False, True], ids=["proper", "improper"])
    def test_it_is_equivariant(self, way, improper):
        atoms = self.atoms()
        turned, matrix = rotated(atoms)
        if improper:
            turned.positions *= -1
            matrix = -matrix
        before, after = (way.evaluate([structure], way.names) for structure in (atoms, turned))
        for name in way.names:
            value = before[name][0]
            if name in VECTORS:
                value = value @ matrix.T
            elif name == "polarizability":
                value = matrix @ value @ matrix.T
            self.same(way, after[name][0], value, name)

    def test_translation_changes_nothing(self, way):
        atoms = self.ion()
        moved = with_positions(atoms, atoms.positions + np.array([10.0, -20.0, 5.0]))
        before, after = (way.evaluate([structure], way.names) for structure in (atoms, moved))
        for name in way.names:
            self.same(way, after[name][0], before[name][0], name)

    def test_permutation_permutes_atoms(self, way):
        atoms = self.atoms()
        order = np.random.default_rng(0).permutation(len(atoms))
        before, after = (way.evaluate([structure], way.names) for structure in (atoms, atoms[order]))
        for name in way.names:
            value = np.asarray(before[name][0])
            self.same(way, after[name][0], value[order] if name in PER_ATOM else value, name)

    def test_a_result_does_not_depend_on_its_batch(self, way):
        structures = [self.atoms(), self.ion(), Atoms("H"), molecule("CO")]
        together = way.evaluate(structures, way.names)
        for k, structure in enumerate(structures):
            alone = way.evaluate([structure], way.names)
            for name in way.names:
                if way.bitwise and name in ("energy", "energies", "forces"):
                    assert np.array_equal(together[name][k], alone[name][0]), f"{name} of structure {k}"
                self.same(way, together[name][k], alone[name][0], f"{name} of structure {k}")

    def test_two_runs_are_bitwise_equal(self, way):
        first, second = (way.evaluate([self.atoms(), self.ion()], way.names) for _ in range(2))
        for name in way.names:
            for a, b in zip(first[name], second[name], strict=True):
                assert np.array_equal(a, b), name

    def slope(self, way, structures):
        """Of the energy, from the displaced copies of an array."""
        return central_differences(self.many(way, structures, ["energy"])["energy"], SLOPE_TOLERANCE[way.dtype].step)

    def slope_in_positions(self, way, atoms):
        copies = displaced(atoms.positions, SLOPE_TOLERANCE[way.dtype].step, self.every)
        return self.slope(way, [with_positions(atoms, positions) for positions in copies])

    def test_forces_are_finite_differences_of_the_energy(self, way):
        atoms = self.ion()
        forces = way.evaluate([atoms], ["forces"])["forces"][0]
        assert np.abs(forces).max() > 1e-3, "forces that are nearly zero show nothing"
        got = forces.flatten()[:: self.every]
        self.same(way, got, -self.slope_in_positions(way, atoms), "forces", SLOPE_TOLERANCE[way.dtype].error)

    def test_stress_and_forces_of_a_crystal_are_finite_differences(self, way):
        if way.states:
            pytest.skip("charge and spin belong to molecules")
        atoms, strained = crystal(), []
        for strain in displaced(np.zeros((3, 3)), SLOPE_TOLERANCE[way.dtype].step, self.every):
            copy = atoms.copy()
            copy.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            strained.append(copy)
        got = way.evaluate([atoms], ["forces", "stress"])
        stress = got["stress"][0][[0, 5, 4, 5, 1, 3, 4, 3, 2]][:: self.every]  # of Voigt's order
        assert np.abs(stress).max() > 1e-4, "a stress that is nearly zero shows nothing"
        error = SLOPE_TOLERANCE[way.dtype].error
        self.same(way, stress, self.slope(way, strained) / atoms.get_volume(), "stress", error)
        self.same(way, got["forces"][0].flatten()[:: self.every], -self.slope_in_positions(way, atoms), "forces", error)

    def test_a_supercell_has_the_energy_of_its_cells(self, way):
        if way.states:
            pytest.skip("attention over the atoms of a cell is not extensive")
        atoms = crystal()
        one, two = way.evaluate([atoms, atoms.repeat((2, 1, 1))], ["energy"])["energy"]
        self.same(way, two, 2 * one, "energy")

    def test_energy_and_forces_are_continuous_at_the_cutoff(self, way):
        def pairs(*distances):
            structures = [Atoms("CO", [[0, 0, 0], [0, 0, distance]]) for distance in distances]
            results = way.evaluate(structures, ["energy", "forces"])
            return [(results["energy"][k], results["forces"][k][1, 2]) for k in range(len(structures))]

        near, beyond = pairs(0.8 * way.cutoff, way.cutoff + 0.5)
        assert abs(near[0] - beyond[0]) > 1e-5, "a pair that does not interact shows nothing"
        assert beyond[1] == 0.0
        for step in (1e-3, 1e-4):
            inside, outside = pairs(way.cutoff - step, way.cutoff + step)
            assert abs(inside[0] - outside[0]) < 10 * step**2 + TOLERANCE[way.dtype], "energy jumps"
            assert abs(inside[1] - outside[1]) < 50 * step, "force jumps"

    def test_a_lone_atom_has_an_energy_and_no_force(self, way):
        results = way.evaluate([Atoms("O", [[1.0, 2.0, 3.0]])], way.names)
        assert np.isfinite(results["energy"][0])
        assert not np.any(results["forces"][0])
        if "dipole" in results:
            assert np.abs(results["dipole"][0]).max() < 1e-12

    def test_atoms_without_neighbours_do_not_interact(self, way):
        if way.states:
            pytest.skip("charge and spin belong to the molecule as a whole")
        far = Atoms("OH", [[0, 0, 0], [0, 0, way.cutoff + 1.0]])
        results = way.evaluate([far, Atoms("O"), Atoms("H")], ["energy", "forces"])
        whole, *single = results["energy"]
        self.same(way, whole, sum(single), "energy")
        assert not np.any(results["forces"][0])

    def test_positions_that_are_not_finite_are_refused(self, way):
        moved = self.ion()
        moved.positions[1, 0] = np.nan
        if way.refuses:
            with pytest.raises(PaiNNFastError, match="not finite"):
                way.evaluate([moved], ["energy", "forces"])
            return
        energy = way.evaluate([moved, self.atoms()], ["energy", "forces"])["energy"]
        assert np.isnan(energy).tolist() == [True, False]

    def test_charge_and_spin_count_where_the_model_has_them(self, way):
        for key in ("charge", "spin"):
            structures = [self.ion() for _ in range(3)]
            for value, atoms in enumerate(structures, start=1):
                atoms.info[key] = value
            energies = way.evaluate(structures, ["energy"])["energy"]
            assert len({round(float(energy), 8) for energy in energies}) == (3 if key in way.states else 1), key
