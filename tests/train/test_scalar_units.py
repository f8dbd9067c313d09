"""Units of scalars: energies are in eV whatever the spelling, others in the unit of their head."""

import numpy as np
import pytest
import torch
from ase.build import molecule

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.nn import PotentialConfig, RepresentationConfig, ScalarHead
from painn_fast.testing import assert_close, random_potential
from painn_fast.train.data import read_file
from painn_fast.train.loop import read_data
from painn_fast.train.settings import DataFile, TrainSettings

SMALL = RepresentationConfig(n_features=8, n_layers=1, n_rbf=5)


@pytest.fixture
def scalars(arrays, write):
    """A file with a scalar in this unit."""

    def write_file(unit):
        return write(arrays | {"gap": np.arange(24.0), "gap_unit": unit})

    return write_file


@pytest.mark.parametrize(
    ("unit", "size", "own"),
    [
        ("Ha", units.HARTREE, "eV"),
        ("kcal / mol", units.KCAL_PER_MOL, "eV"),
        ("KCAL MOL-1", units.KCAL_PER_MOL, "eV"),
        ("a.u.", 1.0, "a.u."),
        ("cal/mol/K", 1.0, "cal/mol/K"),
        ("2.5", 2.5, "1"),
    ],
)
def test_labels_of_scalars_are_converted_if_they_are_energies(scalars, unit, size, own):
    path = scalars(unit)
    data = read_file(DataFile(file=path.name), path.parent)
    assert_close(data.labels["gap"], np.arange(24.0) * size, 1e-14)
    assert data.units["gap"] == own


@pytest.mark.parametrize("unit", ["kcal/mol", "kcal / mol", "KCAL/MOL"])
def test_a_head_in_any_spelling_of_a_unit_of_energy_gives_ev(unit):
    found = []
    for name in ("eV", unit):
        config = PotentialConfig(representation=SMALL, heads=(ScalarHead(name="gap", unit=name),))
        model = random_potential(config, dtype=torch.float64)
        found.append(evaluate(model, [molecule("H2O")], ["gap"])["gap"][0])
    assert found[1] == pytest.approx(found[0] * units.KCAL_PER_MOL, rel=1e-12)


@pytest.mark.parametrize(
    ("unit", "head", "right"),
    [
        ("Ha", "kcal / mol", True),
        ("cal/mol/K", "cal/mol/K", True),
        ("cal/mol/K", "J/mol/K", False),
        ("a.u.", "eV", False),
        ("eV", "D", False),
    ],
)
def test_a_training_refuses_a_head_in_another_unit_than_its_labels(scalars, unit, head, right):
    path = scalars(unit)
    values = {"data": [{"file": path.name}], "heads": [{"type": "scalar", "name": "gap", "unit": head}]}
    settings = TrainSettings.parse(values)
    if right:
        assert len(read_data(settings, path.parent)["train"])
        return
    with pytest.raises(PaiNNFastError, match=r"labels of gap are in another unit than its head.*toy\.npz"):
        read_data(settings, path.parent)
