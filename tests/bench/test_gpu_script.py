"""The script for a GPU that is lent for minutes: the rest and the archive outlive whatever happens to a stage."""

import importlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from painn_fast.bench.results import Result, new_report, write_report
from painn_fast.nn import RepresentationConfig

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
HANG = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "


@pytest.fixture(scope="module", autouse=True)
def scripts():
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


@pytest.fixture(scope="module")
def gpu(scripts):
    return importlib.import_module("gpu")


@pytest.fixture
def record(gpu, tmp_path):
    return gpu.Record(tmp_path / "results", tmp_path / "out" / "results.zip")


def python(code):
    return [sys.executable, "-c", code]


def stage(gpu, name, code, seconds=20, **more):
    return gpu.Stage(name, seconds, [python(code)], **more)


def outside_xdist():
    """The environment without the variables of a worker of pytest-xdist, which pytest of a child is not."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}


def archived(path):
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        return {name: file.read(name).decode() for name in file.namelist()}


def test_how_stages_end(gpu, record):
    stages = [
        stage(gpu, "good", "print('a'); print('b'); print()"),
        stage(gpu, "failing", "raise ValueError('so')"),
        stage(gpu, "crashing", "import os; print('begun', flush=True); os.kill(os.getpid(), 9)"),
        stage(gpu, "hanging", HANG + "print('begun', flush=True); time.sleep(60)", 2.5),
        gpu.Stage("missing", 20, [], missing="there is no such tool"),
        gpu.Stage("no program", 20, [["/no/such/program"]]),
        gpu.Stage("two", 20, [python("print(1)"), python("print(2)")]),
        gpu.Stage("one of two", 20, [python("print(1)"), python("print(2); raise SystemExit(3)")]),
    ]
    start = time.monotonic()
    ends = {each.name: gpu.run(each, record, 100, {}) for each in stages}
    assert time.monotonic() - start < 20
    assert {name: (end.state, end.message) for name, end in ends.items()} == {
        "good": ("ok", "b"),
        "failing": ("failed", "ValueError: so"),
        "crashing": ("failed", "begun; ended by signal 9"),
        "hanging": ("out of time", "begun"),
        "missing": ("skipped", "there is no such tool"),
        "no program": ("failed", "[Errno 2] No such file or directory: '/no/such/program'"),
        "two": ("ok", "1 | 2"),
        "one of two": ("failed", "1 | 2"),
    }
    assert gpu.run(stages[0], record, 5, {}).state == "unfinished"
    assert gpu.run(stages[3], record, 12, {}).state == "out of time"
    assert gpu.run(stage(gpu, "cut", "import time; time.sleep(60)", 60, least=0), record, 1.0, {}).state == "unfinished"


def test_a_stage_that_hangs_says_where(gpu, record, tmp_path):
    from gpu_setup import STACKS

    (tmp_path / "sitecustomize.py").write_text(STACKS)
    code = "import time\nprint('begun', flush=True)\ndef in_this_function():\n    time.sleep(60)\nin_this_function()"
    end = gpu.run(stage(gpu, "hanging", code, 3.0), record, 100, {"PYTHONPATH": str(tmp_path)})
    assert end.state == "out of time"
    assert end.message == 'begun; stopped in File "<string>", line 4 in in_this_function'
    assert "in in_this_function" in (record.folder / "hanging.log").read_text()


def test_what_a_stage_has_started_ends_with_it_and_reports_no_failure_before(gpu, record, tmp_path):
    """A compiler that a signal ends would be a failure of a kernel in the results."""
    from gpu_setup import STACKS

    (tmp_path / "sitecustomize.py").write_text(STACKS)
    code = "import subprocess; child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); "
    code += "print('ended by signal', -child.wait(), flush=True)"
    end = gpu.run(stage(gpu, "compiling", code, 5.0), record, 100, {"PYTHONPATH": str(tmp_path)})
    text = (record.folder / "compiling.log").read_text()
    assert end.state == "out of time"
    assert "subprocess.py" in text
    assert "ended by signal" not in text
    assert has_ended(text.split()[0])


def has_ended(pid, seconds=10.0):
    """Within some seconds: a busy machine lists a process some time after it was killed."""
    status, end = Path(f"/proc/{pid}/stat"), time.monotonic() + seconds
    while status.exists() and status.read_text().rsplit(")")[-1].split()[0] != "Z":
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_what_a_stage_has_started_ends_with_it_also_where_it_crashes(gpu, record):
    code = "import os, subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); os.kill(os.getpid(), 9)"
    end = gpu.run(stage(gpu, "crashing", code), record, 100, {})
    assert end.state == "failed"
    assert has_ended((record.folder / "crashing.log").read_text().strip())


def test_counters_are_those_of_kernels_that_the_engine_launches(gpu):
    from gpu_stages import HOT

    pytest.importorskip("triton")
    from painn_fast.kernels.layer import triton as layer

    assert all(hasattr(layer, name) for name in HOT)


def test_the_archive_grows_while_a_stage_runs(gpu, record, monkeypatch):
    monkeypatch.setattr(gpu, "PACK_EVERY", 0.2)
    seen = []
    pack = record.pack
    monkeypatch.setattr(record, "pack", lambda: (pack(), seen.append(archived(record.archive))))
    gpu.run(stage(gpu, "long", "import time; print('first', flush=True); time.sleep(2)"), record, 100, {})
    assert any("first" in files["long.log"] for files in seen)
    (record.folder / "huge.log").write_text("begin" + "x" * 3 * gpu.LARGEST_FILE + "end")
    pack()
    text = archived(record.archive)["huge.log"]
    assert len(text) < 1.1 * gpu.LARGEST_FILE
    assert text.startswith("begin")
    assert text.endswith("end")


@pytest.fixture
def short(gpu, monkeypatch):
    """Stages of a call, by a list that the test fills."""
    listed = []
    monkeypatch.setattr(gpu, "stages", lambda *_: listed)
    return listed


def call(gpu, tmp_path, *words, archive="out.zip", work="work"):
    lines = []
    code = gpu.main([str(tmp_path / archive), "--work", str(tmp_path / work), *words], lines.append)
    return code, lines


def test_the_death_of_any_stage_leaves_the_rest_and_another_call_goes_on(gpu, short, tmp_path):
    mark = f"open({str(tmp_path / 'ran')!r}, 'a').write"
    first = f"'x' not in open({str(tmp_path / 'ran')!r}).read()[:-1]"
    short += [
        stage(gpu, "setup", f"{mark}('s')", always=True, least=0),
        stage(gpu, "crashing", f"{mark}('c'); import os; os.abort()", least=0),
        stage(gpu, "hanging", f"{mark}('h'); import time; time.sleep(60)", 1.0, least=0),
        stage(gpu, "good", f"{mark}('g'); print('energies agree')", least=0),
        stage(gpu, "cut", f"{mark}('x'); import time; time.sleep(60 if {first} else 0)", 60, least=0),
        stage(gpu, "never begun", f"{mark}('n')"),
    ]
    code, lines = call(gpu, tmp_path, "--minutes", "0.25")
    assert code == 1
    states = {
        name: entry["state"] for name, entry in json.loads(archived(tmp_path / "out.zip")["outcomes.json"]).items()
    }
    assert states == {
        "setup": "ok", "crashing": "failed", "hanging": "out of time", "good": "ok", "cut": "unfinished",
        "never begun": "unfinished",
    }  # fmt: skip
    assert "energies agree" in archived(tmp_path / "out.zip")["good.log"]
    assert (tmp_path / "ran").read_text() == "schgx"
    assert len(lines) == len(short) + 1
    # on another machine: with the archive alone
    code, _ = call(gpu, tmp_path, "--before", str(tmp_path / "out.zip"), archive="second.zip", work="other")
    assert (tmp_path / "ran").read_text() == "schgx" + "sxnh"
    files = archived(tmp_path / "second.zip")
    assert "energies agree" in files["good.log"]
    assert files["summary.txt"].count("\n") == len(short)
    # only what is asked for
    call(gpu, tmp_path, "--only", "good", "--again", "good", archive="third.zip", work="other")
    assert (tmp_path / "ran").read_text() == "schgx" + "sxnh" + "sg"


def test_a_stage_for_which_no_time_is_left_keeps_how_it_ended_before(gpu, short, tmp_path):
    short += [stage(gpu, "hanging", "import time; print('begun', flush=True); time.sleep(60)", 1.0)]
    call(gpu, tmp_path)
    call(gpu, tmp_path, "--minutes", "0.1")
    (entry,) = json.loads(archived(tmp_path / "out.zip")["outcomes.json"]).values()
    assert (entry["state"], entry["message"]) == ("out of time", "begun")


def test_a_stage_is_skipped_until_the_results_that_it_reads_are_there(gpu, short, tmp_path):
    from gpu_stages import unused, written

    results = tmp_path / "work" / "results"
    short += [stage(gpu, "roofline", "import sys; print(*sys.argv[1:])", reads=written("bench"))]
    assert call(gpu, tmp_path)[0] == 0
    (entry,) = json.loads(archived(tmp_path / "out.zip")["outcomes.json"]).values()
    assert (entry["state"], entry["message"]) == ("skipped", "no bench.json or bench-[0-9].json among the results")
    (results / "bench.json").touch()
    (results / "bench-compile.json").touch()
    unused(results, "bench").touch()
    assert call(gpu, tmp_path)[0] == 0
    assert archived(tmp_path / "out.zip")["roofline.log"].split() == [
        str(results / name) for name in ("bench.json", "bench-2.json")
    ]


def test_per_cent_of_the_limits_of_each_result_file(tmp_path):
    paths = [str(tmp_path / name) for name in ("bench.json", "bench-2.json")]
    for path, case in zip(paths, ("ethanol-1", "qm9-50"), strict=True):
        facts = {"case": case, "mode": "energy_forces", "side": "fused", "structures": 1, "atoms": 9, "edges": 72}
        measured = Result.parse({**facts, "status": "ok", "times": (0.001,), "median": 0.001})
        report = new_report(torch.device("cpu"), RepresentationConfig().model_dump())
        write_report(report.model_copy(update={"results": (measured,)}), path)
    words = [sys.executable, str(BENCH / "roofline.py"), *paths, "--quick"]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    table = [line.split() for line in run.stdout.splitlines()[2:]]
    assert [line[:3] for line in table] == [[case, "energy_forces", "fused"] for case in ("ethanol-1", "qm9-50")]
    assert all(float(line[-1]) > 0 for line in table)


def test_suites_of_measurements_can_be_collected():
    files = sorted(path.name for path in BENCH.glob("test_*.py"))
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    run = subprocess.run(words, cwd=BENCH, env=outside_xdist(), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert all(f"{name}::" in run.stdout for name in files)


def test_unknown_stages_are_named(gpu, tmp_path, capsys):
    with pytest.raises(SystemExit):
        call(gpu, tmp_path, "--only", "sanitizer")
    assert "no such stage: sanitizer; expected: setup, first, agreement" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call(gpu, tmp_path, archive="out.tar")


def test_the_most_valuable_stages_fit_into_the_first_call_even_if_each_takes_all_of_its_time(gpu, tmp_path):
    listed = gpu.stages("cuda", tmp_path, tmp_path)
    names = [each.name for each in listed]
    assert names[:6] == ["setup", "first", "agreement", "targets", "tests-engine", "tests-kernels"]
    assert sum(each.seconds for each in listed[:6]) < 60 * 7 - gpu.RESERVE
    assert len(set(names)) == len(names)
    assert all(each.commands for each in listed if not each.missing)


def test_commands_name_files_that_exist_and_options_that_are_known(gpu, tmp_path):
    for each in gpu.stages("cuda", tmp_path, tmp_path):
        for command in each.commands:
            words = [word.split("=")[-1] for word in command]
            files = [word for word in words if word.startswith(("tests/", "bench/")) or word.endswith(".py")]
            assert all((ROOT / word).exists() for word in files), command
            assert "tests/kernels/test_message_cpu.py" not in words
            if "-m" in command[:2] and command[2] != "pytest":
                assert importlib.util.find_spec(command[2])


def test_a_call_that_was_cut_short_keeps_its_result_file(tmp_path, gpu):
    from gpu_stages import unused

    assert [unused(tmp_path, "bench").name, (tmp_path / "bench.json").touch()][0] == "bench.json"
    (tmp_path / "bench-compile.json").touch()
    assert unused(tmp_path, "bench").name == "bench-2.json"


def test_wheels_are_unpacked_where_python_lacks_them_and_what_it_has_is_left(tmp_path):
    for module in ("lacked_by_all_pythons", "json"):
        with zipfile.ZipFile(tmp_path / f"{module}-1.0-py3-none-any.whl", "w") as file:
            file.writestr(f"{module}/__init__.py", "text = 'unpacked'\n")
            file.writestr(f"{module}-1.0.dist-info/METADATA", f"Name: {module}\nVersion: 1.0\n")
    words = [sys.executable, str(BENCH / "gpu_setup.py"), str(tmp_path / "work"), str(tmp_path), "abc"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "work" / "site"), "PYTHONSAFEPATH": "1"}
    for unpacked in ("lacked_by_all_pythons-1.0-py3-none-any.whl", "nothing"):
        run = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert run.stdout.startswith(f"unpacked: {unpacked}\n"), run.stdout + run.stderr
        assert run.returncode == 0, run.stdout
    facts = json.loads((tmp_path / "work" / "results" / "environment.json").read_text())
    assert facts["commit"] == "abc"
    assert facts["versions"]["torch"]
    code = "import lacked_by_all_pythons as m, painn_fast, painn_fast.kernels.ring as r; print(m.text, r.__file__)"
    run = subprocess.run(python(code), cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["unpacked", str(tmp_path / "work/site/painn_fast/kernels/ring/__init__.py")]


def test_wheels_to_bring_are_the_versions_that_the_tests_pass_with():
    from gpu_setup import BROUGHT, REQUIRED

    def pins(path):
        lines = [line.split(";")[0].strip() for line in path.read_text().splitlines() if not line.startswith("#")]
        return dict(line.split("==") for line in lines)

    brought, tested = pins(BENCH / "gpu_wheels.txt"), pins(ROOT / "constraints.txt")
    assert {REQUIRED[module] for module in BROUGHT} <= brought.keys() & tested.keys()
    assert all(brought[name] == tested[name] for name in brought.keys() & tested.keys())


def test_the_journal_has_each_result_and_another_run_leaves_out_what_passed(tmp_path):
    (tmp_path / "test_some.py").write_text("def test_a():\n    pass\ndef test_b():\n    assert 1 == 2\n")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "gpu_journal", "-p", "no:cacheprovider", "-n", "2", "."]
    environment = outside_xdist() | {"PAINN_FAST_JOURNAL": str(tmp_path / "journal.jsonl"), "PYTHONPATH": str(BENCH)}
    for expected in (["passed", "failed"], ["passed", "failed", "failed"]):
        run = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 1, run.stdout + run.stderr
        entries = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
        assert sorted(entry["result"] for entry in entries) == sorted(expected)
    assert "assert 1 == 2" in entries[-1]["message"]


def test_without_a_gpu_the_checks_say_so(tmp_path):
    words = [sys.executable, str(BENCH / "gpu_checks.py"), "--out", str(tmp_path), "first"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (1, "torch finds no CUDA device\n")
