"""Compile what the verbs need before they need it: small work of each kind, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from painn_fast.errors import PaiNNFastError, one_line

LARGE = 17
"""Ethanol molecules in one structure that threads share."""


def warm() -> Iterator[str]:
    """Compile, in two processes if there are two cores; what the cache has already takes no time.

    Yields:
        What has been compiled, one after another, as the names of `JOBS`.

    Raises:
        PaiNNFastError: if a process fails.
    """
    kinds = list(JOBS)
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for done in as_completed([pool.submit(_process, kind) for kind in kinds]):
            yield done.result()


def _process(kind: str) -> str:
    done = subprocess.run([sys.executable, "-m", "painn_fast.warm", kind], capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise PaiNNFastError("compilation failed", where=kind, got=one_line(last[0]), fix="painn-fast doctor")
    return kind


def _ethanol(copies: int = 1) -> Any:
    from ase import Atoms
    from ase.build import molecule

    atoms = Atoms()
    for k in range(copies):
        one = molecule("CH3CH2OH")
        one.positions[:, 0] += 6.0 * k
        atoms += one
    return atoms


def _energies() -> None:
    from painn_fast.ase import PaiNNCalculator
    from painn_fast.evaluate import evaluate

    evaluate("ethanol", [_ethanol()])
    atoms = _ethanol(4)  # large enough for a list with a skin
    atoms.calc = PaiNNCalculator("ethanol")
    for _ in range(2):
        atoms.get_forces()
        atoms.positions += 0.01


def _large() -> None:
    import torch

    from painn_fast.evaluate import evaluate

    torch.set_num_threads(2)
    evaluate("ethanol", [_ethanol(LARGE)])


def _training(dtype: str = "float32") -> None:
    from painn_fast.graph import batch_atoms
    from painn_fast.io import load

    model = load("ethanol", dtype=dtype)
    batch = batch_atoms([_ethanol(), _ethanol()], model.cutoff)
    model(batch, ("energy", "forces"), create_graph=True)["forces"].square().sum().backward()


def _training_step() -> None:
    import torch

    from painn_fast.graph import batch_atoms
    from painn_fast.nn import EnergyHead, Potential, PotentialConfig, RepresentationConfig
    from painn_fast.train.direct_step import DirectStep
    from painn_fast.train.optimizer import FlatParameters

    representation = RepresentationConfig(n_features=32, n_layers=1)  # its sinc functions have a kernel of their own
    model = Potential(PotentialConfig(representation=representation, heads=(EnergyHead(),)))
    batch = batch_atoms([_ethanol(), _ethanol()], model.cutoff)
    labels = {"energy": torch.zeros(2, dtype=torch.float64), "forces": torch.zeros(18, 3)}
    step = DirectStep(model, FlatParameters(model), {"energy": 1.0, "forces": 1.0}, energy_per_atom=True)
    step(batch, labels, dict.fromkeys(labels, 1))


def _gradients() -> None:
    _training()
    _training_step()


def _gradients_of_forces() -> None:
    """The last pass of a training step alone: the others, whose results it needs, leave nothing."""
    from painn_fast.kernels.network import passes_cpu

    others = {name: getattr(passes_cpu, name) for name in ("forward", "reverse", "tangent")}
    try:
        for name in others:
            setattr(passes_cpu, name, lambda *_: None)
        _training()
    finally:
        for name, function in others.items():
            setattr(passes_cpu, name, function)


def _double() -> None:
    from painn_fast.evaluate import evaluate
    from painn_fast.io import load

    evaluate(load("ethanol", dtype="float64"), [_ethanol()], ["energy", "forces", "hessian"])
    _training("float64")


def _dynamics() -> None:
    from painn_fast.md import MDSettings, run

    with TemporaryDirectory() as folder, redirect_stderr(StringIO()):
        run(MDSettings(model="ethanol", ensemble="t-rpmd", beads=2, duration="1 fs", output=str(Path(folder) / "md")))


JOBS: dict[str, Callable[[], None]] = {
    "gradients for training": _gradients,
    "gradients of forces": _gradients_of_forces,
    "energies and forces": _energies,
    "large molecules": _large,
    "float64": _double,
    "dynamics": _dynamics,
}
"""Kinds of work, the longest first. Two that need the same code wait for each other."""

if __name__ == "__main__":
    for given in sys.argv[1:]:
        JOBS[given]()
