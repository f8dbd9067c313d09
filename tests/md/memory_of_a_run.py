"""Not a test by itself: memory of a process that runs dynamics, at a third of the steps and at the end.

Usage: python memory_of_a_run.py FOLDER STEPS MODEL, where MODEL is morse or the name of a bundled one.
"""

import os
import sys
from pathlib import Path

import ase.io
import torch
from ase import Atoms
from force_fields import Morse

import painn_fast as pf
from painn_fast.io.find import MODELS
from painn_fast.md import MDSettings, ModelForces, recorder, run
from painn_fast.md.force_field import ForceField


def resident() -> int:
    """Bytes that the process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watched(ForceField):
    """Another force field, and the memory every hundredth of the evaluations."""

    def __init__(self, field: ForceField, evaluations: int) -> None:
        self.field, self.every, self.count, self.seen = field, evaluations // 100, 0, []

    def __call__(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Energy and forces."""
        if self.count % self.every == 0:
            self.seen.append(resident())
        self.count += 1
        return self.field(positions)


def main(folder: Path, steps: int, model: str) -> None:
    """Run and print the memory, in MB."""
    if model == "morse":
        atoms, field = Atoms("OH", positions=[[0, 0, 0], [1.4, 0, 0]]), Morse()
    else:
        atoms = ase.io.read(MODELS / f"{model}.xyz")
        field = ModelForces(pf.load(model), atoms)
    values = {"ensemble": "langevin", "trajectories": 2, "equilibration": "0 fs", "duration": f"{0.5 * steps} fs"}
    every = {"energies_every": "5 fs", "positions_every": "10 fs", "velocities_every": "20 fs", "checkpoint": "0.1 s"}
    watched = Watched(field, steps)
    run(MDSettings.parse({**values, **every, "output": str(folder)}), force_field=watched, atoms=atoms)
    seen = [size / 2**20 for size in watched.seen]
    print(f"MB after a third of the steps and at most later: {seen[33]:.2f} {max(seen[33:]):.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    recorder.SEGMENTS_AT_MOST = 20
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
