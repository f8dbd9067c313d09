"""The stages of `gpu.py`: what is run on a GPU, in the order of its value."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
PYTHON = sys.executable
PRECISIONS = ("ieee", "tf32x3", "tf32", "bf16")
WORKERS = min(12, os.cpu_count() or 1)
"""Of pytest: compilation takes most of the time, and each has its own memory on the GPU."""
COMPILING = ("test_static_report.py", "test_triton_compiles.py", "test_jit_path.py")
"""Tests of kernels that need no GPU."""
KERNELS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "tests" / "kernels").glob("test_*.py")
    if "triton" in path.read_text(encoding="utf-8") and path.name not in COMPILING
)
"""Those of kernels for GPUs: those for CPUs would be compiled too."""
ENGINES = (
    "tests/engine/test_gpu_engine.py",
    "tests/engine/test_gpu_engine_threads.py",
    "tests/md/test_whole_step.py",
    "tests/test_conformance.py",
)
HOT = ("layer_fwd_kernel", "layer_bwd_kernel")
"""Kernels of the engine that take most of the time."""
BENCHMARKS = ("-v", "-p", "no:cacheprovider", "-W", "default::pytest_benchmark.logger.PytestBenchmarkWarning")
"""Of pytest; the warning that nothing was measured, as an error, would hide the reason."""
TOOLKITS = ("/usr/local/cuda*/bin", "/usr/local/cuda*/compute-sanitizer", "/opt/nvidia/nsight-compute/*")


@dataclass(frozen=True)
class Stage:
    """Processes that run side by side.

    Args:
        name: of its logs.
        seconds: at most.
        commands: one a process.
        missing: why there are none.
        least: seconds that must be left for it to begin.
        always: in every call.
        pytest: having no test is no failure.
        environment: variables of its own.
        reads: patterns of result files of other stages, whose paths are added to the commands; skipped without any.
    """

    name: str
    seconds: float
    commands: Sequence[Sequence[str]]
    missing: str = ""
    least: float = 10.0
    always: bool = False
    pytest: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    reads: Sequence[str] = ()


def stages(device: str, work: Path, wheels: Path, commit: str | None = None) -> list[Stage]:
    """All of them."""
    results = work / "results"
    no_gpu = "needs a GPU" if device == "cpu" else ""
    checks = [PYTHON, str(BENCH / "gpu_checks.py"), "--device", device, "--out", str(results)]
    bench = [PYTHON, "-m", "painn_fast.cli", "bench", "--device", device]
    quick = device == "cpu"
    setup = [PYTHON, str(BENCH / "gpu_setup.py"), str(work), str(wheels), *([commit] if commit else [])]
    tuned = [PYTHON, "-m", "painn_fast.kernels.tools.tuning", "--seconds", "60", "--out", str(results / "tuned")]
    precision = [PYTHON, "bench/precision.py", "--device", device, "--out", str(results / "precision.json")]
    roofline = [PYTHON, "bench/roofline.py", "--device", device, *(["--quick"] if quick else [])]
    compiled = [*bench, "ethanol-1", "ethanol-64", "qm9-50", "--modes", "energy_forces", "--rounds", "7"]
    compiled += ["--sides", "fused,reference,compile", "--out", str(unused(results, "bench-compile"))]
    return [
        Stage("setup", 40, [setup], always=True, least=0),
        Stage("first", 50, [[*checks, "first"]]),
        agreement(checks, quick),
        Stage("targets", 60, [[*checks, "targets"]], least=20),
        suite("tests-engine", 75, device, results, *ENGINES),
        suite("tests-kernels", 110, device, results, *KERNELS),
        sanitizers(checks, no_gpu),
        counters(checks, no_gpu),
        Stage("bench", 100, [[*bench, *_cases(quick), "--out", str(unused(results, "bench"))]], least=30),
        dynamics(device, results),
        Stage("linked", 60, [[*checks, "linked"]], no_gpu, least=30),
        Stage("tuner", 75, [tuned], missing=no_gpu, least=30),
        Stage("precision", 60, [precision], missing=no_gpu, least=30),
        Stage("roofline", 25, [roofline], reads=written("bench")),
        operations(device, results),
        Stage("bench-compile", 90, [compiled], missing=no_gpu, least=45),
        Stage("consan", 60, [[*checks, "once"]], no_gpu, environment={"TRITON_INSTRUMENTATION_MODE": "consan"}),
    ]


def agreement(checks: Sequence[str], quick: bool) -> Stage:
    """A process for each precision, and each division of launches: compilation takes most of the time.

    Beside them one compiles what `targets` is to measure.
    """
    sizes = ("few",) if quick else ("few", "many")
    words = [[*checks, "agreement", "--precision", name, "--atoms", atoms] for name in PRECISIONS for atoms in sizes]
    return Stage("agreement", 75, words if quick else [*words, [*checks, "compile"]], least=20)


def written(name: str) -> tuple[str, str]:
    """Patterns of the files that `unused` names."""
    return f"{name}.json", f"{name}-[0-9].json"


def unused(folder: Path, name: str) -> Path:
    """A result file of its own for each call: one that was cut short has results too."""
    count = len([path for pattern in written(name) for path in folder.glob(pattern)])
    return folder / (f"{name}-{count + 1}.json" if count else f"{name}.json")


def _cases(quick: bool) -> list[str]:
    """Energies and forces of those that are published, and steps of training, beside SchNetPack and the reference."""
    if quick:
        return ["ethanol-1", "--sides", "fused,reference", "--rounds", "2", "--modes", "energy_forces"]
    names = ["qm9-50", "ethanol-64", "ethanol-1024", "ethanol-1", "ethanol-10", "aspirin-32", "water-216", "qm9-100"]
    return [*names, "--sides", "fused,reference,schnetpack", "--rounds", "9"]


def suite(name: str, seconds: float, device: str, results: Path, *paths: str) -> Stage:
    """Tests side by side, each result in a journal; another call leaves out those that passed."""
    words = [PYTHON, "-m", "pytest", "-q", "-n", str(WORKERS), "--dist", "worksteal", "-p", "no:cacheprovider"]
    words += ["-p", "gpu_journal", "--tb", "short", "--device", device, "-m", "not slow", *paths]
    words += ["-k", "random"] if device == "cpu" else []
    variables = {"PAINN_FAST_JOURNAL": str(results / f"{name}.jsonl")}
    variables["PYTHONPATH"] = f"{results.parent / 'site'}:{BENCH}"  # of the plugin
    return Stage(name, seconds, [words], least=30, pytest=True, environment=variables)


def dynamics(device: str, results: Path) -> Stage:
    words = [PYTHON, "-m", "pytest", *BENCHMARKS, "bench/test_dynamics.py", "--device", device]
    words += ["--benchmark-columns=median,iqr", "--benchmark-json", str(results / "dynamics.json")]
    words += ["-k", "1-engine" if device == "cpu" else "engine or painn"]
    return Stage("dynamics", 45, [words], pytest=True)


def operations(device: str, results: Path) -> Stage:
    words = [PYTHON, "-m", "pytest", *BENCHMARKS, "bench/test_operations.py", "--device", device]
    words += ["--benchmark-columns=median,iqr", "--benchmark-json", str(results / "operations.json")]
    words += ["-k", "forward and not double and norm"] if device == "cpu" else []
    return Stage("operations", 60, [words], pytest=True)


def sanitizers(checks: Sequence[str], no_gpu: str) -> Stage:
    """One evaluation by plain launches each; every tensor is an allocation of its own, whose bounds are checked."""
    found = tool("compute-sanitizer")
    missing = no_gpu or ("" if found else "compute-sanitizer is not installed")
    words = [
        [str(found), "--tool", name, "--error-exitcode", "9", "--print-limit", "20", *checks, "once"]
        for name in ("memcheck", "racecheck", "initcheck", "synccheck")
    ]
    return Stage("sanitizers", 75, words, missing, environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})


def counters(checks: Sequence[str], no_gpu: str) -> Stage:
    """Hardware counters of the kernels that take most of the time."""
    found = tool("ncu")
    missing = no_gpu or ("" if found else "ncu is not installed")
    words = [str(found), "--clock-control", "none", "--set", "full", "--kernel-name", f"regex:{'|'.join(HOT)}"]
    return Stage("counters", 60, [[*words, "--launch-count", "12", *checks, "once", "--case", "qm9-50"]], missing)


def tool(name: str) -> Path | None:
    """On the path, in a CUDA toolkit, or in a wheel of NVIDIA."""
    if on_path := shutil.which(name):
        return Path(on_path)
    patterns = [*TOOLKITS, str(Path(sysconfig.get_path("purelib")) / "nvidia" / "**" / "bin")]
    found = [path for pattern in patterns for path in Path("/").glob(f"{pattern.lstrip('/')}/{name}")]
    return next((path for path in found if path.is_file()), None)
