"""Times and memory of sides that give the right numbers."""

from __future__ import annotations

import ctypes
import gc
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

AT_LEAST = 0.1
"""Seconds of one sample: a shorter call is repeated, so that caches are warm whatever ran before."""
MOST_CALLS = 200

Clock = Callable[[], float]


def clock(device: torch.device) -> Clock:
    """Seconds, read after everything queued on the device is done."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def calls_per_sample(seconds: float) -> int:
    """How many calls of this length make a sample."""
    return min(MOST_CALLS, max(1, math.ceil(AT_LEAST / max(seconds, 1e-9))))


def interleaved(
    works: dict[str, Callable[[], Any]], calls: dict[str, int], rounds: int, now: Clock
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds a call, one sample a round of each, and the last results.

    All take turns within a round, so that a machine that slows down slows down all of them, and ratios stay fair.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for name, work in works.items():
            start = now()
            for _ in range(calls[name]):
                results[name] = work()
            times[name].append((now() - start) / calls[name])
    return times, results


def peak_memory(set_up: Callable[[], Callable[[], Any]], device: torch.device) -> int | None:
    """Bytes that setting up a work and calling it take at most, above what was held before; None if unknown.

    CUDA: torch's allocator. CPU: resident memory of the process, after free memory is given back to the system, so that
    kernels outside of torch count; Linux with glibc only.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        set_up()()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not _forget_peak():
        return None
    before = _status("VmRSS")
    set_up()()
    return max(0, _status("VmHWM") - before)


def _forget_peak() -> bool:
    with suppress(OSError, AttributeError, TypeError):  # not Linux
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return True
    return False


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
