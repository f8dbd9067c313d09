"""Any mistake of a user ends in one clear line, a non-zero exit code, and nothing overwritten."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from painn_fast.cli import app


def files(folder):
    """Contents of every file under a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["truncated", "empty", "text"])
def damaged_model(request, water_model, own_folder):
    whole = water_model.read_bytes()
    path = own_folder / "damaged.safetensors"
    path.write_bytes(
        {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"this is no model at all"}[request.param]
    )
    return path


@pytest.mark.parametrize("verb", ["info", "eval", "md", "spectrum", "convert"])
def test_model_file_that_is_damaged(fails, damaged_model, water, own_folder, verb):
    words = {
        "info": ("info", damaged_model),
        "eval": ("eval", damaged_model, water),
        "md": ("md", "--model", damaged_model, "--structure", water),
        "spectrum": ("spectrum", damaged_model, water),
        "convert": ("convert", damaged_model, "new.safetensors", "--energy-unit", "eV"),
    }[verb]
    before = files(own_folder)
    fails(words, "damaged.safetensors")
    assert files(own_folder) == before


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["trian"], "did you mean train? see painn-fast --help"),
        (["evaluate", "ethanol"], "did you mean eval?"),
        (["dynamics"], "fix: see painn-fast --help"),
        (["--verison"], "did you mean --version?"),
        (["md", "--modle", "ethanol"], "did you mean --model? see painn-fast md --help"),
        (["md", "--time_step", "1 fs"], "did you mean --time-step?"),
        (["ipi", "--qqq", "1"], "fix: see painn-fast ipi --help"),
    ],
)
def test_verb_or_flag_that_does_not_exist(fails, words, fix):
    fails(words, "no such", words[1] if words[0] in ("md", "ipi") else words[0], fix)


@pytest.mark.parametrize("words", [("md", "--model"), ("spectrum",), ("ipi",)], ids=" ".join)
def test_structure_that_is_missing(fails, damaged_model, words):
    fails((*words, damaged_model), "no structure to start from", "--structure" if words[0] == "md" else "STRUCTURE")


@pytest.mark.parametrize("verb", ["md", "spectrum"])
def test_model_that_is_missing(fails, verb):
    fails((verb,), "no model", "--model ethanol", "spectrum ethanol")


def test_model_that_is_not_there(fails):
    fails(("info", "etanol"), "no such model", "etanol", "ethanol")


@pytest.fixture
def foreign(run, water_model):
    """A state dict as SchNetPack writes it."""
    assert run("convert", water_model, "foreign.pt").code == 0
    return ("foreign.pt", "--heads", "energy,dipole,polarizability", "--dipole-unit", "D")


def test_foreign_model_without_its_unit(run, fails, foreign, water, own_folder):
    assert "energy not stated" in run("info", *foreign).out
    fails(("eval", foreign[0], water, *foreign[1:]), "missing unit of energy", "foreign.pt")
    name, *options = foreign
    fails(("convert", name, "new.safetensors", *options), "missing unit of energy")
    assert not (own_folder / "new.safetensors").exists()


def test_unit_that_does_not_exist(fails, foreign):
    words = ("info", *foreign, "--polarizability-unit", "Ang^3", "--energy-unit", "furlong")
    fails(words, "unknown unit of energy", "furlong", "kcal/mol")


def test_head_that_does_not_exist(fails, foreign):
    fails(("info", foreign[0], "--heads", "energy,spin"), "unknown head", "spin", "polarizability")


WRONG_STRUCTURES = {
    "positions that are not finite": (Atoms("HO", [[0, 0, 0], [0, 0, np.nan]]), "not finite", "atom 1"),
    "an unknown element": (molecule("CH4"), "element", "C"),
    "no atoms": (Atoms(), "atom"),
    "atoms on top of each other": (Atoms("HHO", [[0, 0, 0], [0, 0, 0], [0, 0, 1]]), "on top of each other"),
}


@pytest.mark.parametrize("verb", ["eval", "md", "spectrum"])
@pytest.mark.parametrize("problem", WRONG_STRUCTURES)
def test_structure_with(fails, water_model, structure_file, own_folder, problem, verb):
    atoms, *texts = WRONG_STRUCTURES[problem]
    path = structure_file(atoms)
    words = {
        "eval": ("eval", water_model, path, "--csv", "out"),
        "md": ("md", "--model", water_model, "--structure", path, "-o", "out"),
        "spectrum": ("spectrum", water_model, path, "-o", "out"),
    }[verb]
    fails(words, *texts)
    assert set(files(own_folder)) == {path}


@pytest.mark.parametrize("content", ["", "3\n\nH 0 0 0\n", "no structure"])
def test_structure_file_that_cannot_be_read(fails, water_model, own_folder, content):
    (own_folder / "bad.xyz").write_text(content)
    fails(("eval", water_model, "bad.xyz"), "bad.xyz", "structure")


def test_structure_file_that_is_not_there(fails, water_model):
    fails(("eval", water_model, "missing.xyz"), "no such structure file", "missing.xyz")


def test_key_of_a_toml_file_that_does_not_exist(fails, own_folder):
    (own_folder / "md.toml").write_text('model = "ethanol"\ntemprature = "300 K"\n')
    fails(("md", "md.toml"), "md.toml", "unknown key 'temprature'", "did you mean 'temperature'?")
    (own_folder / "train.toml").write_text('[[data]]\nfile = "x.npz"\n[representation]\nn_feature = 8\n')
    fails(("train", "train.toml"), "unknown key 'representation.n_feature'", "did you mean 'n_features'?")


def test_quantity_without_its_unit(fails, own_folder):
    fails(("md", "--model", "ethanol", "--time-step", "0.5"), "time_step", "missing unit of time", '"0.5 fs"')
    fails(("md", "--model", "ethanol", "--temperature", "300 fs"), "temperature", "unknown unit", "K")
    (own_folder / "md.toml").write_text('model = "ethanol"\ntime_step = 0.5\n')
    fails(("md", "md.toml"), "time_step", "missing unit of time")


def test_toml_file_that_is_none(fails, own_folder):
    fails(("md", "missing.toml"), "missing.toml")
    (own_folder / "bad.toml").write_text("model = ethanol")
    fails(("md", "bad.toml"), "bad.toml", "not a TOML file")


def test_data_that_cannot_be_read(fails, water_model, labelled, own_folder):
    fails(("eval", water_model, "missing.npz"), "missing.npz")
    whole = labelled.read_bytes()
    (own_folder / "bad.npz").write_bytes(whole[: len(whole) // 2])
    fails(("eval", water_model, "bad.npz"), "bad.npz", "not a readable .npz")
    fails(("eval", water_model, labelled, "--split", "tset"), "split", "tset", "test")
    fails(("eval", water_model, labelled, "--key", "energy"), "--key", "NAME=VALUE")
    fails(("eval", water_model, labelled, "--key", "energy=nothing"), "nothing", "water.npz")
    arrays = {key: value for key, value in np.load(labelled).items() if key != "energy_unit"}
    np.savez(own_folder / "unitless.npz", **arrays)
    fails(("eval", water_model, "unitless.npz"), "missing unit of energy", "unitless.npz")


def test_data_of_an_element_that_the_model_does_not_know(fails, water_model, labelled, own_folder):
    np.savez(own_folder / "sulfur.npz", **(dict(np.load(labelled)) | {"z": np.array([16, 1, 1])}))
    fails(("eval", water_model, "sulfur.npz"), "element", "S", "H, O")


def test_results_are_not_overwritten(fails, run, water_model, water, own_folder):
    words = ("md", "--model", water_model, "--structure", water, "--duration", "2 fs", "-o", "run")
    assert run(*words).code == 0
    before = files(own_folder)
    fails(words, "run", "--resume")
    assert files(own_folder) == before
    copy = own_folder / "copy.pt"
    copy.write_text("precious")
    fails(("convert", water_model, copy), "copy.pt", "overwrite")
    assert copy.read_text() == "precious"


@pytest.mark.parametrize("content", ["nothing of the kind", ""])
def test_trajectory_that_cannot_be_read(fails, run, water_model, water, own_folder, content):
    words = ("md", "--model", water_model, "--structure", water, "--duration", "2 fs", "-o", "run")
    assert run(*words).code == 0
    (own_folder / "run" / "trajectory.h5").write_text(content)
    fails((*words, "--duration", "4 fs", "--resume"), "trajectory.h5")
    assert (own_folder / "run" / "trajectory.h5").read_text() == content


@pytest.mark.parametrize("words", [("nonsense",), ("info",), ("md", "--tempreture", "1 K"), ("md", "--beads", "many")])
def test_words_that_the_command_does_not_know(fails, words):
    fails(words, "--help")


def test_the_process_ends_with_that_exit_code():
    command = [sys.executable, "-m", "painn_fast.cli", "info", "nothing"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: no such model")
    assert result.stderr.count("\n") == 1


def test_bench_of_what_does_not_exist(fails, own_folder):
    fails(("bench", "ethanol-2"), "no such case", "'ethanol-2'", "ethanol-1")
    fails(("bench", "ethanol-1", "--sides", "fast"), "no such side", "'fast'", "fused")
    fails(("bench", "ethanol-1", "--modes", "hessian"), "no such mode", "'hessian'", "forward")
    fails(("bench", "ethanol-1", "--device", "abacus"), "no such device", "'abacus'", "cpu")
    fails(("bench", "ethanol-1", "--rounds", "0"), "--rounds", "bench --help")
    fails(("bench", "--table"), "--table", "no result file")
    fails(("bench", "--table", "missing.json"), "missing.json")
    (own_folder / "results.json").write_text("{}")
    fails(("bench", "--table", "results.json"), "results.json", "missing key 'machine'")
    fails(("bench", "ethanol-1", "--out", "results.json"), "results.json", "exists already")
    assert (own_folder / "results.json").read_text() == "{}"


def test_ipi_that_is_not_there(fails):
    fails(("ipi", "ethanol", "--address", "localhost"), "not an address", "host:port")
    fails(("ipi", "ethanol", "--address", "localhost:1", "--unix", "name"), "two addresses")
    fails(("ipi", "ethanol", "--timeout", "5"), "missing unit of duration")
    fails(("ipi", "ethanol", "--properties", "charges"), "no such extra", "'charges'", "dipole")
    fails(
        ("ipi", "ethanol", "--unix", "./missing", "--timeout", "0 s"), "no connection to i-PI", "./missing", "--timeout"
    )


def test_a_warning_is_one_line_without_the_place_in_the_code(monkeypatch):
    """Python's own has the file and the line; other kinds of warnings, which are for developers, keep them."""
    written = []
    monkeypatch.setattr(app, "app", lambda **_: written.extend(both()))

    def both():
        return [warnings.formatwarning("first\nsecond", kind, "code.py", 7) for kind in (UserWarning, FutureWarning)]

    assert app.main(["doctor"]) == 0
    assert written[0] == "warning: first second\n"
    assert "code.py:7" in written[1]
    assert "code.py:7" in warnings.formatwarning("outside", UserWarning, "code.py", 7)
