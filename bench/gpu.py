"""All checks that need a CUDA machine, in less than nine minutes: `python bench/gpu.py [FOLDER]`.

Stages run one after another, each in a process of its own with a deadline; one that fails, or whose tool is
missing, reports it, and the next goes on. Logs and results land in the folder, the summary comes last.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
MINUTES = 8.8
ENGINES = ["tests/engine", "tests/md/test_whole_step.py"]
NOTHING_COLLECTED = 5
"""pytest's exit code."""


@dataclass
class Stage:
    """One process.

    Args:
        name: of its log.
        seconds: at most.
        words: the command, or why there is none.
    """

    name: str
    seconds: float
    words: list[str] | str


@dataclass
class Outcome:
    """How a stage ended."""

    name: str
    state: str
    seconds: float
    message: str


def run(stage: Stage, folder: Path, left: float) -> Outcome:
    """Run a stage within its seconds and those that are left; whatever it started dies with it."""
    if isinstance(stage.words, str):
        return Outcome(stage.name, "skipped", 0.0, stage.words)
    limit = min(stage.seconds, left)
    if limit < 2.0:
        return Outcome(stage.name, "skipped", 0.0, "no time left")
    log = folder / f"{stage.name}.log"
    start = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(stage.words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(limit)
            state = {0: "ok", NOTHING_COLLECTED: "skipped" if "pytest" in stage.words else "failed"}.get(code, "failed")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            state = "out of time"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Outcome(stage.name, state, time.monotonic() - start, last_line(log))


def last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:140] if lines else "no output"


def stages(device: str, folder: Path, *, quick: bool) -> list[Stage]:
    """All stages, the most informative first."""
    bench = [PYTHON, "-m", "painn_fast.cli", "bench", "--device", device]
    results, compiled = folder / "bench.json", folder / "bench-compile.json"
    sides = "fused,reference" if quick else "fused,reference,schnetpack,dimenet"
    cases = ["ethanol-1", "ethanol-10"] if quick else []
    rounds = ["--rounds", "2"] if quick else []
    pytest = [PYTHON, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider"]
    operations = [*pytest, "bench/test_operations.py", "--device", device]
    operations += ["--benchmark-json", str(folder / "operations.json"), "--benchmark-columns=median,iqr"]
    operations += ["-k", "forward and not double and ethanol"] if quick else []
    dynamics = [*pytest, "bench/test_dynamics.py", "--device", device, "-k", "1-painn" if quick else "engine or painn"]
    dynamics += ["--benchmark-json", str(folder / "dynamics.json"), "--benchmark-columns=median,iqr"]
    roofline = [PYTHON, "bench/roofline.py", str(results), "--device", device, *(["--quick"] if quick else [])]
    compile_words = [*bench, "ethanol-1", "ethanol-64", "qm9-50", "--modes", "energy_forces", "--out", str(compiled)]
    return [
        Stage("doctor", 40, [PYTHON, "-m", "painn_fast.cli", "doctor"]),
        Stage("tests-kernels", 150, tests_of_kernels(pytest, device, quick=quick)),
        Stage("tests-engine", 80, "left out by --quick" if quick else [*pytest, *ENGINES, "--device", device]),
        Stage("tuner", 80, tuner(device)),
        Stage("bench", 170, [*bench, *cases, "--sides", sides, *rounds, "--out", str(results)]),
        Stage("roofline", 25, roofline),
        Stage("operations", 50, operations),
        Stage("dynamics", 40, dynamics),
        Stage("precision", 60, precision(device, folder)),
        Stage("memcheck", 50, sanitizer("memcheck", bench, device)),
        Stage("racecheck", 50, sanitizer("racecheck", bench, device)),
        Stage(
            "bench-compile",
            90,
            "left out by --quick" if quick else [*compile_words, "--sides", "fused,reference,compile", "--rounds", "7"],
        ),
    ]


def tests_of_kernels(pytest: list[str], device: str, *, quick: bool) -> list[str]:
    """The suite of the kernels on the device, without what compiles alone: that needs no GPU."""
    compiled = ("test_static_report.py", "test_triton_compiles.py")
    words = [*pytest, "tests/kernels", "-m", "not slow", "--device", device]
    words += [f"--ignore=tests/kernels/{name}" for name in compiled]
    return [*words, "-k", "random"] if quick else words


def tuner(device: str) -> list[str] | str:
    name = "painn_fast.kernels.tools.tuning"
    if importlib.util.find_spec(name) is None:
        return f"there is no {name}"
    return "needs a GPU" if device == "cpu" else [PYTHON, "-m", name, "--seconds", "60"]


def precision(device: str, folder: Path) -> list[str] | str:
    if device == "cpu":
        return "needs a GPU"
    return [PYTHON, "bench/precision.py", "--device", device, "--out", str(folder / "precision.json")]


def sanitizer(tool: str, bench: list[str], device: str) -> list[str] | str:
    """One small molecule through engine and training step, under NVIDIA's checker."""
    found = find_sanitizer()
    if device == "cpu":
        return "needs a GPU"
    if found is None:
        return "compute-sanitizer is not installed"
    small = [*bench, "ethanol-1", "--sides", "fused", "--modes", "energy_forces,training_step", "--rounds", "1"]
    return [found, "--tool", tool, "--error-exitcode", "9", *small]


def find_sanitizer() -> str | None:
    """On the path, in a CUDA toolkit, or in a wheel of NVIDIA."""
    on_path = shutil.which("compute-sanitizer")
    folders = [*Path("/usr/local").glob("cuda*/bin"), *Path(sysconfig.get_path("purelib")).glob("nvidia/**/bin")]
    others = [folder / "compute-sanitizer" for folder in folders]
    return on_path or next((str(path) for path in others if path.is_file()), None)


def default_folder(device: str) -> Path:
    name = "cpu"
    if device == "cuda":
        import torch

        name = re.sub(r"[^A-Za-z0-9]+", "-", torch.cuda.get_device_name()).strip("-").lower()
    return ROOT / "bench" / "results" / f"{name}-{date.today().isoformat()}"


def summary(outcomes: list[Outcome], folder: Path) -> str:
    """A line a stage, then the tables that were measured."""
    lines = [f"{o.name:<14} {o.state:<12} {o.seconds:6.1f} s  {o.message}" for o in outcomes]
    for name in ("bench.json", "bench-compile.json"):
        if (folder / name).exists():
            words = [PYTHON, "-m", "painn_fast.cli", "bench", "--table", str(folder / name)]
            lines += ["", subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()]
    return "\n".join(lines) + "\n"


def main(tell: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=Path, help="for logs and results; default: bench/results/<gpu>-<date>"
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu to try this script itself")
    parser.add_argument("--quick", action="store_true", help="few cases, few rounds")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything")
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    if given.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            parser.error("torch finds no CUDA device; --device cpu --quick tries the script itself")
    folder = (given.folder or default_folder(given.device)).resolve()
    if (folder / "bench.json").exists():
        parser.error(f"{folder} holds results; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for stage in stages(given.device, folder, quick=given.quick):
        tell(f"{stage.name} ...")
        outcomes.append(run(stage, folder, end - time.monotonic() - 5))
        tell(f"{stage.name}: {outcomes[-1].state}, {outcomes[-1].seconds:.0f} s; {outcomes[-1].message}")
    text = summary(outcomes, folder)
    (folder / "summary.txt").write_text(text, encoding="utf-8")
    tell(f"\n{text}\neverything is in {folder}")
    return int(any(outcome.state == "failed" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
