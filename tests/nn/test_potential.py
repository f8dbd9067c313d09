"""What every head and every option of the configuration promises, in float64."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.graph import batch_atoms
from painn_fast.nn import (
    DipoleHead,
    ElectronicConfig,
    EnergyHead,
    PolarizabilityHead,
    PotentialConfig,
    RepresentationConfig,
    ScalarHead,
    SpatialExtentHead,
    dipole_derivative,
    hessian,
    polarizability_derivative,
)
from painn_fast.testing import assert_close, random_potential, rotated

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
    "softplus": {"activation": "shifted_softplus"},
    "charge": {"charge_embedding": ElectronicConfig(n_residual=2)},
    "spin": {"spin_embedding": ElectronicConfig(activation="silu")},
    "no_scalar_product": {"ablation": "no_scalar_product"},
    "no_vector_propagation": {"ablation": "no_vector_propagation"},
    "neither": {"ablation": "no_scalar_product_no_vector_propagation"},
    "no_vector_features": {"ablation": "no_vector_features"},
}


def build(option="sinc", heads=None, **more):
    values = {**SMALL, **OPTIONS[option]}
    if heads is None:
        heads = INVARIANT_HEADS if option == "no_vector_features" else HEADS
    config = PotentialConfig(representation=RepresentationConfig(**values), heads=heads, **more)
    return random_potential(config, seed=3)


def all_properties(potential, *, periodic=False):
    return (
        [name for name in potential.properties if name != "stress"]
        if not periodic
        else ["energy", "energies", "forces", "stress"]
    )


def water_ion():
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=2)
    atoms.info |= {"charge": 1, "spin": 2}
    return atoms


@pytest.fixture(params=OPTIONS)
def potential(request):
    return build(request.param)


def test_rotation_turns_vectors_and_tensors_and_leaves_scalars(potential):
    atoms = molecule("CH3CH2OH")
    turned, matrix = rotated(atoms)
    names = all_properties(potential)
    before, after = (evaluate(potential, [structure], names) for structure in (atoms, turned))
    for name in names:
        expected = before[name][0]
        if name in ("forces", "dipole"):
            expected = expected @ matrix.T
        elif name == "polarizability":
            expected = matrix @ expected @ matrix.T
        assert_close(after[name][0], expected, 1e-10, name)


def test_mirror_image_flips_vectors(potential):
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=0)
    image = atoms.copy()
    image.positions *= -1
    names = all_properties(potential)
    before, after = (evaluate(potential, [structure], names) for structure in (atoms, image))
    for name in names:
        sign = -1 if name in ("forces", "dipole") else 1
        assert_close(after[name][0], sign * np.asarray(before[name][0]), 1e-10, name)


def test_translation_changes_nothing_even_for_an_ion(potential):
    atoms = water_ion()
    moved = atoms.copy()
    moved.positions += [10.0, -20.0, 5.0]
    names = all_properties(potential)
    before, after = (evaluate(potential, [structure], names) for structure in (atoms, moved))
    for name in names:
        assert_close(after[name][0], before[name][0], 1e-10, name)


def test_permutation_permutes_atoms(potential):
    atoms = molecule("CH3CH2OH")
    order = np.random.default_rng(0).permutation(len(atoms))
    names = all_properties(potential)
    before, after = (evaluate(potential, [structure], names) for structure in (atoms, atoms[order]))
    for name in names:
        expected = np.asarray(before[name][0])
        assert_close(
            after[name][0], expected[order] if name in ("forces", "energies", "charges") else expected, 1e-10, name
        )


def test_result_does_not_depend_on_the_batch(potential):
    structures = [molecule("CH3CH2OH"), water_ion(), Atoms("H"), molecule("CH3OH")]
    names = all_properties(potential)
    together = evaluate(potential, structures, names)
    for k, structure in enumerate(structures):
        alone = evaluate(potential, [structure], names)
        for name in names:
            assert_close(together[name][k], alone[name][0], 1e-12, f"{name} of structure {k}")


def test_two_runs_are_bitwise_equal(potential):
    names = all_properties(potential)
    first, second = (evaluate(potential, [molecule("CH3CH2OH"), water_ion()], names) for _ in range(2))
    for name in names:
        for a, b in zip(first[name], second[name], strict=True):
            assert np.array_equal(a, b), name


def finite_difference(function, x, step=1e-4):
    """Central difference of order four of a function of an array, [shape of x, shape of f]."""
    rows = []
    for index in np.ndindex(x.shape):
        values = []
        for k in (-2, -1, 1, 2):
            y = x.copy()
            y[index] += k * step
            values.append(np.asarray(function(y)))
        rows.append((values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step))
    return np.asarray(rows).reshape(*x.shape, *np.shape(rows[0]))


def test_forces_are_the_finite_difference_of_the_energy(potential):
    atoms = water_ion()

    def energy(positions):
        moved = atoms.copy()
        moved.positions = positions
        return evaluate(potential, [moved], ["energy"])["energy"][0]

    forces = evaluate(potential, [atoms], ["forces"])["forces"][0]
    assert_close(forces, -finite_difference(energy, atoms.positions), 1e-8, "forces")


@pytest.mark.parametrize("option", [name for name in OPTIONS if name not in ("charge", "spin")])
def test_stress_and_forces_of_a_crystal_are_finite_differences(option):
    potential = build(option, heads=(EnergyHead(),))
    atoms = bulk("MgO", "rocksalt", a=4.2)
    atoms.rattle(0.05, seed=1)
    atoms.set_cell(atoms.cell.array + np.random.default_rng(0).normal(scale=0.05, size=(3, 3)), scale_atoms=True)

    def energy_of_strain(strain):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        return evaluate(potential, [strained], ["energy"])["energy"][0]

    def energy(positions):
        moved = atoms.copy()
        moved.positions = positions
        return evaluate(potential, [moved], ["energy"])["energy"][0]

    results = evaluate(potential, [atoms], ["forces", "stress"])
    expected = finite_difference(energy_of_strain, np.zeros((3, 3))) / atoms.get_volume()
    assert_close(results["stress"][0], expected[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], 1e-7, "stress")
    assert_close(results["forces"][0], -finite_difference(energy, atoms.positions), 1e-7, "forces")


def test_supercell_has_the_energy_of_its_cells(potential):
    if potential.config.representation.charge_embedding or potential.config.representation.spin_embedding:
        pytest.skip("attention over the atoms of a cell is not extensive")
    atoms = bulk("MgO", "rocksalt", a=4.2)
    one, eight = evaluate(potential, [atoms, atoms.repeat(2)], ["energy"])["energy"]
    assert_close(eight, 8 * one, 1e-10, "energy")


@pytest.mark.parametrize("option", ["sinc", "gaussian", "mollifier", "switch"])
def test_energy_and_forces_are_continuous_at_the_cutoff(option):
    potential = build(option, heads=(EnergyHead(),))
    cutoff = potential.cutoff

    def pair(distance):
        atoms = Atoms("CO", [[0, 0, 0], [0, 0, distance]])
        results = evaluate(potential, [atoms], ["energy", "forces"])
        return results["energy"][0], results["forces"][0][1, 2]

    for step in (1e-4, 1e-6):
        inside, outside = pair(cutoff - step), pair(cutoff + step)
        assert abs(inside[0] - outside[0]) < 10 * step**2, "energy jumps"
        assert abs(inside[1] - outside[1]) < 50 * step, "force jumps"
    assert pair(cutoff + 0.5)[1] == 0.0


def test_molecule_sees_the_same_through_all_pairs_and_through_a_list():
    potential = build()
    atoms = molecule("C6H6")
    names = all_properties(potential)
    with torch.no_grad():
        a, b = (
            potential(batch_atoms([atoms], potential.cutoff, neighbors=kind), names) for kind in ("all_pairs", "list")
        )
    for name in names:
        assert_close(a[name], b[name], 1e-11, name)


def test_charges_sum_to_the_total_charge():
    results = evaluate(build(), [water_ion(), molecule("H2O")], ["charges"])
    assert_close([charge.sum() for charge in results["charges"]], [1.0, 0.0], 1e-12)


def test_charge_and_spin_embeddings_tell_states_apart():
    for option, key in (("charge", "charge"), ("spin", "spin")):
        potential = build(option, heads=(EnergyHead(),))
        states = []
        for value in (1, 2, 3):
            atoms = molecule("H2O")
            atoms.info[key] = value
            states.append(atoms)
        energies = evaluate(potential, states, ["energy"])["energy"]
        assert len({round(energy, 8) for energy in energies}) == 3


def test_polarizability_is_symmetric_and_dipole_magnitude_is_the_norm():
    results = evaluate(build(), [molecule("CH3CH2OH")], ["polarizability", "dipole", "dipole_magnitude"])
    alpha, dipole = results["polarizability"][0], results["dipole"][0]
    assert_close(alpha, alpha.T, 1e-14)
    assert_close(results["dipole_magnitude"][0], np.linalg.norm(dipole), 1e-12)


def test_isotopes_do_not_change_electronic_properties():
    potential, light, heavy = build(), molecule("H2O"), molecule("H2O")
    heavy.set_masses([16.0, 2.0, 1.0])
    a, b = (evaluate(potential, [atoms], ["polarizability"])["polarizability"][0] for atoms in (light, heavy))
    assert np.array_equal(a, b)


def test_hessian_and_property_derivatives_are_finite_differences():
    potential = build()
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=4)
    batch = batch_atoms([atoms], potential.cutoff)

    def of(name):
        def function(positions):
            moved = atoms.copy()
            moved.positions = positions
            return evaluate(potential, [moved], [name])[name][0]

        return finite_difference(function, atoms.positions)

    n = 3 * len(atoms)
    assert_close(hessian(potential, batch), -of("forces").reshape(n, n), 1e-7, "hessian")
    assert_close(dipole_derivative(potential, batch), np.moveaxis(of("dipole"), -1, 0), 1e-7, "dipole derivative")
    assert_close(
        polarizability_derivative(potential, batch),
        np.moveaxis(of("polarizability"), (2, 3), (0, 1)),
        1e-7,
        "alpha derivative",
    )
    assert_close(evaluate(potential, [atoms], ["hessian"])["hessian"][0], hessian(potential, batch), 1e-14)


def test_float32_network_agrees_with_float64_and_keeps_energies_in_float64():
    potential = build()
    names = all_properties(potential)
    exact = evaluate(potential, [molecule("CH3CH2OH")], names)
    single = evaluate(potential.float(), [molecule("CH3CH2OH")], names)
    assert potential.heads["energy"].mean.dtype == torch.float64
    for name in names:
        assert_close(single[name][0], exact[name][0], 2e-5, name)


def test_units_of_the_model_are_converted():
    atoms = molecule("H2O")
    names = ["energy", "forces", "dipole", "charges", "polarizability", "spatial_extent", "gap"]
    own = build()
    other = build(energy_unit="kcal/mol", dipole_unit="Debye", polarizability_unit="Bohr^3")
    a, b = evaluate(own, [atoms], names), evaluate(other, [atoms], names)
    from painn_fast.units import BOHR, DEBYE, KCAL_PER_MOL

    for name, factor in [("energy", KCAL_PER_MOL), ("forces", KCAL_PER_MOL), ("dipole", DEBYE), ("charges", DEBYE)]:
        assert_close(b[name][0], factor * np.asarray(a[name][0]), 1e-12, name)
    assert_close(b["polarizability"][0], BOHR**3 * a["polarizability"][0], 1e-12)
    bohr = build(length_unit="Bohr")
    bigger = atoms.copy()
    bigger.positions *= BOHR
    c = evaluate(bohr, [bigger], names)
    assert_close(c["energy"][0], a["energy"][0], 1e-12)
    assert_close(c["forces"][0], a["forces"][0] / BOHR, 1e-10)
    assert bohr.cutoff == pytest.approx(4.0 * BOHR)


def test_gradients_reach_every_parameter(potential):
    batch = batch_atoms([water_ion(), molecule("CH3CH2OH")], potential.cutoff)
    results = potential(batch, all_properties(potential), create_graph=True)
    sum((value**2).sum() for value in results.values()).backward()
    missing = [
        name for name, parameter in potential.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert not missing


@pytest.mark.parametrize(
    ("structure", "properties", "message"),
    [
        (molecule("H2O"), ["energi"], "energi"),
        (molecule("H2O"), ["stress"], "periodic"),
        (bulk("MgO", "rocksalt", a=4.2), ["dipole"], "pbc = False"),
    ],
)
def test_wrong_requests_are_refused_with_a_fix(structure, properties, message):
    with pytest.raises(PaiNNFastError, match=message):
        evaluate(build(), [structure], properties)


def test_unknown_element_is_named():
    with pytest.raises(PaiNNFastError, match=r"O.*expected: H, C"):
        evaluate(build(elements=(1, 6)), [molecule("H2O")], ["energy"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"heads": ()}, "at least one head"),
        ({"heads": (EnergyHead(), EnergyHead())}, "same name"),
        ({"energy_unit": "furlong"}, "furlong"),
        ({"heads": ({"type": "scalar", "name": "forces", "unit": "eV"},)}, "cannot be called"),
        (
            {"representation": {"ablation": "no_vector_features"}, "heads": ({"type": "polarizability"},)},
            "vector features",
        ),
        ({"representation": {"cutoff_function": "switch"}}, "switch_on"),
        ({"representation": {"n_feature": 3}}, "did you mean 'n_features'"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(values, message):
    with pytest.raises(PaiNNFastError, match=message):
        PotentialConfig.parse(values)
