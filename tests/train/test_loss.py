"""The joint loss by hand, its masks, and the statistics that a model starts from."""

import numpy as np
import pytest
import torch

from painn_fast.errors import PaiNNFastError
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, Potential, PotentialConfig, RepresentationConfig
from painn_fast.testing import assert_close, random_potential
from painn_fast.train.data import join, read_split
from painn_fast.train.data.dataset import SHAPES, Batches, Dataset
from painn_fast.train.evaluation import error_table, errors
from painn_fast.train.loss import joint_loss, set_references
from painn_fast.train.settings import LOSS_WEIGHTS, DataFile

NAMES = ("energy", "forces", "dipole", "polarizability")
CONFIG = PotentialConfig(
    representation=RepresentationConfig(n_features=8, n_layers=1, n_rbf=6),
    heads=(EnergyHead(), DipoleHead(), PolarizabilityHead()),
)


def read(path, split="train"):
    return read_split(DataFile(file=path.name), path.parent)[split]


def first(data, n):
    """The first n structures as a batch, and their labels."""
    return Batches(data, 5.0, NAMES)(np.arange(n))


def of_zeros(*sizes):
    """Structures of so many atoms, whose labels are zeros."""
    n, atoms = len(sizes), sum(sizes)
    values = {"numbers": np.ones(atoms, dtype=np.int64), "positions": np.zeros((atoms, 3)), "n_atoms": np.array(sizes)}
    values |= {"cell": np.zeros((n, 3, 3)), "pbc": np.zeros((n, 3), dtype=bool), "charge": np.zeros(n)}
    values |= {"spin": np.ones(n), "file": np.zeros(n, dtype=np.int64), "frame": np.arange(n), "files": ("zeros",)}
    labels = {name: np.zeros((atoms if name == "forces" else n, *SHAPES.get(name, ()))) for name in NAMES}
    return Dataset(**values, labels=labels)


@pytest.fixture
def compared(arrays, write):
    """Batch, labels, and results that a loss can be differentiated with respect to."""
    batch, labels = first(read(write(arrays)), 4)
    generator = torch.Generator().manual_seed(0)
    results = {
        name: (value + torch.randn(value.shape, generator=generator, dtype=torch.float64)).requires_grad_()
        for name, value in labels.items()
    }
    return batch, labels, results


def test_each_term_is_its_mean_square_and_the_sum_is_weighted(compared):
    batch, labels, results = compared
    weights = {"energy": 3.0, "forces": 0.5, "dipole": 7.0, "polarizability": 2.0}
    total, terms = joint_loss(results, labels, batch, weights)
    square = {name: ((results[name] - labels[name]) ** 2).detach().numpy() for name in NAMES}
    by_hand = {
        "energy": square["energy"].sum() / 3 / 4,  # an atom of three, a molecule of four
        "forces": square["forces"].sum() / (4 * 3 * 3),
        "dipole": square["dipole"].sum() / (4 * 3),
        "polarizability": square["polarizability"].sum() / (4 * 9),
    }
    for name in NAMES:
        assert_close(terms[name].item(), by_hand[name], 1e-13, name)
    assert_close(total.item(), sum(weights[name] * by_hand[name] for name in NAMES), 1e-13, "total")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_label_has_no_weight_and_no_gradient(compared, name):
    batch, labels, results = compared
    kept, _ = joint_loss(
        {name: results[name][1:]}, {name: labels[name][1:]}, batch if name != "energy" else rest(batch), LOSS_WEIGHTS
    )
    labels[name][0] = torch.nan
    total, _ = joint_loss({name: results[name]}, labels, batch, LOSS_WEIGHTS)
    (gradient,) = torch.autograd.grad(total, results[name])
    assert_close(total.item(), kept.item(), 1e-13, "loss without the row")
    assert not gradient[0].any(), f"gradient of a missing {name}: {gradient[0]}"
    assert gradient[1:].any()


def rest(batch):
    """The batch without its first molecule, as far as the energy term uses it."""
    import dataclasses

    return dataclasses.replace(batch, n_atoms=batch.n_atoms[1:])


def test_a_term_without_any_label_is_zero_and_leaves_the_parameters_alone(arrays, write):
    for name in ("dipole", "polarizability"):
        arrays[name][:] = np.nan
    batch, labels = first(read(write(arrays)), 3)
    potential = random_potential(CONFIG)
    total, terms = joint_loss(potential(batch, NAMES, create_graph=True), labels, batch, LOSS_WEIGHTS)
    total.backward()
    assert terms["dipole"].item() == terms["polarizability"].item() == 0.0
    for head in ("dipole", "polarizability"):
        assert all(not parameter.grad.any() for parameter in potential.heads[head].parameters())
    assert all(parameter.grad.any() for parameter in potential.heads["energy"].parameters() if parameter.ndim == 2)


def test_the_loss_of_forces_reaches_the_weights_as_finite_differences_say(arrays, write):
    batch, labels = first(read(write(arrays)), 2)
    potential = random_potential(CONFIG)
    weight = potential.representation.filter.weight

    def loss():
        return joint_loss(potential(batch, ("forces",), create_graph=True), labels, batch, LOSS_WEIGHTS)[0]

    (gradient,) = torch.autograd.grad(loss(), weight)
    at, step = np.unravel_index(int(gradient.abs().argmax()), gradient.shape), 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[at] += sign * step
        values.append(loss().item())
        with torch.no_grad():
            weight[at] -= sign * step
    assert_close((values[0] - values[1]) / (2 * step), gradient[at].item(), 1e-6, "dL/dw")


def test_the_start_is_the_mean_of_the_data(arrays, write):
    arrays["E"][1] = np.nan
    data = read(write(arrays))
    potential = Potential(CONFIG)
    set_references(potential, data)
    reference = potential.heads["energy"].atomic_reference
    mean = np.nanmean(data.labels["energy"])
    assert_close(float(reference[8] + 2 * reference[1]), float(mean), 1e-12, "energy of the atoms")
    assert torch.nonzero(reference).flatten().tolist() == [1, 8]
    bias = potential.heads["polarizability"].network.blocks[-1].context[-1].bias[0]
    assert_close(
        3 * bias.item(),
        float(np.einsum("nii->n", data.labels["polarizability"]).mean() / 3),
        1e-6,
        "isotropic polarizability",
    )


def test_references_of_a_mixed_set_are_those_of_the_elements(arrays, write):
    own = {1: -3.0, 8: -50.0}
    sets = []
    for atoms in ([0], [0, 1], [0, 1, 2]):
        part = arrays | {"R": arrays["R"][:, atoms], "z": arrays["z"][atoms], "F": arrays["F"][:, atoms]}
        sets.append(
            read(write(part | {"E": np.full(len(arrays["E"]), sum(own[z] for z in part["z"]))}, f"{len(atoms)}.npz"))
        )
    potential = Potential(CONFIG)
    set_references(potential, join(sets))
    for z, value in own.items():
        assert_close(potential.heads["energy"].atomic_reference[z].item(), value, 1e-10, f"element {z}")


def test_errors_are_quoted_in_the_units_that_people_use():
    data = of_zeros(1, 2)
    data.labels["energy"] = np.array([0.0, np.nan])
    predicted = {name: np.nan_to_num(value) + 1.0 for name, value in data.labels.items()}
    table = errors(predicted, data, Potential(CONFIG))
    assert_close([table["energy"]["mae"], table["forces"]["mae"]], [23.06055, 23.06055], 1e-6, "1 eV in kcal/mol")
    assert_close([table["dipole"]["mae"], table["polarizability"]["rmse"]], [4.80320, 1.0], 1e-6, "1 e Å in D, 1 Å³")
    assert table["energy"]["labels"] == 1
    assert "mae_standard_error" not in table["energy"]  # of one structure


def test_the_standard_error_of_an_error_is_that_of_a_sample_of_structures():
    n = 400
    rng = np.random.default_rng(3)
    data = of_zeros(*rng.integers(2, 9, n))
    # atoms of a structure share their error
    off = {name: rng.normal(size=(n, *values.shape[1:])) for name, values in data.labels.items()}
    of_atoms = np.repeat(np.arange(n), data.n_atoms)
    predicted = {name: off[name][of_atoms] if name == "forces" else off[name] for name in off}
    table = errors(predicted, data, Potential(CONFIG))
    energy = np.abs(off["energy"]) * 23.06055
    assert_close(table["energy"]["mae_standard_error"], energy.std(ddof=1) / n**0.5, 1e-6, "energy")
    sizes, of_structure = data.n_atoms, np.abs(off["forces"]).mean(axis=1) * 23.06055
    drawn = rng.integers(0, n, (4000, n))  # the bootstrap, over structures
    means = (of_structure * sizes)[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    assert table["forces"]["mae_standard_error"] == pytest.approx(means.std(ddof=1), rel=0.06)
    if_independent = np.abs(predicted["forces"]).std() * 23.06055 / predicted["forces"].size ** 0.5
    assert table["forces"]["mae_standard_error"] > 1.5 * if_independent


def test_the_error_table_is_that_of_the_split_that_was_asked_for(arrays, write):
    path = write(arrays)
    potential = random_potential(CONFIG)
    for k, split in enumerate(("train", "validation", "test")):
        data = read(path, split)
        batch, labels = first(data, len(data))
        off = (potential(batch, ("dipole",))["dipole"] - labels["dipole"]).abs().mean().item()
        table = error_table(potential, path, split=split)
        assert_close(table["dipole"]["mae"], off * 4.80320, 1e-5, split)
        assert table["dipole"]["labels"] == (arrays["split"] == k).sum()
    assert error_table(potential, path, split="all")["energy"]["labels"] == len(arrays["R"])
    with pytest.raises(PaiNNFastError, match=r"unknown split.*'rest'"):
        error_table(potential, path, split="rest")
    arrays = arrays | {name: np.full_like(arrays[name], np.nan) for name in ("E", "F", "dipole", "polarizability")}
    with pytest.raises(PaiNNFastError, match="nothing to compare"):
        error_table(potential, write(arrays))
    with pytest.raises(PaiNNFastError, match=r"no such data file.*missing\.npz"):
        error_table(potential, path.with_name("missing.npz"))
