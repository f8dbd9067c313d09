"""Not a test by itself: runs dynamics in children, kills them with SIGKILL at random moments, resumes, compares.

Usage: python kill_many_times.py FOLDER SEED
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from painn_fast import checkpoint
from painn_fast.errors import PaiNNFastError
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.testing import Morse

DIMER = Atoms("OH", positions=[[0, 0, 0], [1.4, 0, 0]])
SERIES = ("positions", "velocities", "energies")


def settings(folder: Path) -> MDSettings:
    """A run that writes a segment and a restart all the time, so that many a moment is in the middle of a file."""
    values = {
        "ensemble": "pile-l",
        "beads": 2,
        "trajectories": 2,
        "seed": 3,
        "equilibration": "5 fs",
        "duration": "200 fs",
    }
    strides = {"energies_every": "0.5 fs", "positions_every": "1 fs", "velocities_every": "2 fs"}
    return MDSettings.parse({**values, **strides, "checkpoint": "0.03 s", "output": str(folder)})


class SlowMorse(Morse):
    """Morse on a fast machine is over before anyone can kill it."""

    def __call__(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same numbers, 2 ms later."""
        time.sleep(0.002)
        return super().__call__(positions)


def go(folder: Path) -> None:
    """Run or go on: 410 steps, about a second."""
    run(settings(folder), force_field=SlowMorse(), atoms=DIMER, resume=True)


def written(path: Path) -> int:
    """When, in ns; 0 while there is none, as when the one before is moved out of the way."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def wait_for_a_checkpoint(child: int, folder: Path) -> None:
    """Until this child has written a restart file, or has ended."""
    path = folder / "restart.safetensors"
    before = written(path)
    while written(path) in (0, before):
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.001)


def check_prefix(folder: Path, whole: Trajectory) -> int:
    """What a killed run left opens and is the beginning of the whole one; returns its length."""
    try:
        got = Trajectory(folder)
    except PaiNNFastError:
        left = [*folder.glob("*.h5"), *folder.glob("segments/to-*.h5")]
        assert not left, f"files that do not open: {left}"
        return 0
    for name in got.names:
        column = "conserved" if name == "energies" else "value"
        part, full = got.read(name, column), whole.read(name, column)
        assert np.array_equal(part, full[: len(part)]), f"{name} differs from the uninterrupted run"
    return len(got.times("energies")) if "energies" in got.names else 0


def main(folder: Path, seed: int) -> None:
    """Kill until it gets through."""
    rng = np.random.default_rng(seed)
    go(folder / "whole")
    whole = Trajectory(folder / "whole")
    kills, lengths, status = 0, [], 1
    while status != 0:
        child = os.fork()
        if child == 0:
            go(folder / "killed")
            os._exit(0)
        if kills < 8:
            if kills % 2:  # every other time soon after a checkpoint, else anywhere: starting, resuming, writing
                wait_for_a_checkpoint(child, folder / "killed")
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if status != 0:
            assert os.WIFSIGNALED(status), "the resumed run failed"
            kills += 1
            lengths.append(check_prefix(folder / "killed", whole))
    killed = Trajectory(folder / "killed")
    for name in SERIES:
        for column in ("step", "time", *(["value"] if name != "energies" else ["conserved", "temperature"])):
            assert np.array_equal(killed.read(name, column), whole.read(name, column)), f"{name}/{column}"
    ends = [checkpoint.load(folder / name / "restart.safetensors")[0] for name in ("whole", "killed")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    print(f"killed {kills} times, frames each time {lengths}, then equal to the uninterrupted run")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))
