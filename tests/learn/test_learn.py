"""`painn-fast learn`: from one geometry to a model that carries its minima, and what is reported of it."""

import csv
import os

import ase.io
import numpy as np
import pytest
from ase.build import molecule

import painn_fast as pf
from painn_fast.cli import main
from painn_fast.errors import PaiNNFastError
from painn_fast.io.minima import minima_of
from painn_fast.label.methods import How
from painn_fast.learn import LearnSettings, learn, prediction
from painn_fast.learn.plan import Costs, costs, counts
from painn_fast.units import factor
from painn_fast.vibrations import harmonic

TINY = {
    "method": "spring_water:CountedWater", "surface": "spring_water:SpringWater", "labels": 80, "rounds": 2, "beads": 2,
    "features": 16, "layers": 1, "steps": 300, "final_steps": 600, "explore": "60 fs", "dynamics": "400 fs",
    "workers": 1, "aim": 1e-3, "check_hessian": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learn") / "water"
    log = folder.with_name("log.txt")
    learn(_settings(folder), molecule("H2O"))
    assert log.exists()
    return folder


def _settings(folder, **other):
    return LearnSettings(
        **{**TINY, "options": {"log": str(folder.with_name("log.txt"))}, "output": str(folder), **other}
    )


def _read(path):
    return ase.io.read(path, ":")


def test_all_labels_are_used_and_held_out_beads_are_never_trained_on(folder):
    rounds = [len(_read(folder / f"round-{k}/labelled.xyz")) for k in (0, 1)]
    tests = [_read(folder / f"{name}/held-out.xyz") for name in ("round-0", "final")]
    assert sum(rounds) + sum(map(len, tests)) == 80
    trained = {
        one.positions.tobytes()
        for k in (0, 1)
        for use in ("train", "validation")
        for one in _read(folder / f"round-{k}/labelled-{use}.xyz")
    }
    assert len(trained) == sum(rounds)
    assert not trained & {one.positions.tobytes() for frames in tests for one in frames}


def test_reported_errors_are_those_of_the_model(folder):
    frames = _read(folder / "final/held-out.xyz")
    predicted = pf.evaluate(folder / "model.safetensors", frames, ("forces",))["forces"]
    error = np.abs(np.array(predicted) - [one.get_forces() for one in frames]).mean() / factor("energy", "kcal/mol")
    lines = (folder / "report.csv").read_text().splitlines()[1:]
    table = list(csv.DictReader(lines))
    assert [row["round"] for row in table] == ["round-0", "final"]
    assert float(table[-1]["forces"]) == pytest.approx(error, rel=1e-4)
    assert f"off by {error:.3f} kcal/mol/Å; the aim of 0.001 is NOT reached" in (folder / "report.md").read_text()


def test_a_model_carries_its_minima_and_needs_no_structure(folder):
    model = pf.load(folder / "model.safetensors")
    (minimum, *_) = minima_of(model)
    assert minimum.symbols.get_chemical_formula() == "H2O"
    assert np.abs(pf.evaluate(model, [minimum], ("forces",))["forces"][0]).max() < 1e-4
    assert "minima" not in str(harmonic(model, minimum).about())
    words = ["md", "--model", str(folder / "model.safetensors"), "--duration", "2 fs", "-o", str(folder / "md")]
    assert main(words) == 0


def test_a_finished_run_is_resumed_at_once_and_not_replaced_unasked(folder):
    before = (folder / "model.safetensors").read_bytes()
    computed = folder.with_name("log.txt").read_text()
    with pytest.raises(PaiNNFastError, match=r"holds a run.*--resume"):
        learn(_settings(folder), molecule("H2O"))
    assert learn(_settings(folder), molecule("H2O"), resume=True).read_bytes() == before
    assert folder.with_name("log.txt").read_text() == computed
    with pytest.raises(PaiNNFastError, match=r"other settings.*seed = 1"):
        learn(_settings(folder, seed=1), molecule("H2O"), resume=True)


def test_lines_are_compared_with_those_of_the_method(folder):
    springs = (folder / "report.md").read_text().split("## Harmonic lines beside")[1].split("##")[0]
    rows = [row.split("|")[1:4] for row in springs.splitlines() if row.startswith("| ") and "model" not in row]
    own, method, difference = np.array(rows, dtype=float).T
    assert len(own) == 3
    assert np.allclose(own - method, difference, atol=0.11)
    assert np.abs(difference).max() < 400.0  # a tiny network, of which no more is asked
    assert 3000 < method[2] < 4000  # a stretch of 40 eV/Å^2: sqrt(40 eV/Å^2 / 0.95 amu) is 3380 cm-1


def test_times_of_all_parts_are_reported(folder):
    table = (folder / "report.md").read_text().split("## Time")[1].split("##")[0]
    assert {"sampling", "final: training", "lines of the method", "dynamics without a thermostat"} <= {
        row.split("|")[1].strip() for row in table.splitlines() if row.startswith("| ")
    }


def test_labels_are_timed_where_they_are_computed_in_a_process_of_one_thread(tmp_path, monkeypatch):
    monkeypatch.setenv("PROCESS_WATER", str(tmp_path / "log.txt"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    how = How("spring_water:ProcessWater")
    found = costs(LearnSettings(**TINY), how, how, molecule("H2O"))
    assert 0.0 < found.cheap <= found.label < 1.0
    processes = (tmp_path / "log.txt").read_text().split()
    assert len(processes) > 2
    assert len(set(processes)) == 1
    assert processes[0] not in ("0", str(os.getpid()))


def test_labels_are_divided_between_rounds_and_held_out_beads():
    found = counts(LearnSettings(labels=500, rounds=3))
    assert (found.held_out, found.first, found.later) == (25, 213, 106)  # 3 x 25 + 213 + 2 x 106 = 500
    timed = counts(LearnSettings(time="10 min", rounds=1, workers=2), Costs(1.0, 0.0))
    assert timed.total == 300  # a quarter of 600 s, two at a time
    slow = counts(LearnSettings(time="10 min", rounds=2, labels=1000, workers=2), Costs(0.1, 0.01))
    assert slow.first < 450 < slow.later  # sampling has a tenth of the time, 12,000 evaluations
    assert slow.first + slow.later + 2 * slow.held_out == 1000


def test_a_dry_run_predicts_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = prediction(LearnSettings(**{**TINY, "method": "spring_water:SpringWater"}), molecule("H2O"))
    assert "labels: 80 of" in text
    assert "900 steps" in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"labels": 30}, "30 are too few for 3 rounds"),
        ({"pretrain": "gfn2"}, "expected METHOD:COUNT"),
        ({"members": 1}, "expected 2 or more"),
    ],
)
def test_settings_that_make_no_sense(values, message):
    with pytest.raises(PaiNNFastError, match=message):
        LearnSettings(**values)
