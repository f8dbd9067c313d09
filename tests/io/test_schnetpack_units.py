"""Models of SchNetPack that were trained in Bohr: what they give is that of the live module, in eV and Å."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.io import save_model
from painn_fast.testing import assert_close
from painn_fast.units import BOHR, HARTREE

ATOMIC = {"energy_unit": "Ha", "length_unit": "Bohr", "dipole_unit": "e a0", "polarizability_unit": "a0^3"}
ANGSTROM = {"energy_unit": "Ha", "length_unit": "Ang", "dipole_unit": "e Ang", "polarizability_unit": "Ang^3"}
PROPERTIES = ("energy", "forces", "dipole", "polarizability")


def structures():
    frames = [molecule("CH3CH2OH"), molecule("H2O")]
    for atoms in frames:
        atoms.positions -= atoms.get_center_of_mass()
        atoms.positions += 0.01 * np.random.default_rng(1).normal(size=(len(atoms), 3))
        atoms.positions -= atoms.get_center_of_mass()
    return frames


def live(spk, length):
    """A model with cut-off and Gaussians of 4 Å, in units of `length` Å, the same weights whatever that is."""
    torch.manual_seed(3)
    heads = [spk.Atomwise(8, [4]), spk.Forces(), spk.DipoleMoment(8, [4]), spk.Polarizability(8, [4])]
    radial, cutoff = spk.GaussianRBF(6, 4.0 / length), spk.CosineCutoff(4.0 / length)
    return spk.model(radial=radial, cutoff=cutoff, heads=heads)


@pytest.fixture
def bohr(spk, tmp_path):
    return spk.save(live(spk, BOHR), tmp_path / "best_model")


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_the_same_weights_in_bohr_and_in_angstrom_give_the_same(spk, bohr, tmp_path, backend):
    """With the same cut-off: energies, and forces in eV/Å; lengths of dipoles and tensors are those of the unit."""
    dtype, tolerance = (torch.float64, 1e-6) if backend == "reference" else (None, 2e-5)  # Gaussians are float32
    one = pf.load(bohr, **ATOMIC, dtype=dtype)
    other = pf.load(spk.save(live(spk, 1.0), tmp_path / "angstrom"), **ANGSTROM, dtype=dtype)
    assert one.config.length_unit == "Bohr"
    assert one.cutoff == pytest.approx(4.0)
    assert one.cutoff == pytest.approx(other.cutoff)
    a, b = (pf.evaluate(model, structures(), ("energy", "forces"), backend=backend) for model in (one, other))
    for k in range(2):
        assert_close(a["energy"][k], b["energy"][k], tolerance, "energy")
        assert_close(a["forces"][k], b["forces"][k], tolerance, "forces")
    assert np.abs(a["forces"][0]).max() > 1e-3


def test_it_gives_what_the_live_module_gives_for_positions_in_bohr(spk, bohr):
    model = pf.load(bohr, **ATOMIC, dtype=torch.float64)
    out = pf.evaluate(model, structures(), PROPERTIES, backend="reference")
    module = live(spk, BOHR).double()
    unit = {"energy": HARTREE, "forces": HARTREE / BOHR, "dipole": BOHR, "polarizability": BOHR**3}
    for k, atoms in enumerate(structures()):
        scaled = Atoms(atoms.numbers, atoms.positions / BOHR)
        want = module(spk.batch([scaled], torch.float64))
        want["dipole"] = want["dipole_moment"]
        for name in PROPERTIES:
            expected = want[name].detach().numpy().reshape(np.shape(out[name][k])) * unit[name]
            assert_close(np.asarray(out[name][k]), expected, 1e-9, name)


def test_forces_are_derivatives_of_the_energy_in_angstrom(bohr):
    model = pf.load(bohr, **ATOMIC, dtype=torch.float64)
    (atoms, _), step = structures(), 1e-4
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[2, 1] += sign * step
        energies.append(pf.evaluate(model, [moved], ("energy",), backend="reference")["energy"][0])
    slope = (energies[0] - energies[1]) / (2 * step)
    assert pf.evaluate(model, [atoms], ("forces",), backend="reference")["forces"][0][2, 1] == pytest.approx(
        -slope, rel=1e-5
    )


def test_a_converted_file_remembers_its_unit_of_length(bohr, tmp_path):
    model = pf.load(bohr, **ATOMIC)
    save_model(model, tmp_path / "model.safetensors")
    again = pf.load(tmp_path / "model.safetensors")
    a, b = (pf.evaluate(one, structures(), PROPERTIES, backend="reference") for one in (model, again))
    assert all(np.array_equal(x, y) for name in PROPERTIES for x, y in zip(a[name], b[name], strict=True))
    with pytest.raises(PaiNNFastError, match=r"contains its units and heads.*length_unit"):
        pf.load(tmp_path / "model.safetensors", length_unit="Bohr")


def test_an_unknown_unit_of_length_is_named(bohr):
    with pytest.raises(PaiNNFastError, match=r"length_unit.*furlong"):
        pf.load(bohr, **{**ATOMIC, "length_unit": "furlong"})
