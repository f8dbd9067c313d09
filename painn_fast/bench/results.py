"""Results as data: what was measured, on which machine, with which versions; read back with every key checked."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import JsonValue, ValidationError, model_validator

import painn_fast
from painn_fast.errors import PaiNNFastError
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.packages import installed
from painn_fast.settings import Settings

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "triton", "numba", "numpy", "ase", "vesin", "schnetpack", "torch_geometric", "pyscf")


class Machine(Settings):
    """Where it ran."""

    cpu: str
    cores: int
    """Those that the process may use."""
    threads: int
    """Of torch."""
    device: str
    gpu: str | None
    platform: str


class Result(Settings):
    """One side in one case and mode. Times in seconds a call, memory in bytes."""

    case: str
    mode: str
    side: str
    structures: int
    atoms: int
    edges: int
    status: Literal["ok", "wrong", "not available"]
    reason: str | None = None
    """Why there is no time."""
    errors: dict[str, float | None] = {}
    """Deviation from the float64 reference of each quantity, relative to its largest magnitude; None: not finite."""
    times: tuple[float, ...] = ()
    """One a round; sample k of every side of a case and mode was taken in the same round."""
    calls: int | None = None
    """In each sample; a time is their mean."""
    median: float | None = None
    iqr: float | None = None
    """Between the quartiles."""
    first_call: float | None = None
    """Setting up and the first call, compilation included."""
    memory: int | None = None
    floor: float | None = None
    """Median of the matrix products alone, in the same rounds."""

    @model_validator(mode="after")
    def _only_right_numbers_have_a_time(self) -> Result:
        if (self.status == "ok") != bool(self.times) or (self.median is None) == bool(self.times):
            raise ValueError(f"status '{self.status}' with {len(self.times)} times and median {self.median}")
        if (self.status == "ok") != (self.reason is None):
            raise ValueError(f"status '{self.status}' with reason {self.reason!r}")
        return self


class Report(Settings):
    """Everything that one run of the benchmark gave."""

    format: Literal[1] = 1
    date: str
    commit: str | None
    """Of the checkout that the package is installed from; "+" for changes on top; None outside of one."""
    machine: Machine
    versions: dict[str, str | None]
    model: dict[str, JsonValue]
    results: tuple[Result, ...] = ()


def new_report(device: torch.device, model: dict[str, Any]) -> Report:
    """A report without results."""
    import torch

    machine = Machine(
        cpu=cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        device=device.type,
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        platform=platform.platform(),
    )
    versions = {"python": platform.python_version(), "painn-fast": painn_fast.__version__, "cuda": torch.version.cuda}
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    packages = {name: installed(name) for name in PACKAGES}
    return Report(date=date, commit=commit(), machine=machine, versions=versions | packages, model=model)


def write_report(report: Report, target: str | Path) -> None:
    """As JSON, whole or not at all."""
    with atomic_write(target) as path:
        path.write_text(json.dumps(report.model_dump(mode="json"), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_report(source: str | Path) -> Report:
    """A file that `write_report` wrote.

    Raises:
        PaiNNFastError: for anything else, naming the key.
    """
    try:
        return Report.parse(json.loads(Path(source).read_text(encoding="utf-8")), where=str(source))
    except OSError as error:
        raise PaiNNFastError("cannot read results", where=source, got=error.strerror) from None
    except (ValueError, ValidationError) as error:
        raise PaiNNFastError("not a file of benchmark results", where=source, got=str(error)) from None


def cpu_name() -> str:
    """As the kernel tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str | None:
    """Of the checkout that this package is installed from."""
    folder = Path(painn_fast.__file__).resolve().parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):  # some other repository, such as one that holds the environment
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
