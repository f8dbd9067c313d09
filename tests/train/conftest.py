"""A toy data set whose labels are known in closed form."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from water_in_files import WATER, read

NUMBERS = np.array([8, 1, 1])
BONDS = ((0, 1), (0, 2), (1, 2))
LENGTHS = (0.96, 0.96, 1.52)  # Å
STIFFNESS = (20.0, 20.0, 5.0)  # eV/Å²
CHARGES = np.array([-0.6, 0.3, 0.3])  # e


def toy_labels(positions):
    """Springs, point charges, polarizable bonds: energy eV, forces eV/Å, dipole e Å, polarizability Å³ of [n,3,3] Å."""
    n = len(positions)
    energy, forces, polarizability = np.full(n, -100.0), np.zeros_like(positions), np.tile(np.eye(3), (n, 1, 1))
    for (a, b), length, k in zip(BONDS, LENGTHS, STIFFNESS, strict=True):
        r = positions[:, b] - positions[:, a]
        d = np.linalg.norm(r, axis=1)
        u = r / d[:, None]
        energy += 0.5 * k * (d - length) ** 2
        pull = (k * (d - length))[:, None] * u
        forces[:, a] += pull
        forces[:, b] -= pull
        polarizability += 0.3 * d[:, None, None] * u[:, :, None] * u[:, None, :]
    dipole = np.einsum("a,nax->nx", CHARGES, positions)
    return {"E": energy, "F": forces, "dipole": dipole, "polarizability": polarizability}


def toy_arrays(n=24, seed=0):
    """Arrays of an .npz file in our own units: two thirds training rows, then validation and test rows."""
    rng = np.random.default_rng(seed)
    flat = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    positions = flat + rng.normal(scale=0.06, size=(n, 3, 3))
    split = np.repeat([0, 1, 2], [n - 2 * (n // 6), n // 6, n // 6])
    units = {"energy_unit": "eV", "length_unit": "Ang", "dipole_unit": "e Ang", "polarizability_unit": "Ang^3"}
    return {"R": positions, "z": NUMBERS, "split": split, **toy_labels(positions), **units}


@pytest.fixture
def arrays():
    return toy_arrays()


@pytest.fixture
def write(tmp_path):
    """Write arrays as an .npz file into the test's folder; arrays that are None are left out."""

    def write_file(values, name="toy.npz"):
        np.savez(tmp_path / name, **{key: value for key, value in values.items() if value is not None})
        return tmp_path / name

    return write_file


@pytest.fixture
def xyz(tmp_path):
    """Read a water molecule with this comment line, these rows and these settings."""

    def write_file(comment, rows=WATER, name="f.xyz", **options):
        (tmp_path / name).write_bytes(f"3\n{comment}\n{rows}".encode())
        return read(tmp_path / name, **options)

    return write_file


@pytest.fixture
def toy(tmp_path, arrays, write):
    """The settings, as plain values, of a training that takes a second; its data lie in the test's folder."""
    write(arrays)
    return {
        "name": "toy",
        "output": str(tmp_path / "run"),
        "data": [{"file": "toy.npz"}],
        "heads": [{"type": "energy"}, {"type": "dipole"}, {"type": "polarizability"}],
        "representation": {"n_features": 16, "n_layers": 2, "n_rbf": 8, "cutoff": 4.0},
        "batch_size": 4,
        "learning_rate": 2e-3,
        "warmup_steps": 5,
        "max_epochs": 4,
        "plateau_patience": 1,
        "seed": 3,
        "threads": 1,
    }


@pytest.fixture
def many(write):
    """The file of a toy set of 300 structures, turned and mirrored at random; with changes to its arrays."""

    def write_file(change=lambda arrays: {}, name="many.npz"):
        arrays = toy_arrays(300)
        turns = Rotation.random(300, random_state=1).as_matrix() * np.where(np.arange(300) % 2, 1, -1)[:, None, None]
        arrays |= {key: np.einsum("nij,njk->nik", arrays[key], turns) for key in ("R", "F")}
        arrays["dipole"] = arrays["polarizability"] = None
        return write(arrays | change(arrays), name)

    return write_file
