"""The script for CUDA machines: stages that fail, hang or lack their tool do not stop it."""

import importlib.util
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("bench_gpu", FOLDER / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def python(code):
    return [sys.executable, "-c", code]


def test_how_stages_end(gpu, tmp_path):
    hang = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    stages = [
        gpu.Stage("good", 20, python("print('a'); print('b'); print()")),
        gpu.Stage("failing", 20, python("raise ValueError('so')")),
        gpu.Stage("missing", 20, "there is no such tool"),
        gpu.Stage("hanging", 2.5, python(hang + "print('begun', flush=True); time.sleep(60)")),
    ]
    start = time.monotonic()
    ends = [gpu.run(stage, tmp_path, 100) for stage in stages]
    assert time.monotonic() - start < 20
    assert [(end.state, end.message) for end in ends] == [
        ("ok", "b"),
        ("failed", "ValueError: so"),
        ("skipped", "there is no such tool"),
        ("out of time", "begun"),
    ]
    assert gpu.run(stages[0], tmp_path, 1).message == "no time left"


def test_stages_fit_into_the_time_that_is_promised(gpu, tmp_path):
    assert gpu.MINUTES < 9
    stages = gpu.stages("cuda", tmp_path, quick=False)
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names)
    assert {"tests-kernels", "memcheck", "racecheck", "tuner", "bench", "roofline"} <= set(names)
    before_bench = sum(stage.seconds for stage in stages[: names.index("bench") + 1])
    assert before_bench < 60 * gpu.MINUTES, "slow tests must not take the benchmark's time"


def test_kernels_are_tested_on_the_device_and_tuned_there(gpu, tmp_path):
    words = {stage.name: stage.words for stage in gpu.stages("cuda", tmp_path, quick=False)}
    assert words["tests-kernels"][-4:-2] == ["--device", "cuda"]
    ignored = [word.removeprefix("--ignore=") for word in words["tests-kernels"] if word.startswith("--ignore=")]
    assert len(ignored) == 2
    assert all((FOLDER.parent / name).is_file() for name in ignored)
    assert words["tuner"][1] == "-m"
    assert importlib.util.find_spec(f"{words['tuner'][2]}.__main__"), "a module that can be run"


def test_without_a_gpu_it_says_so(gpu, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", str(tmp_path / "new")])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "no CUDA device" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
