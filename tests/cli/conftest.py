"""A small model with random weights in a folder of its own, and the command run in this process."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from painn_fast.cli import main
from painn_fast.io import save_model
from painn_fast.nn import DipoleHead, EnergyHead, PolarizabilityHead, PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential


@dataclass
class Outcome:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys):
    """Run `painn-fast` with these words."""

    def command(*words):
        code = main([str(word) for word in words])
        return Outcome(code, *capsys.readouterr())

    return command


@pytest.fixture
def fails(run):
    """Run `painn-fast`, which must end with one clear line that holds all of these texts."""

    def command(words, *texts):
        outcome = run(*words)
        assert outcome.code == 2
        lines = outcome.err.strip().splitlines()
        assert len(lines) == 1, outcome.err
        assert lines[0].startswith("error: ")
        for text in texts:
            assert text in lines[0], lines[0]
        return lines[0]

    return command


@pytest.fixture(scope="session")
def water_model(tmp_path_factory):
    """Model file for H and O with every head that the verbs use; its card and start structure lie beside it."""
    path = tmp_path_factory.mktemp("models") / "water.safetensors"
    config = PotentialConfig(
        name="water",
        representation=RepresentationConfig(n_features=8, n_layers=1, n_rbf=5, cutoff=4.0),
        heads=(EnergyHead(), DipoleHead(), PolarizabilityHead()),
        elements=(1, 8),
        provenance={"data": "none, random weights"},
    )
    save_model(random_potential(config, dtype=torch.float32), path)
    path.with_suffix(".md").write_text("# water\n")
    molecule("H2O").write(path.with_suffix(".xyz"))
    return path


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Verbs write into the current folder by default."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def water(own_folder):
    path = own_folder / "water.xyz"
    molecule("H2O").write(path)
    return path


@pytest.fixture
def structure_file(own_folder):
    """Write atoms to an xyz file by hand, whatever ASE would say of them."""

    def write(atoms: Atoms):
        path = own_folder / "structure.xyz"
        lines = [f"{a.symbol} {' '.join(map(str, a.position))}" for a in atoms]
        path.write_text("\n".join([str(len(atoms)), "", *lines, ""]))
        return path

    return write


@pytest.fixture
def labelled(own_folder):
    """A small labelled set of water: 12 training, 4 validation and 4 test rows; energies only in half of them."""
    rng = np.random.default_rng(0)
    atoms = molecule("H2O")
    n = 20
    values = {
        "R": atoms.positions + 0.05 * rng.normal(size=(n, 3, 3)),
        "z": atoms.numbers,
        "E": np.where(np.arange(n) % 2, np.nan, rng.normal(size=n)),
        "F": 0.1 * rng.normal(size=(n, 3, 3)),
        "dipole": rng.normal(size=(n, 3)),
        "split": np.repeat([0, 1, 2], [12, 4, 4]),
        "energy_unit": "eV",
        "length_unit": "Ang",
        "dipole_unit": "e Ang",
    }
    np.savez(own_folder / "water.npz", **values)
    return own_folder / "water.npz"
