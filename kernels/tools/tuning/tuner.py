"""The fastest launch of each kernel on the GPU that is here, among those that give the right numbers."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from painn_fast.kernels.launch import Launches, file_name, launches

VALUES = {
    "atoms": (2, 4, 8),
    "programs": (1024, 2048, 4096, 8192, 16384),
    "warps": (1, 2, 4),
    "features": (1, 2, 4),
    "rows": (4, 8, 16),
    "elements": (256, 512, 1024, 2048),
    "columns": (64, 128, 256),
}
"""Values to try of each number, one number after another; those that need no compilation come first."""
GAIN = 0.02
"""Least gain of time, relative, that makes another launch better: less is noise."""
TOLERANCE = 1e-3
"""Deviation from the reference in float64, relative to its largest value, that float32 cannot explain."""

Times = dict[str, float]
"""Seconds by size."""
Timer = Callable[[Callable[[], object]], float]
"""Seconds of a call."""


@dataclass(frozen=True)
class Subject:
    """A launch to tune.

    Args:
        name: of its numbers.
        calls: run it on inputs of each size with the numbers in force, and return its results.
        expected: these results, by size.
    """

    name: str
    calls: Mapping[str, Callable[[], Sequence[Tensor]]]
    expected: Mapping[str, Sequence[Tensor]]


@dataclass(frozen=True)
class Outcome:
    """The result of tuning a launch; `before` is None if its numbers, as they were, are not right or do not run."""

    name: str
    numbers: dict[str, int]
    before: Times | None
    after: Times | None
    messages: list[str]


def tune(
    subjects: Sequence[Subject], device: torch.device, timer: Timer, seconds: float, tell: Callable[[str], None],
    keep: Callable[[list[Outcome]], object] = lambda _: None,
) -> list[Outcome]:  # fmt: skip
    """Tune in order as long as there is time; others are left out. All numbers stay as they were.

    `keep` gets the outcomes so far after each of them, for a run that may be stopped at any moment.
    """
    end, outcomes = time.monotonic() + seconds, []
    for subject in subjects:
        if time.monotonic() > end:
            break
        outcomes.append(search(subject, launches(device)[subject.name], timer, lambda: time.monotonic() > end))
        for line in outcomes[-1].messages:
            tell(line)
        keep(outcomes)
    return outcomes


def search(subject: Subject, numbers: dict[str, int], timer: Timer, late: Callable[[], bool]) -> Outcome:
    """Bring one number after another to its best value, the others as they are; `numbers` are what launches read."""
    first, messages = dict(numbers), []

    def measure(trial: dict[str, int]) -> Times | None:
        numbers.update(trial)
        try:
            wrong = complaint(subject)
            times = None if wrong else {size: timer(call) for size, call in subject.calls.items()}
        except Exception as error:  # compilers and drivers refuse in many ways
            wrong, times = f"{type(error).__name__}: {error}".splitlines()[0][:200], None
        if wrong:
            messages.append(f"{subject.name} {trial}: {wrong}")
        return times

    try:
        before = after = measure(first)
        best, tried = first, [first]
        for key in [key for key in VALUES if key in numbers]:
            for value in VALUES[key]:
                trial = best | {key: value}
                if trial in tried or late():
                    continue
                tried.append(trial)
                times = measure(trial)
                if times is not None and (after is None or relative(times, after) < 1 - GAIN):
                    best, after = trial, times
    finally:
        numbers.update(first)
    return Outcome(subject.name, best, before, after, messages)


def relative(times: Times, base: Times) -> float:
    """Geometric mean over sizes of time over base time."""
    return math.exp(statistics.fmean(math.log(times[size] / base[size]) for size in base))


def complaint(subject: Subject) -> str | None:
    """The first error of the results under the numbers in force."""
    for size, call in subject.calls.items():
        for k, (got, right) in enumerate(zip(call(), subject.expected[size], strict=True)):
            error = float((got.double() - right.double()).abs().max() / right.double().abs().max().clamp(min=1e-12))
            if not error <= TOLERANCE:
                return f"result {k} of {size} is off by {error:.1e} of the largest value"
    return None


def time_on_gpu(call: Callable[[], object]) -> float:
    """Median of ten, in a CUDA graph of many calls: what Python needs for a launch does not count."""
    from triton.testing import do_bench_cudagraph

    return float(do_bench_cudagraph(call, rep=4, return_mode="median")) / 1e3


def table(outcomes: Sequence[Outcome]) -> str:
    """Microseconds before and after, and the numbers now."""
    lines = [f"{'kernel':<34}{'size':<14}{'before':>10}{'after':>10}   us a call"]
    for outcome in outcomes:
        for size in outcome.after or outcome.before or ():
            us = [f"{times[size] * 1e6:10.1f}" if times else f"{'-':>10}" for times in (outcome.before, outcome.after)]
            lines.append(f"{outcome.name:<34}{size:<14}{''.join(us)}   {outcome.numbers}")
    return "\n".join(lines)


def write(outcomes: Sequence[Outcome], device: torch.device, folder: Path) -> Path:
    """The file of this GPU, whole or not at all; what was not tuned, or is right with no numbers, keeps its own."""
    gpu = torch.cuda.get_device_name(device)
    measured = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "driver": driver(), "versions": versions()}
    of_kernels: Launches = launches(device) | {o.name: o.numbers for o in outcomes if o.after is not None}
    rows = ",\n".join(f"    {json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in of_kernels.items())
    head = f'  "format": 1,\n  "gpu": {json.dumps(gpu)},\n  "measured": {json.dumps(measured)},\n'
    path = folder / file_name(gpu)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(f'{{\n{head}  "launches": {{\n{rows}\n  }}\n}}\n', encoding="utf-8")
    os.replace(part, path)
    return path


def versions() -> dict[str, str | None]:
    """Versions of the software that compiles and launches."""
    return {"torch": torch.__version__, "triton": metadata.version("triton"), "cuda": torch.version.cuda}


def driver() -> str | None:
    """Version of NVIDIA's driver; None without its tool."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return lines[0] if lines else None
