"""What heads and options of the configuration promise beyond `conformance.py`, in float64."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from conformance import OPTIONS, build, central_differences, displaced, molecular, with_positions

from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.graph import batch_atoms
from painn_fast.nn import (
    EnergyHead,
    PotentialConfig,
    dipole_derivative,
    hessian,
    polarizability_derivative,
)
from painn_fast.testing import assert_close


@pytest.fixture(params=OPTIONS)
def potential(request):
    return build(request.param)


def water_ion():
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=2)
    atoms.info |= {"charge": 1, "spin": 2}
    return atoms


def test_molecule_sees_the_same_through_all_pairs_and_through_a_list():
    potential = build()
    atoms = molecule("C6H6")
    names = molecular(potential)
    with torch.no_grad():
        a, b = (
            potential(batch_atoms([atoms], potential.cutoff, neighbors=kind), names) for kind in ("all_pairs", "list")
        )
    for name in names:
        assert_close(a[name], b[name], 1e-11, name)


def test_charges_sum_to_the_total_charge():
    results = evaluate(build(), [water_ion(), molecule("H2O")], ["charges"])
    assert_close([charge.sum() for charge in results["charges"]], [1.0, 0.0], 1e-12)


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
        moved = [with_positions(atoms, positions) for positions in displaced(atoms.positions, 1e-4)]
        slope = central_differences(evaluate(potential, moved, [name])[name], 1e-4)
        return slope.reshape(*atoms.positions.shape, *slope.shape[1:])

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
    names = molecular(potential)
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
    results = potential(batch, molecular(potential), create_graph=True)
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
