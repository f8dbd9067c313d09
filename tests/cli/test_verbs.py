"""Every verb does what it says."""

import csv
import importlib
import json
import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from painn_fast import evaluate, load
from painn_fast.testing import assert_close


def test_info_tells_what_the_model_is(run, water_model):
    outcome = run("info", water_model)
    assert outcome.code == 0
    for text in ("water", "H O", "4 Å", "sha256", str(water_model.with_suffix(".md")), "none, random weights"):
        assert text in outcome.out


def test_info_as_json(run, water_model):
    facts = json.loads(run("info", water_model, "--json").out)
    assert facts["elements"] == ["H", "O"]
    assert facts["cutoff"] == 4.0
    assert facts["trained_in"]["energy"] == "eV"
    assert facts["parameters"] == sum(p.numel() for p in load(water_model).parameters())


def test_eval_of_structures_equals_python(run, water_model, water, own_folder):
    outcome = run("eval", water_model, water, "--json", "all.json", "--csv", "table.csv")
    assert outcome.code == 0
    expected = evaluate(load(water_model), [ase.io.read(water)], ["energy", "forces", "dipole", "polarizability"])
    (entry,) = json.loads((own_folder / "all.json").read_text())
    for name, values in expected.items():
        assert_close(entry[name], values[0], 1e-6, name)
    (row,) = csv.DictReader((own_folder / "table.csv").read_text().splitlines())
    assert float(row["energy / eV"]) == pytest.approx(expected["energy"][0], abs=1e-6)
    assert f"{expected['energy'][0]:.6f}" in outcome.out


def test_eval_of_labelled_data_gives_errors(run, water_model, labelled, own_folder):
    outcome = run("eval", water_model, labelled, "--json", "errors.json")
    assert outcome.code == 0
    table = json.loads((own_folder / "errors.json").read_text())["errors"]
    assert set(table) == {"energy", "forces", "dipole"}, "there are no labels of the polarizability"
    assert table["energy"]["labels"] == 2, "half of the four test rows have an energy"
    data = np.load(labelled)
    rows = [row for row in range(16, 20) if np.isfinite(data["E"][row])]
    atoms = [ase.Atoms(data["z"], data["R"][row]) for row in rows]
    error = np.abs(np.array(evaluate(load(water_model), atoms, ["energy"])["energy"]) - data["E"][rows]).mean()
    assert table["energy"]["mae"] == pytest.approx(error / (ase.units.kcal / ase.units.mol), rel=1e-5)


def test_info_of_a_model_whose_units_are_not_stated(run, water_model, own_folder):
    assert run("convert", water_model, own_folder / "foreign.pt").code == 0
    words = ("info", own_folder / "foreign.pt", "--heads", "energy,dipole,polarizability")
    outcome = run(*words, "--dipole-unit", "D")
    assert outcome.code == 0, outcome.err
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("trained in")]
    assert "energy not stated (give --energy-unit" in line
    assert "dipole D" in line
    assert "polarizability not stated" in line
    facts = json.loads(run(*words, "--json").out)
    assert facts["trained_in"] == {"energy": None, "length": "Ang", "dipole": None, "polarizability": None}
    known = json.loads(run("info", water_model, "--json").out)
    assert facts["parameters"] == known["parameters"]
    assert facts["cutoff"] == known["cutoff"]


def test_eval_takes_another_array_unit_and_split(run, water_model, labelled, own_folder):
    arrays = dict(np.load(labelled))
    hartree = {key: value for key, value in arrays.items() if key != "energy_unit"} | {"E_other": arrays["E"]}
    np.savez(own_folder / "other.npz", **(hartree | {"E": np.full(20, np.nan)}))
    words = ("--key", "energy=E_other", "--key", "forces=", "--data-unit", "energy=Hartree", "--split", "all")
    outcome = run("eval", water_model, own_folder / "other.npz", *words, "--json", "errors.json")
    assert outcome.code == 0, outcome.err
    table = json.loads((own_folder / "errors.json").read_text())["errors"]
    assert set(table) == {"energy", "dipole"}
    assert table["energy"]["labels"] == 10


def test_convert_there_and_back_keeps_every_weight(run, water_model, own_folder):
    forth = run("convert", water_model, own_folder / "for_schnetpack.pt")
    assert forth.code == 0, forth.err
    units = ("--energy-unit", "eV", "--dipole-unit", "e Ang", "--polarizability-unit", "Ang^3")
    words = (own_folder / "for_schnetpack.pt", own_folder / "back.safetensors", *units)
    back = run("convert", *words, "--heads", "energy,dipole,polarizability")
    assert back.code == 0, back.err
    before, after = (load(path, dtype=torch.float64) for path in (water_model, own_folder / "back.safetensors"))
    atoms, names = [molecule("H2O")], ["energy", "forces", "dipole", "polarizability"]
    expected, got = evaluate(before, atoms, names), evaluate(after, atoms, names)
    for name in names:
        assert_close(got[name], expected[name], 1e-9, name)


def test_eval_of_labelled_xyz_and_hdf5_gives_errors_of_all_structures(run, water_model, own_folder):
    frames = []
    for k in range(3):
        atoms = molecule("H2O")
        atoms.positions += 0.01 * k
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 * k)
        frames.append(atoms)
    ase.io.write(own_folder / "set.xyz", frames)
    outcome = run("eval", water_model, "set.xyz", "--json", "errors.json")
    assert outcome.code == 0, outcome.err
    table = json.loads((own_folder / "errors.json").read_text())
    assert table["split"] == "all"
    assert table["errors"]["energy"]["labels"] == 3
    assert run("data", "set.xyz", "-o", "set.h5").code == 0
    again = run("eval", water_model, "set.h5")
    assert again.out.splitlines()[1] == outcome.out.splitlines()[1]
    properties = run("eval", water_model, "set.xyz", "--properties", "energy")
    assert "energy / eV" in properties.out


def test_eval_of_labels_without_a_unit_gives_properties_unless_they_are_asked_for(run, water_model, own_folder):
    (own_folder / "set.xyz").write_text("3\nmu='0 0 1'\nO 0 0 0\nH 0 0.6 0.7\nH 0 -0.6 0.7\n")
    assert "energy / eV" in run("eval", water_model, "set.xyz").out
    outcome = run("eval", water_model, "set.xyz", "--data-unit", "dipole=D")
    assert "D per component" in outcome.out, outcome.err


def test_data_tells_what_files_hold_and_gathers_them(run, labelled, own_folder):
    outcome = run("data", labelled, "-o", "set.h5")
    assert outcome.code == 0, outcome.err
    for text in (
        "train: 12 structures (6 energy, 12 forces, 12 dipole)",
        "water.npz: length Ang (the file), energy = E eV (the file)",
        "structures of 3 atoms: H 40, O 20",
        "note: energy is missing in 10 of 20 structures; where: water.npz, frame 1",
        "set.h5",
    ):
        assert text in outcome.out
    again = run("data", "set.h5")
    assert again.out.splitlines()[0] == outcome.out.splitlines()[0]


def test_data_with_structures_of_no_split_are_not_gathered_in_part(fails, labelled, own_folder):
    arrays = dict(np.load(labelled))
    arrays["split"][-2:] = 5
    np.savez(labelled, **arrays)
    fails(("data", labelled, "-o", "set.h5"), "wrong split", "water.npz", "frame 18", "in 2 of 20")
    assert not (own_folder / "set.h5").exists()


@pytest.mark.parametrize(
    ("words", "output", "reason"),
    [
        (("data", "water.npz"), "set.npz", "unknown kind of output"),
        (("data", "water.npz"), "water.npz", "unknown kind of output"),
        (("data", "set.h5"), "set.h5", "the output is the input"),
        (("select", "water.xyz", "-m", "MODEL", "-m", "MODEL"), "chosen.npz", "unknown kind of output"),
        (("select", "water.xyz", "-m", "MODEL", "-m", "MODEL"), "water.xyz", "the output is the input"),
        (("relax", "MODEL", "water.xyz"), "relaxed.npz", "unknown kind of output"),
        (("sample", "water.xyz"), "water.xyz", "the output is the input"),
    ],
)
def test_an_output_is_neither_misnamed_nor_the_input(
    run, fails, labelled, water, water_model, own_folder, words, output, reason
):
    assert run("data", labelled, "-o", "set.h5").code == 0
    before = {path.name: path.read_bytes() for path in own_folder.iterdir()}
    fails((*(str(water_model) if word == "MODEL" else word for word in words), "-o", output), reason, output)
    assert {path.name: path.read_bytes() for path in own_folder.iterdir()} == before


def test_data_stops_at_doubts_by_default(run, fails, own_folder):
    rng = np.random.default_rng(0)
    lengths = 0.74 + 0.1 * rng.normal(size=100)
    positions = np.zeros((100, 2, 3))
    positions[:, 1, 2] = lengths
    forces = np.zeros((100, 2, 3))
    forces[:, 1, 2] = 30.0 * (lengths - 0.74)  # the gradient
    forces[:, 0] = -forces[:, 1]
    energy = 15.0 * (lengths - 0.74) ** 2
    values = {"R": positions, "z": [1, 1], "E": energy, "F": forces, "energy_unit": "eV", "length_unit": "Ang"}
    np.savez(own_folder / "wrong.npz", **values)
    fails(("data", "wrong.npz", "-o", "set.h5"), "wrong sign", "wrong.npz")
    assert not (own_folder / "set.h5").exists()
    outcome = run("data", "wrong.npz", "--warn")
    assert outcome.code == 0
    assert "warning: forces have the wrong sign" in outcome.out


def test_a_split_that_eval_draws_is_reported(run, labelled, water_model, own_folder):
    drawn = "has no split of its own: test is the draw of a training with the usual sizes and seed"
    assert drawn not in run("eval", water_model, labelled, "--split", "test").err
    arrays = dict(np.load(labelled))
    del arrays["split"]
    np.savez(own_folder / "whole.npz", **arrays)
    assert drawn in run("eval", water_model, "whole.npz", "--split", "test").err
    assert drawn not in run("eval", water_model, "whole.npz").err


def test_train_then_eval(run, labelled, own_folder):
    (own_folder / "train.toml").write_text(
        'name = "tiny"\nmax_epochs = 2\nbatch_size = 4\nheads = [{ type = "energy" }]\n'
        '[representation]\nn_features = 8\nn_layers = 1\n[[data]]\nfile = "water.npz"\n'
    )
    outcome = run("train", "train.toml", "--data", labelled.parent, "-o", "trained", "--threads", 1)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == "trained/tiny.safetensors"
    assert run("eval", "trained/tiny.safetensors", labelled).code == 0


def test_a_configuration_to_start_from_is_written_once_and_then_trained(run, fails, labelled):
    outcome = run("train", "--new", "my.toml", "--data", labelled)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == "my.toml"
    assert "energy: 10 structures = E, eV" in outcome.err
    fails(("train", "--new", "my.toml", "--data", labelled), "there is such a file already", "my.toml")
    fails(("train", "--new", "bare.toml", "--data", labelled, "--key", "energy=E_none"), "missing array", "E_none")
    outcome = run("train", "my.toml", "--data", labelled, "--max-epochs", 1, "--set", "representation.n_features=8")
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == "my/my.safetensors"
    assert outcome.err.splitlines()[-4].split() == ["property", "MAE", "standard", "error", "RMSE", "unit", "labels"]
    assert [line.split()[0] for line in outcome.err.splitlines()[-3:]] == ["energy", "forces", "dipole"]


def test_md_writes_a_trajectory_and_resolved_settings(run, water_model, water):
    words = ("--ensemble", "langevin", "--duration", "5 fs", "--positions-every", "1 fs", "--temperature", "250 K")
    outcome = run("md", "--model", water_model, "--structure", water, *words, "-o", "run")
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == "run/trajectory.h5"
    from painn_fast.md import Trajectory
    from painn_fast.settings import read_toml

    assert Trajectory("run").positions.shape[2:] == (1, 3, 3)
    assert read_toml("run/settings.toml")["temperature"] == "250.0 K"


def test_md_draws_its_energies(run, water_model, water):
    words = ("--ensemble", "nve", "--duration", "5 fs", "--energies-every", "1 fs", "--trajectories", 2, "-o", "run")
    assert run("md", "--model", water_model, "--structure", water, *words).code == 0
    assert Path("run/energies.png").read_bytes().startswith(b"\x89PNG")


def test_doctor_finds_this_installation_sound(run):
    outcome = run("doctor")
    assert outcome.code == 0, outcome.out
    assert "fail" not in {line.split()[0] for line in outcome.out.splitlines()}
    assert "model ethanol" in outcome.out


@pytest.mark.parametrize(("epsilon", "state"), [(1e-8, "warn"), (1e-3, "ok")])
def test_doctor_warns_of_a_rough_surface(epsilon, state, tmp_path, monkeypatch):
    """The bundled weights of ethanol, with a small and with a large epsilon."""
    from painn_fast import doctor, load
    from painn_fast.io.model_file import save_model
    from painn_fast.testing import with_epsilon

    own = doctor.MODELS / "ethanol.xyz"
    save_model(with_epsilon(load("ethanol"), epsilon), tmp_path / "ethanol.safetensors")
    (tmp_path / "ethanol.xyz").write_text(own.read_text())
    for module in ("painn_fast.io.find", "painn_fast.doctor"):
        monkeypatch.setattr(importlib.import_module(module), "MODELS", tmp_path)
    check = doctor.check_model("ethanol")
    assert check.state == state
    assert re.search(r"roughness of the surface.* [\d.]+ cm-1 at most, [\d.]+ cm-1 in the mean", check.result)
    assert ("epsilon" in (check.fix or "")) == (state == "warn")


def test_doctor_fails_on_a_model_that_was_changed(run, water_model, tmp_path, monkeypatch):
    models = tmp_path / "models"
    models.mkdir()
    damaged = bytearray(water_model.read_bytes())
    damaged[-1] ^= 1
    (models / "water.safetensors").write_bytes(bytes(damaged))
    (models / "water.xyz").write_text(water_model.with_suffix(".xyz").read_text())
    for module in ("painn_fast.io.find", "painn_fast.doctor"):
        monkeypatch.setattr(importlib.import_module(module), "MODELS", models)
    outcome = run("doctor")
    assert outcome.code == 1
    assert any(line.startswith("fail") and "SHA-256" in line for line in outcome.out.splitlines())


def test_any_verb_reports_a_bug_in_one_line(run, water_model, monkeypatch):
    def faulty(*_, **__):
        raise RuntimeError("something\nunforeseen")

    monkeypatch.setattr("painn_fast.io.describe.describe", faulty)
    outcome = run("info", water_model)
    assert outcome.code == 1
    (line,) = outcome.err.strip().splitlines()
    assert line.startswith("error: unexpected RuntimeError: something unforeseen; fix: this is a bug")
    assert "in faulty" in run("info", water_model, "--traceback").err


def test_interrupt_is_exit_code_130(run, water_model, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("painn_fast.io.describe.describe", interrupted)
    outcome = run("info", water_model)
    assert (outcome.code, outcome.err) == (130, "interrupted\n")


def test_bench_times_what_it_is_asked_for_and_makes_tables_of_it(run, own_folder):
    words = ("--sides", "fused,reference", "--modes", "energy_forces", "--rounds", 2, "--threads", 1)
    outcome = run("bench", "ethanol-1", *words, "--out", "results.json")
    assert outcome.code == 0, outcome.err
    report = json.loads((own_folder / "results.json").read_text())
    assert [(result["side"], len(result["times"])) for result in report["results"]] == [("fused", 2), ("reference", 2)]
    assert report["machine"]["threads"] == 1
    median = report["results"][0]["median"] * 1e3
    rows = [line.split() for line in outcome.out.splitlines() if line.strip().startswith("ethanol-1")]
    assert [row[1:3] for row in rows] == [["energy_forces", "painn-fast"], ["energy_forces", "reference"]]
    assert float(rows[0][3]) == pytest.approx(median, rel=0.01)
    table = run("bench", "--table", "results.json", "results.json")
    assert table.code == 0
    assert table.out.count("| ethanol-1 | 9 | energy, forces | " + rows[0][3]) == 2
