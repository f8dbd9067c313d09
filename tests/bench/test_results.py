"""Result files: every key checked; the tables that are made of them."""

import json
import re

import pytest
from rich.console import Console

from painn_fast.bench.results import Machine, Report, Result, commit, read_report, write_report
from painn_fast.bench.table import machine_line, markdown, milliseconds, notes, speedup, terminal
from painn_fast.errors import PaiNNFastError


def result(side, times=(), **changes):
    facts = {"case": "ethanol-1", "mode": "energy_forces", "structures": 1, "atoms": 9, "edges": 72}
    if times:
        middle = sorted(times)[len(times) // 2]
        facts |= {"status": "ok", "times": times, "median": middle, "iqr": 0.001, "calls": 3, "first_call": 1.0}
        facts |= {"memory": 2_500_000, "floor": 0.0005, "errors": {"energy": 1e-7, "forces": 2e-6}}
    return Result.parse(facts | {"side": side} | changes)


@pytest.fixture
def report():
    machine = Machine(cpu="A processor", cores=4, threads=2, device="cpu", gpu=None, platform="Linux")
    versions = {"painn-fast": "0.1.0", "torch": "2.13.0", "schnetpack": "2.1.1", "triton": None}
    return Report(
        date="2026-01-02T03:04:05+00:00",
        commit="0123456789abcdef+",
        machine=machine,
        versions=versions,
        model={"n_features": 128},
        results=(
            result("fused", (0.001, 0.002, 0.004)),
            result("reference", (0.010, 0.010, 0.008)),
            result("compile", status="not available", reason="no compiler"),
            result("schnetpack", status="wrong", reason="forces off by 1e-2", errors={"forces": 1e-2}),
            result("fused", (0.1234,), case="water-216", atoms=648),
            result("compile", case="water-216", status="not available", reason="no compiler"),
        ),
    )


def test_a_file_comes_back_as_it_was(report, tmp_path):
    write_report(report, tmp_path / "results.json")
    assert read_report(tmp_path / "results.json") == report


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (lambda d: d.update(speed=1), "unknown key 'speed'"),
        (lambda d: d.pop("machine"), "missing key 'machine'"),
        (lambda d: d.update(format=2), "'format'"),
        (lambda d: d["results"][0].update(medain=1.0), "unknown key 'results.0.medain'.*did you mean 'median'"),
        (lambda d: d["results"][0].update(status="wrong", reason="forces"), "status 'wrong' with 3 times"),
        (lambda d: d["results"][2].update(status="ok", reason=None), "status 'ok' with 0 times"),
        (lambda d: d["results"][2].update(reason=None), "with reason None"),
    ],
)
def test_a_file_with_other_keys_or_a_time_for_wrong_numbers_is_refused(report, tmp_path, change, texts):
    document = report.model_dump(mode="json")
    change(document)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document))
    with pytest.raises(PaiNNFastError, match=f"{texts}.*results.json"):
        read_report(path)


@pytest.mark.parametrize("content", ["", "[]", "no JSON", "{}"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(PaiNNFastError, match=r"results\.json"):
        read_report(tmp_path / "results.json")


def test_the_commit_is_that_of_the_checkout_or_none():
    found = commit()
    assert found is None or re.fullmatch(r"[0-9a-f]{40}\+?", found)


def test_ratios_are_taken_within_a_round(report):
    group = {r.side: r for r in report.results[:4]}
    assert speedup(group, "fused", "reference") == pytest.approx(5.0), "median of 10, 5 and 2"
    assert speedup(group, "fused", "schnetpack") is None
    assert speedup(group, "fused", "dimenet") is None


def test_markdown_has_a_row_a_case_and_a_column_a_side(report):
    lines = markdown([report, report]).splitlines()
    assert lines[0] == machine_line(report)
    assert (
        lines[0] == "A processor, 2 threads: painn-fast 0.1.0 at 0123456+; torch 2.13.0; SchNetPack 2.1.1; 2026-01-02"
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:6]]
    assert rows[0][3:] == [
        "painn-fast", "reference", "torch.compile", "SchNetPack", "reference / painn-fast", "painn-fast / floor",
    ]  # fmt: skip
    assert len({len(row) for row in rows}) == 1
    assert rows[2] == ["ethanol-1", "9", "energy, forces", "2.00", "10.0", "–", "wrong", "5.0", "4.0"]
    assert rows[3] == ["water-216", "648", "energy, forces", "123", "", "–", "", "", "246.8"]
    assert lines == [*markdown([report]).splitlines(), "", *markdown([report]).splitlines()]


def test_the_terminal_shows_no_time_for_wrong_numbers(report):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal(report))
    console.file.close()
    lines = console.export_text().splitlines()
    (wrong,) = [line for line in lines if "SchNetPack" in line]
    assert wrong.split() == ["ethanol-1", "energy_forces", "SchNetPack", "wrong"]
    (right,) = [line for line in lines if "painn-fast" in line and "ethanol-1" in line]
    assert right.split()[3:] == ["2.00", "1.00", "4.0", "5.0", "2.5", "2e-06"]


def test_a_reason_is_given_once(report):
    assert notes(report) == [
        "torch.compile not available: no compiler (ethanol-1 energy_forces, water-216 energy_forces)",
        "SchNetPack wrong: forces off by 1e-2 (ethanol-1 energy_forces)",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (1.2345e-4, "0.123"), (0.0012345, "1.23"), (0.012345, "12.3"), (1.2345, "1,234")]
)
def test_times_have_three_digits(seconds, text):
    assert milliseconds(seconds) == text
