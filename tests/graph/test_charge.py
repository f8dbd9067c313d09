"""Total charge and spin multiplicity of a structure, under all their names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule

from painn_fast.errors import PaiNNFastError
from painn_fast.graph import batch_atoms
from painn_fast.graph.charge import CHARGE_KEYS, MULTIPLICITY_KEYS, charge_and_multiplicity


@pytest.mark.parametrize("key", CHARGE_KEYS)
@pytest.mark.parametrize(
    "value", [-1, -1.0, "-1", np.int64(-1), np.array(-1), np.array([-1.0]), [-1], torch.tensor(-1)]
)
def test_a_charge_under_any_of_its_names(key: str, value: Any) -> None:
    assert charge_and_multiplicity({key: value}, where="here") == (-1.0, 1.0)
    assert charge_and_multiplicity({key.upper(): value}, where="here") == (-1.0, 1.0)


@pytest.mark.parametrize("key", MULTIPLICITY_KEYS)
def test_a_multiplicity_under_any_of_its_names(key: str) -> None:
    assert charge_and_multiplicity({key: 3}, where="here") == (0.0, 3.0)
    assert charge_and_multiplicity({key.title(): "3", "charge": 1}, where="here") == (1.0, 3.0)


@pytest.mark.parametrize("info", [{}, {"charge": None, "spin": None}, {"total_spin": None}, {0: 5, "charges": [1, 2]}])
def test_what_is_absent(info: dict[Any, Any]) -> None:
    assert charge_and_multiplicity(info, where="here") == (0.0, 1.0)


@pytest.mark.parametrize("key", [*CHARGE_KEYS, *MULTIPLICITY_KEYS])
@pytest.mark.parametrize(
    "value",
    ["none", "", np.nan, np.inf, "nan", True, 1j, [], np.zeros(3), [1, 1], {}, object(), b"x", np.array(["1", "2"])],
)
def test_what_is_not_one_number(key: str, value: Any) -> None:
    with pytest.raises(PaiNNFastError, match=f"structure 7, '{key}'.*got: .*expected: one"):
        charge_and_multiplicity({key: value}, where="structure 7")


@pytest.mark.parametrize("value", [0, -1, 1.5, 0.0, "0"])
def test_no_multiplicity(value: Any) -> None:
    with pytest.raises(PaiNNFastError, match=r"not a spin multiplicity; where: here, 'spin'; got: .*positive integer"):
        charge_and_multiplicity({"spin": value}, where="here")


def test_values_of_atoms_are_no_total() -> None:
    with pytest.raises(PaiNNFastError, match=r"values of atoms.*total charge.*shape \(3,\).*atoms.arrays"):
        charge_and_multiplicity({"charge": np.zeros(3)}, where="here")


def test_names_that_contradict_each_other() -> None:
    assert charge_and_multiplicity({"charge": 1, "total_charge": np.array([1.0])}, where="here") == (1.0, 1.0)
    with pytest.raises(PaiNNFastError, match=r"contradict.*charge = 0, total_charge = 1"):
        charge_and_multiplicity({"charge": 0, "total_charge": 1}, where="here")
    with pytest.raises(PaiNNFastError, match=r"contradict.*spin = 2, Multiplicity = 3"):
        charge_and_multiplicity({"spin": 2, "Multiplicity": 3}, where="here")


def test_total_spin_is_a_question() -> None:
    with pytest.raises(PaiNNFastError, match=r"2S, S or the multiplicity 2S \+ 1\?.*'total_spin'.*spin_multiplicity"):
        charge_and_multiplicity({"total_spin": 1}, where="here")
    assert charge_and_multiplicity({"total_spin": 1, "spin_multiplicity": 2}, where="here") == (0.0, 2.0)


def test_a_batch_reads_all_names_and_names_the_structure() -> None:
    molecules = [molecule("H2O") for _ in range(3)]
    molecules[1].info.update(total_charge=np.array([1]), spin_multiplicity=2)
    molecules[2].info.update(charge=None)
    molecules[0].set_initial_charges([3, 0, 0])
    molecules[0].set_initial_magnetic_moments([3, 0, 0])
    batch = batch_atoms(molecules, 5.0)
    assert batch.total_charge.tolist() == [0, 1, 0]
    assert batch.spin_multiplicity.tolist() == [1, 2, 1]
    molecules[2].info["spin"] = "none"
    with pytest.raises(PaiNNFastError, match=r"structure 2 \(H2O\), 'spin'; got: 'none'"):
        batch_atoms(molecules, 5.0)


@pytest.mark.parametrize("value", ["1_0", np.ma.masked, True, "", b"1_0"])
def test_what_only_looks_like_a_charge_is_refused(value: Any) -> None:
    with pytest.raises(PaiNNFastError, match="not a total charge; where: here, 'charge'"):
        charge_and_multiplicity({"charge": value}, where="here")
