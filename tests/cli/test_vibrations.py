"""`painn-fast relax` and `painn-fast vib`."""

import csv

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule

from painn_fast import evaluate, load
from painn_fast.io import save_model
from painn_fast.vibrations import harmonic, relax


def table(path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


@pytest.fixture
def molecules(own_folder):
    """Two molecules in one file."""
    path = own_folder / "two.xyz"
    ase.io.write(path, [molecule("CH3CH2OH"), molecule("CH3OH")])
    return path


def test_relax_writes_minima_that_ase_reads(run, molecules, own_folder):
    outcome = run("relax", "ethanol", molecules, "-o", "minima.extxyz", "--dtype", "float64", "--force", "0.001")
    assert outcome.code == 0, outcome.err
    assert "2 of 2 structures relaxed to 0.001 eV/Å" in outcome.out
    frames = ase.io.read(own_folder / "minima.extxyz", ":")
    results = evaluate(load("ethanol", dtype="float64"), frames)
    for k, atoms in enumerate(frames):
        assert atoms.info["converged"]
        assert np.linalg.norm(results["forces"][k], axis=1).max() < 1.1e-3
        assert atoms.get_potential_energy() == pytest.approx(results["energy"][k], abs=1e-6)


def test_relax_that_does_not_converge_says_so(run, molecules, own_folder):
    outcome = run("relax", "ethanol", molecules, "--steps", 1)
    assert outcome.code == 1
    assert "structure 0 (C2H6O) has not converged in 1 steps" in outcome.err
    assert "0 of 2 structures" in outcome.out
    assert not ase.io.read(own_folder / "relaxed.extxyz", "1").info["converged"]


def test_vib_of_one_molecule_equals_python(run, own_folder):
    outcome = run("vib", "ethanol", "-o", "out")
    assert outcome.code == 0, outcome.err
    rows = table(own_folder / "out" / "harmonic.csv")
    minimum = ase.io.read(own_folder / "out" / "minimum.xyz")
    expected = harmonic(load("ethanol"), minimum)
    np.testing.assert_allclose([float(row["wavenumber / cm-1"]) for row in rows], expected.wavenumber, atol=0.05)
    assert "O-H stretch" in outcome.out
    assert f"{expected.wavenumber[-1]:.0f}" in outcome.out
    (thermo,) = table(own_folder / "out" / "thermochemistry.csv")
    half = expected.wavenumber.sum() / 2.0 / 8065.544
    assert float(thermo["zero-point energy / eV"]) == pytest.approx(half, abs=1e-4)
    assert (own_folder / "out" / "modes.molden").read_text().startswith("[Molden Format]")


def test_vib_of_several_molecules_makes_a_folder_each(run, molecules, own_folder):
    outcome = run("vib", "ethanol", molecules, "--temperature", "350 K")
    assert outcome.code == 0, outcome.err
    folders = sorted(path.name for path in (own_folder / "ethanol-vib").iterdir())
    assert folders == ["0-C2H6O", "1-CH4O"]
    assert len(table(own_folder / "ethanol-vib" / "1-CH4O" / "harmonic.csv")) == 12
    (thermo,) = table(own_folder / "ethanol-vib" / "0-C2H6O" / "thermochemistry.csv")
    assert float(thermo["temperature / K"]) == 350.0


def test_vib_anharmonic_has_overtones_and_names_what_stays_harmonic(run, own_folder):
    outcome = run("vib", "ethanol", "--anharmonic", "-o", "out")
    assert outcome.code == 0, outcome.err
    rows = {row["line"]: row for row in table(own_folder / "out" / "anharmonic.csv")}
    stretch, overtone = rows["21"], rows["2x21"]
    assert 3650 < float(stretch["wavenumber / cm-1"]) < 3800
    assert 7100 < float(overtone["wavenumber / cm-1"]) < 2 * float(stretch["wavenumber / cm-1"])
    assert overtone["Raman activity / (Ang^4/amu)"] == ""
    assert float(stretch["Raman activity / (Ang^4/amu)"]) > 0
    assert rows["1"]["treated as"] == "harmonic"
    assert "large amplitude, harmonic: 1 (C-C torsion), 2 (C-O torsion)" in outcome.out
    assert "anharmonic zero-point energy / eV" in table(own_folder / "out" / "thermochemistry.csv")[0]


def test_vib_of_a_committee_has_the_error_of_the_model(run, own_folder):
    """The second model has all energies 2 % larger: wavenumbers 1 % higher, a difference over root 2 between two."""
    model = load("ethanol")
    with torch.no_grad():
        model.get_parameter("heads.energy.network.2.weight").mul_(1.02)
    save_model(model, own_folder / "other.safetensors")
    outcome = run("vib", "ethanol", "other.safetensors", "-o", "out")
    assert outcome.code == 0, outcome.err
    rows = table(own_folder / "out" / "harmonic.csv")
    alone = harmonic(load("ethanol"), ase.io.read(own_folder / "out" / "minimum.xyz"))
    nu = np.array([float(row["wavenumber / cm-1"]) for row in rows])
    error = np.array([float(row["model error / cm-1"]) for row in rows])
    np.testing.assert_allclose(nu, alone.wavenumber * (1 + np.sqrt(1.02)) / 2, rtol=1e-3)
    np.testing.assert_allclose(error, alone.wavenumber * (np.sqrt(1.02) - 1) / np.sqrt(2), rtol=0.05, atol=0.3)
    assert "model error of Raman activity / (Ang^4/amu)" in rows[0]
    assert "model error / cm-1" in outcome.out


def test_no_relax_holds_for_all_models_of_a_committee(run, own_folder, water_model):
    """Energies 2 % larger: at one geometry wavenumbers 1 % higher, wherever the minima are."""
    model = load(water_model)
    with torch.no_grad():
        model.get_parameter("heads.energy.network.2.weight").mul_(1.02)
    save_model(model, own_folder / "other.safetensors")
    stretched = relax(load(water_model, dtype=torch.float64), ase.build.molecule("H2O"))
    stretched.positions *= 1.02
    ase.io.write(own_folder / "water.xyz", stretched)
    outcome = run("vib", water_model, "other.safetensors", "water.xyz", "--no-relax", "-o", "out")
    assert outcome.code == 0, outcome.err
    alone = harmonic(load(water_model), stretched, relaxed=True).wavenumber
    error = [float(row["model error / cm-1"]) for row in table(own_folder / "out" / "harmonic.csv")]
    np.testing.assert_allclose(error, alone * (np.sqrt(1.02) - 1) / np.sqrt(2), rtol=0.01)


def test_anharmonic_lines_of_a_committee_have_the_error_of_the_model(run, own_folder, water_model):
    """Energies 2 % larger: second-order perturbation theory shifts harmonic lines by the same as before."""
    model = load(water_model)
    with torch.no_grad():
        model.get_parameter("heads.energy.network.2.weight").mul_(1.02)
    save_model(model, own_folder / "other.safetensors")
    ase.io.write(own_folder / "water.xyz", ase.build.molecule("H2O"))
    outcome = run("vib", water_model, "other.safetensors", "water.xyz", "--anharmonic", "-o", "out")
    assert outcome.code == 0, outcome.err
    assert "model error of it / cm-1" in outcome.out
    rows = {row["line"]: row for row in table(own_folder / "out" / "anharmonic.csv")}
    plain = table(own_folder / "out" / "harmonic.csv")
    for row in plain:
        line = rows[row["mode"]]
        assert float(line["model error / cm-1"]) == pytest.approx(float(row["model error / cm-1"]), abs=0.5)
        assert float(line["model error / cm-1"]) > 2.0
    error = float(rows["2x1"]["model error / cm-1"])
    assert error == pytest.approx(2 * float(plain[0]["model error / cm-1"]), abs=2.0)


def test_wrong_input_is_one_line(run, fails, own_folder, molecules, water_model):
    fails(("vib", water_model), "no structure")
    fails(("vib", "ethanol", "missing.xyz"), "no such structure file", "missing.xyz")
    fails(("vib", "ethanol", molecules, "--temperature", "300"), "missing unit of temperature")
    fails(("vib", "ethanol", molecules, "--temperature", "0 K"), "not a temperature", "got: 0 K")
    fails(("vib", "ethanol", molecules, "--temperature=-5 K"), "not a temperature", "got: -5 K")
    fails(("relax", "ethanol", "missing.xyz"), "no such structure file")
    fails(("relax", "ethanol", molecules, "--force", "0"), "--force")
    assert run("vib", "ethanol", molecules).code == 0
    fails(("vib", "ethanol", molecules), "the folder holds results", "--overwrite")
