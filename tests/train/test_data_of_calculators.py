"""What ASE writes of our own calculator is data that our readers take, without settings and without constraints."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms

from painn_fast.ase import PaiNNCalculator
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import assert_close, random_potential
from painn_fast.train.data import read_file
from painn_fast.train.settings import DataFile

HEADS = (EnergyHead(), DipoleHead(), PolarizabilityHead())


@pytest.fixture(scope="module")
def calculator():
    representation = RepresentationConfig(n_features=8, n_layers=1, n_rbf=5, cutoff=4.0)
    return PaiNNCalculator(random_potential(PotentialConfig(representation=representation, heads=HEADS)))


@pytest.mark.parametrize("name", ["x.xyz", "x.extxyz", "x.traj", "x.json", "x.db"])
def test_molecules(calculator, tmp_path, name):
    frames, expected = [], {"energy": [], "forces": [], "dipole": []}
    for k in range(3):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=k)
        atoms.calc = calculator
        atoms.info["charge"] = 1
        for one in ("dipole", "charges", "polarizability", "energy"):
            calculator.get_property(one, atoms)
        for one, values in expected.items():
            values.append(calculator.get_property(one, atoms))
        atoms.set_constraint(FixAtoms([0]))
        if name == "x.traj":
            with ase.io.Trajectory(tmp_path / name, "a") as file:
                file.write(atoms)
        else:
            ase.io.write(tmp_path / name, atoms, append=k > 0)
        frames.append(atoms)
    data = read_file(DataFile(file=name), tmp_path)
    for one, values in expected.items():
        assert_close(data.labels[one], np.concatenate(values) if one == "forces" else values, 1e-6, one)
        assert data.units[one] == {"energy": "eV", "forces": "eV/Ang", "dipole": "e Ang"}[one]
    assert np.abs(data.labels["forces"][::3]).max() > 1e-3, "of fixed atoms"
    if not name.endswith(("json", "db")):  # rows of ASE's databases have no info
        assert data.charge.tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["x.xyz", "x.traj", "x.json"])
def test_crystals(calculator, tmp_path, name):
    atoms = Atoms("OH", [[0, 0, 0], [0.1, 0.2, 1.0]], cell=[[5, 0, 0], [1, 5, 0], [0, 0, 6]], pbc=True)
    atoms.calc = calculator
    stress = atoms.get_stress(voigt=False)
    ase.io.write(tmp_path / name, atoms)
    data = read_file(DataFile(file=name), tmp_path)
    assert_close(data.labels["stress"][0], stress, 1e-7)
    assert data.units["stress"] == "eV/Ang^3"
    assert_close(data.cell[0], atoms.cell.array, 1e-12)
