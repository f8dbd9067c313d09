"""Checks of an installation, each with a state (ok, warn or fail), its result and a remedy."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import timeit
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ase
import numpy as np
import torch

import painn_fast
from painn_fast.engine.check import largest_pull
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.graph import batch_atoms
from painn_fast.io.find import MODELS, bundled
from painn_fast.io.load import load
from painn_fast.io.structures import read_structures
from painn_fast.nn import Potential
from painn_fast.runtime.packages import installed
from painn_fast.vibrations.derivatives import displaced
from painn_fast.vibrations.harmonic import ROUGH, roughness

SLOPE_TOLERANCE = 1e-5
"""Between forces and central differences of the energy in float64, relative to the largest derivative by an edge: a
force is a sum of these, and may be as small as one likes."""
ENGINE_TOLERANCE = 1e-4
"""Between forces of the engine in float32 and of the reference in float64, relative to the same."""
RATTLE = 0.05
"""Å that atoms are moved by: at a minimum all forces are near zero, which hides errors."""
STEP = 5e-5
"""Å, of the central differences."""
SMOOTHER = "a model trained with a larger representation.epsilon is smoother"
REINSTALL = "run `pip install --force-reinstall --no-deps .` in a clone of painn-fast, or `pip install -e .`"


@dataclass(frozen=True)
class Check:
    """The outcome of one check."""

    name: str
    state: Literal["ok", "warn", "fail"]
    result: str
    fix: str | None = None


def examine() -> Iterator[Check]:
    """Run all checks, one after another; a check that raises is a fail."""
    for check in (_install, _dependencies, _threads, _cpu, _gpu, _pictures, _folders, _cache, _models):
        try:
            yield from check()
        except Exception as error:  # a damaged installation may raise anything, which is a result
            text = str(error) if isinstance(error, PaiNNFastError) else f"{type(error).__name__}: {error}"
            yield Check(check.__name__.strip("_"), "fail", " ".join(text.split()), REINSTALL)


def _judged(name: str, right: bool, good: str, bad: str, fix: str, state: Literal["warn", "fail"] = "warn") -> Check:
    return Check(name, "ok", good) if right else Check(name, state, bad, fix)


def _install() -> Iterator[Check]:
    kernels = importlib.import_module("painn_fast.kernels")
    version = f"painn-fast {painn_fast.__version__} in {Path(painn_fast.__file__).parent}"
    by_pip = installed("painn-fast")
    good = f"{version}, kernels in {Path(str(kernels.__file__)).parent}, Python {platform.python_version()}"
    bad = f"{version}, {'not installed' if by_pip is None else f'but pip installed {by_pip}'}"
    yield _judged("install", by_pip == painn_fast.__version__, good, bad, REINSTALL, "fail")


def _dependencies() -> Iterator[Check]:
    lines = importlib.metadata.requires("painn-fast") or []
    wanted = [re.split(r"[^\w.-]", line)[0] for line in lines if "extra ==" not in line]
    found = {name: installed(name) for name in wanted}
    missing = [name for name, version in found.items() if version is None]
    good = ", ".join(f"{name} {version}" for name, version in found.items())
    bad, fix = f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}"
    yield _judged("dependencies", not missing, good, bad, fix, "fail")


def _threads() -> Iterator[Check]:
    used = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    good = f"torch uses {used} of {cores} cores"
    bad, fix = f"{good}: they will wait for each other", f"export OMP_NUM_THREADS={cores}"
    yield _judged("threads", used <= cores, good, bad, fix)


def _cpu() -> Iterator[Check]:
    level = torch.backends.cpu.get_cpu_capability()
    result = f"{platform.machine()}, torch runs its {level} code"
    right = level != "DEFAULT" or platform.machine() not in ("x86_64", "AMD64")
    yield _judged("CPU", right, result, result, "without AVX2 everything works, slowly")


def _gpu() -> Iterator[Check]:
    if not torch.cuda.is_available():
        yield Check("GPU", "ok", "none that torch can use; everything runs on the CPU")
        return
    names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    yield Check("GPU", "ok", f"{', '.join(names)}, CUDA {torch.version.cuda}")


def _pictures() -> Iterator[Check]:
    version, fix = installed("matplotlib"), "pip install matplotlib"
    bad = "no matplotlib: spectra come as CSV only"
    yield _judged("pictures", version is not None, f"matplotlib {version}", bad, fix)


def _folders() -> Iterator[Check]:
    here = Path.cwd()
    good = f"results go to {here} by default; bundled models in {MODELS}"
    fix = "change to another folder, or name one for the results"
    yield _judged("folders", os.access(here, os.W_OK), good, f"cannot write to {here}", fix)


def _cache() -> Iterator[Check]:
    """Compiled CPU kernels: numba keeps them beside the kernels, or in the home folder."""
    from painn_fast.kernels.message.pairs_cpu import message_fwd

    folder, bad = message_fwd.stats.cache_path, "none: kernels are compiled anew in every process"
    good, fix = f"compiled kernels in {folder}", "export NUMBA_CACHE_DIR=FOLDER"
    yield _judged("cache", folder is not None, good, bad, fix)


def _models() -> Iterator[Check]:
    names = bundled()
    if not names:
        yield Check("models", "fail", f"none in {MODELS}", REINSTALL)
    for name in names:
        yield check_model(name)


def check_model(name: str) -> Check:
    """Check a bundled model: forces against central differences, engine against reference; roughness and time."""
    atoms = read_structures(MODELS / f"{name}.xyz")[0]
    atoms.rattle(RATTLE, seed=0)
    double, single = load(name, dtype=torch.float64), load(name, dtype=torch.float32)
    forces = evaluate(double, [atoms], ["forces"], backend="reference")["forces"][0]
    slope = float(np.abs(forces - _central_differences(double, atoms)).max())
    engine = float(np.abs(forces - evaluate(single, [atoms], ["forces"])["forces"][0]).max())
    seconds = min(timeit.repeat(lambda: evaluate(single, [atoms]), number=1, repeat=10))
    result = (
        f"weights match their SHA-256; forces differ from central differences by {slope:.0e} eV/Å in float64, and "
        f"from those of the float32 engine by {engine:.0e} eV/Å; energy and forces of {len(atoms)} atoms take "
        f"{1e3 * seconds:.1f} ms"
    )
    pull = largest_pull(double, batch_atoms([atoms], double.cutoff))
    right = slope < SLOPE_TOLERANCE * pull
    if right and engine < ENGINE_TOLERANCE * pull:
        rough = roughness(single, atoms)
        result += f"; roughness of the surface at the minimum {rough} (limit {ROUGH:g})"
        if rough.smooth:
            return Check(f"model {name}", "ok", result)
        return Check(f"model {name}", "warn", result, "harmonic lines have at least this error; " + SMOOTHER)
    fix = "report this; until it is fixed use backend='reference'" if right else "report this"
    return Check(f"model {name}", "fail", result, fix)


def _central_differences(model: Potential, atoms: ase.Atoms) -> np.ndarray:
    """Forces [n, 3] eV/Å from energies alone."""
    moved = displaced(atoms, STEP)
    energy = np.reshape(evaluate(model, moved, ["energy"], backend="reference")["energy"], (*atoms.positions.shape, 2))
    return (energy[..., 1] - energy[..., 0]) / (2 * STEP)
