"""Make painn-fast run where little is installed: `python bench/gpu_setup.py WORK WHEELS [COMMIT]`.

Of the wheels in a folder, those are unpacked whose packages this Python does not have; nothing that it has is replaced.
The machine and all versions are written to results/environment.json.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIRED = {
    "ase": "ase", "h5py": "h5py", "llvmlite": "llvmlite", "numba": "numba", "numpy": "numpy", "pydantic": "pydantic",
    "rich": "rich", "safetensors": "safetensors", "scipy": "scipy", "tomli_w": "tomli-w", "torch": "torch",
    "typer": "typer", "vesin": "vesin", "triton": "triton",
}  # fmt: skip
"""Distributions by the names of their modules."""
TESTS = {
    "pytest": "pytest",
    "xdist": "pytest-xdist",
    "pytest_benchmark": "pytest-benchmark",
    "hypothesis": "hypothesis",
}
BROUGHT = ("pydantic", "ase", "tomli_w", "vesin")
PEERS = {"schnetpack": "schnetpack", "torch_geometric": "torch-geometric"}


def modules_of(wheel: Path) -> set[str]:
    """What can be imported from it."""
    with zipfile.ZipFile(wheel) as file:
        tops = {name.split("/")[0] for name in file.namelist()}
    return {top.split(".")[0] for top in tops if not top.endswith((".dist-info", ".data", ".libs"))}


def unpack(wheels: Path, site: Path) -> list[str]:
    """Those that add something; their names."""
    unpacked = []
    for wheel in sorted(wheels.glob("*.whl")):
        if not any(importlib.util.find_spec(name) for name in modules_of(wheel)):
            with zipfile.ZipFile(wheel) as file:
                file.extractall(site)
            unpacked.append(wheel.name)
    return unpacked


def link_package(site: Path) -> None:
    """painn_fast as it is installed: with kernels/ inside. Only this folder is searched, by PYTHONPATH."""
    package = site / "painn_fast"
    package.mkdir(parents=True, exist_ok=True)
    for path in [*(ROOT / "painn_fast").iterdir(), ROOT / "kernels"]:
        link = package / path.name
        if not link.exists():
            link.unlink(missing_ok=True)  # of a file that is gone
            link.symlink_to(path)


STACKS = """import faulthandler
import signal

faulthandler.register(signal.SIGUSR1)
"""
"""In all processes of a stage: by this signal they write where they are. Triton's compiler takes an abort for a failure
of its own and goes on."""


def output(*command: str) -> str | None:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=15).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str | None]:
    """Of the distributions that matter; None for those that are missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in [*REQUIRED.values(), *TESTS.values(), *PEERS.values()]:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def main(work: Path, wheels: Path, commit: str | None = None) -> int:
    site = work / "site"
    link_package(site)
    (site / "sitecustomize.py").write_text(STACKS)
    print("unpacked:", ", ".join(unpack(wheels, site)) or "nothing", flush=True)
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    facts = {
        "commit": commit or output("git", "describe", "--always", "--dirty", "--abbrev=40"),
        "platform": platform.platform(),
        "cpus": output("nproc"),
        "gpu": output("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"),
        "clocks": output("nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,clocks.max.sm", "--format=csv,noheader"),
        "versions": versions(),
    }
    (work / "results").mkdir(parents=True, exist_ok=True)
    (work / "results" / "environment.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2), flush=True)
    missing = [name for module, name in (REQUIRED | TESTS).items() if importlib.util.find_spec(module) is None]
    if missing:
        print(f"missing: {', '.join(missing)}; fix: put their wheels into {wheels}")
        return 1
    for module in BROUGHT:
        importlib.import_module(module)  # whose wheels may not fit each other
    print(f"ready: {facts['gpu']}, torch {facts['versions']['torch']}, triton {facts['versions']['triton']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:4]))
