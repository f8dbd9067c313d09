"""Right numbers have a time, wrong ones have none, and no failure stops the others."""

import importlib.util
import sys

import pytest
import torch

from painn_fast.bench import run as module
from painn_fast.bench.cases import CASES, paper_model
from painn_fast.bench.problem import TOLERANCE, Problem, Work
from painn_fast.bench.results import read_report
from painn_fast.bench.run import run
from painn_fast.bench.sides import Compiled, Fused, Reference
from painn_fast.bench.table import markdown, terminal
from painn_fast.errors import PaiNNFastError
from painn_fast.nn import fused
from painn_fast.train.direct_step import DirectStep

MODES = ["forward", "energy_forces", "evaluate", "calculator", "training_step", "training_energy"]
WORDS = {"rounds": 3, "modes": ["energy_forces"]}


class Liar(Reference):
    """Forces a little too large."""

    name, title = "liar", "Liar"

    def prepare(self, problem):
        honest = super().prepare(problem)
        return Work(lambda: (r := honest.call()) | {"forces": r["forces"] * (1 + 3 * TOLERANCE["forces"])}, honest.read)


class Turncoat(Reference):
    """Right at first."""

    name, title = "turncoat", "Turncoat"

    def prepare(self, problem):
        honest, calls = super().prepare(problem), []

        def call():
            calls.append(None)
            results = honest.call()
            return results if len(calls) < 3 else results | {"energy": results["energy"] + 1.0}

        return Work(call, honest.read)


class Silent(Reference):
    """Does not give its forces."""

    name, title = "silent", "Silent"

    def prepare(self, problem):
        honest = super().prepare(problem)
        return Work(lambda: {"energy": honest.call()["energy"]}, honest.read)


class Failing(Reference):
    """Raises an error in the call."""

    name, title = "failing", "Failing"

    def prepare(self, problem):
        return Work(lambda: torch.zeros(2) @ torch.zeros(3), lambda result: result)


@pytest.mark.parametrize(
    ("side", "mode", "calls"),
    [(Reference, "forward", 0), (Reference, "energy_forces", 0), (Reference, "training_step", 0),
     (Compiled, "forward", 0), (Fused, "training_step", 1)],
)  # fmt: skip
def test_the_compiled_network_runs_in_the_training_of_the_fused_side_only(monkeypatch, side, mode, calls):
    called, network, step = [], fused.whole_network, DirectStep.__call__
    monkeypatch.setattr(fused, "whole_network", lambda *given, **more: called.append(1) or network(*given, **more))
    monkeypatch.setattr(DirectStep, "__call__", lambda *given: called.append(1) or step(*given))
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    problem = Problem(CASES["ethanol-1"], mode, paper_model())
    work = side().prepare(problem)
    called.clear()
    work.call()
    assert len(called) == calls


def test_training_under_compile_leaves_the_weights_of_the_others_alone(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    problem = Problem(CASES["ethanol-1"], "training_step", paper_model())
    before = [p.detach().clone() for p in problem.potential.parameters()]
    Compiled().prepare(problem).call()
    for a, b in zip(problem.potential.parameters(), before, strict=True):
        assert torch.equal(a, b)


@pytest.fixture
def sides(monkeypatch):
    """Make these the sides that there are."""
    return lambda *those: monkeypatch.setattr(module, "SIDES", those)


@pytest.mark.parametrize(
    ("side", "reason"),
    [(Liar, "forces off by 3.0e-04"), (Turncoat, "after many calls: energy off"), (Silent, "forces off by inf")],
)
def test_wrong_numbers_have_no_time(sides, side, reason):
    sides(side, Fused)
    wrong, right = run(["ethanol-1"], **WORDS).results
    assert (wrong.side, wrong.status) == (side.name, "wrong")
    assert reason in wrong.reason
    assert (wrong.times, wrong.median, wrong.memory) == ((), None, None)
    assert (right.side, right.status, len(right.times)) == ("fused", "ok", 3)


def test_a_side_that_fails_has_a_reason_and_the_others_go_on(sides):
    sides(Failing, Reference)
    failed, right = run(["ethanol-1"], **WORDS).results
    assert failed.status == "not available"
    assert failed.reason.startswith("RuntimeError: inconsistent tensor size")
    assert right.status == "ok"


def test_a_peer_that_is_not_installed_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "schnetpack", None)
    (result,) = run(["ethanol-1"], sides=["schnetpack"], **WORDS).results
    assert result.status == "not available"
    assert "schnetpack" in result.reason


@pytest.mark.parametrize("mode", MODES)
def test_our_sides_agree_with_the_reference_in_float64(mode, tmp_path):
    report = run(["ethanol-1"], sides=["fused", "reference"], modes=[mode], rounds=2, out=tmp_path / "results.json")
    assert [result.side for result in report.results] == ["fused", "reference"]
    for result in report.results:
        assert result.status == "ok", result.reason
        quantities = {
            "forward": {"energy"},
            "training_step": {"loss", "gradient"},
            "training_energy": {"loss", "gradient"},
        }.get(mode, {"energy", "forces"})
        assert set(result.errors) == quantities
        assert all(0 < error < 1e-4 for error in result.errors.values()), "float32 is never exact"
        assert min(result.times) > 0
        assert result.floor > 0
        assert (result.atoms, result.edges, result.structures) == (9, 72, 1)
    assert read_report(tmp_path / "results.json") == report


@pytest.mark.skipif(not importlib.util.find_spec("schnetpack"), reason="SchNetPack is not installed")
@pytest.mark.filterwarnings("ignore:__array__")
def test_schnetpack_gives_our_numbers_with_our_weights():
    sides = ["schnetpack", "accelerate"]
    for result in run(["ethanol-1", "scaling-96"], sides=sides, modes=[*MODES, "simulator_step"], rounds=1).results:
        assert result.status == "ok", result.reason


@pytest.mark.skipif(not importlib.util.find_spec("pyscf"), reason="PySCF is not installed")
def test_electronic_structure_is_timed_once_beside_the_same_properties_of_ours(monkeypatch, tmp_path):
    monkeypatch.setattr("painn_fast.bench.peers.LEVELS", {"ethanol-1": "HF/STO-3G"})
    sides = ["fused", "reference", "pyscf"]
    report = run(["ethanol-1"], sides=sides, modes=["properties"], rounds=2, out=tmp_path / "results.json")
    assert [(result.side, result.status, len(result.times)) for result in report.results] == [
        ("fused", "ok", 2), ("reference", "ok", 2), ("pyscf", "ok", 1),
    ]  # fmt: skip
    assert set(report.results[0].errors) == {"energy", "forces", "dipole", "polarizability"}
    assert report.results[2].errors == {}, "nothing of ours to be compared with"
    assert report.results[2].median > 0.1, "seconds of one processor"
    assert report.versions["pyscf"]
    assert "PySCF" in markdown([report])
    assert terminal(report).row_count == 3


def test_a_step_of_schnetpacks_simulator_has_no_other_sides():
    assert not run(["ethanol-1"], sides=["fused", "reference"], modes=["simulator_step"], rounds=1).results


def test_cases_larger_than_asked_for_are_left_out_aloud():
    lines = []
    report = run(["ethanol-1", "ethanol-64"], sides=["fused"], max_atoms=10, tell=lines.append, **WORDS)
    assert {result.case for result in report.results} == {"ethanol-1"}
    assert "ethanol-64: left out, 576 atoms, --max-atoms is 10" in lines


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"sides": ["fast"]}, "no such side.*'fast'.*fused, reference"),
        ({"modes": ["hessian"]}, "no such mode.*'hessian'.*forward"),
        ({"device": "abacus"}, "no such device.*'abacus'.*cpu"),
    ],
)
def test_unknown_names_are_refused(options, texts):
    with pytest.raises(PaiNNFastError, match=texts):
        run(["ethanol-1"], **options)
