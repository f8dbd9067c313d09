"""What each precision of the GPU engine costs in forces and in energy drift: `python bench/precision.py --device cuda`.

Errors of forces are against float64. The drift is the slope of the conserved energy in NVE dynamics of the bundled
ethanol model, mean over trajectories with its standard error: the number that decides whether a precision may be used.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from torch import Tensor

from painn_fast.bench.cases import CASES, paper_model
from painn_fast.engine import Engine
from painn_fast.graph import batch_arrays, batch_atoms
from painn_fast.io import load
from painn_fast.io.find import MODELS
from painn_fast.io.structures import read_structures
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.md.force_field import ForceField
from painn_fast.nn import Potential

PRECISIONS = ("ieee", "tf32x3", "tf32", "bf16")
MODEL = "ethanol"
Make = Callable[[Potential, str], Engine]
"""An engine of a model in a precision."""


@dataclass(frozen=True)
class Result:
    """Of one precision; errors in eV/Å by set of molecules, drift in meV/atom/ps."""

    precision: str
    force_max: dict[str, float]
    force_rms: dict[str, float]
    drift: float
    drift_error: float


class EngineForces(ForceField):
    """Copies of a molecule by an engine that was chosen."""

    def __init__(self, engine: Engine, atoms: ase.Atoms) -> None:
        self.engine, self.numbers = engine, atoms.numbers
        self._work: dict[int, Any] = {}

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        if len(positions) not in self._work:
            self._work[len(positions)] = self.engine.workspace(batch_arrays(self.numbers, positions.cpu()))
        results = self.engine(self._work[len(positions)], positions.reshape(-1, 3))
        return results["energy"].double(), results["forces"].double().view_as(positions)


def sets(device: str) -> dict[str, tuple[Potential, list[ase.Atoms]]]:
    """Models and structures whose forces are compared."""
    return {
        "ethanol-64, bundled model": (load(MODEL, device=device), CASES["ethanol-64"].structures()),
        "qm9-50, random weights": (paper_model(device), CASES["qm9-50"].structures()),
    }


def force_error(engine: Engine, potential: Potential, structures: Sequence[ase.Atoms]) -> tuple[float, float]:
    """Largest and root-mean-square error of a component, eV/Å, against the reference in float64."""
    batch = batch_atoms(structures, potential.cutoff).to(potential.device)
    exact = copy.deepcopy(potential).double()
    with torch.no_grad(), exact.reference():
        expected = exact(batch, ("forces",))["forces"]
    error = engine(engine.workspace(batch), batch.positions, ("forces",))["forces"] - expected
    return float(error.abs().max()), float(error.square().mean().sqrt())


def drift(
    engine: Engine, device: str, *, trajectories: int = 32, equilibration: str = "0.2 ps", duration: str = "2 ps"
) -> tuple[float, float]:
    """Mean slope of the conserved energy at 300 K and 0.5 fs, meV/atom/ps, and its standard error."""
    atoms = read_structures(MODELS / f"{MODEL}.xyz")[0]
    with tempfile.TemporaryDirectory() as folder:
        settings = MDSettings.parse(
            {
                "model": MODEL, "output": folder, "ensemble": "nve", "temperature": "300 K", "time_step": "0.5 fs",
                "tau": "50 fs", "energies_every": "2 fs", "trajectories": trajectories, "device": device,
                "equilibration": equilibration, "duration": duration,
            }
        )  # fmt: skip
        run(settings, force_field=EngineForces(engine, atoms), atoms=atoms, overwrite=True)
        record = Trajectory(folder)
        total = record.energies["conserved"] / len(record.system.masses) * 1000  # [T, S]
        slopes = np.polyfit(record.times("energies") / 1000, total, 1)[0]
    return float(slopes.mean()), float(slopes.std() / np.sqrt(len(slopes)))


def measure(make: Make, precisions: Sequence[str], device: str, **dynamics: Any) -> list[Result]:
    """Every precision in turn."""
    known = sets(device)
    results = []
    for precision in precisions:
        errors = {
            name: force_error(make(potential, precision), potential, structures)
            for name, (potential, structures) in known.items()
        }
        slope, uncertain = drift(make(load(MODEL, device=device), precision), device, **dynamics)
        largest, typical = ({name: pair[k] for name, pair in errors.items()} for k in (0, 1))
        results.append(Result(precision, largest, typical, slope, uncertain))
    return results


def table(results: Sequence[Result]) -> str:
    """For people."""
    names = list(results[0].force_max)
    lines = [
        "force errors in eV/Å: largest, rms; drift in meV/atom/ps",
        "precision  " + "  ".join(f"{name:>26}" for name in names) + f"{'drift':>22}",
    ]
    for r in results:
        errors = "  ".join(f"{r.force_max[name]:>16.1e}{r.force_rms[name]:>10.1e}" for name in names)
        lines.append(f"{r.precision:<11}{errors}{r.drift:>14.4f} ± {r.drift_error:.4f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--duration", default="2 ps", help="of the dynamics")
    parser.add_argument("--trajectories", type=int, default=32)
    parser.add_argument("--out", type=Path, help="JSON; the default prints it")
    given = parser.parse_args()
    if torch.device(given.device).type != "cuda" or not torch.cuda.is_available():
        sys.exit("this needs a GPU: precisions of matrix products are those of its tensor cores, and torch finds none")
    from painn_fast.engine.gpu import GpuEngine

    results = measure(
        GpuEngine, given.precisions, given.device, duration=given.duration, trajectories=given.trajectories
    )
    print(table(results))
    report = {
        "gpu": torch.cuda.get_device_name(given.device),
        "torch": torch.__version__,
        "duration": given.duration,
        "trajectories": given.trajectories,
        "results": [asdict(result) for result in results],
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
