"""Not a test by itself: runs dynamics in children, kills them with SIGKILL at random moments, resumes, compares.

Usage: python kill_many_times.py FOLDER CASE KILLS SEED, where CASE is one, mixture or ranks.
"""

import contextlib
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import torch
from ase import Atoms
from force_fields import Morse

from painn_fast.md import MDSettings, Trajectory, recorder, run
from painn_fast.md.estimators import UNITS
from painn_fast.md.restart import read_restart
from painn_fast.runtime import checkpoint
from painn_fast.runtime.folders import molecules_of, trajectory_folders
from painn_fast.settings import load_settings

OH = Atoms("OH", positions=[[0, 0, 0], [1.4, 0, 0]])
WATERY = Atoms("HOH", positions=[[1.4, 0, 0], [0, 0, 0], [0, 1.4, 0]])
CASES = {"one": ([OH], 1), "mixture": ([OH, WATERY], 1), "ranks": ([OH, WATERY], 2)}
"""Molecules, and processes that share the run."""
STEPS_A_KILL = 4
MAX_CHECKPOINTS = 3


def settings(folder: Path, kills: int) -> MDSettings:
    """A run that writes a segment and a restart after every step, so that most moments are in the middle of a file."""
    values = {"ensemble": "pile-l", "beads": 2, "trajectories": 4, "seed": 3, "checkpoint": "0 s"}
    times = {"equilibration": "5 fs", "duration": f"{(kills + 5) * STEPS_A_KILL * 0.5} fs"}
    strides = {"energies_every": "0.5 fs", "positions_every": "1 fs", "velocities_every": "2 fs"}
    return MDSettings.parse({**values, **times, **strides, "output": str(folder)})


def go(folder: Path, case: str, rank: int, kills: int) -> None:
    """Run or go on, as one process of those of a case."""
    molecules, world = CASES[case]
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    run(settings(folder, kills), force_field=Morse(), atoms=molecules, resume=True)


def written(folder: Path) -> set[int]:
    """When the restart files were, in ns; while one is moved out of the way there is none."""
    found = set()
    for part in ("", "rank-0", "rank-1"):
        with contextlib.suppress(FileNotFoundError):
            found.add((folder / part / "restart.safetensors").stat().st_mtime_ns)
    return found


def wait_for_checkpoints(children: list[int], folder: Path, count: int) -> None:
    """Until so many restart files were written, or a child has ended."""
    seen = written(folder)
    enough = len(seen) + count
    while len(seen) < enough:
        if any(os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) for child in children):
            return
        time.sleep(0.0005)
        seen |= written(folder)


def open_everything(folder: Path) -> list[str]:
    """Read every file to its last byte; returns the names of temporary files, which no reader opens."""
    temporary = []
    for path in folder.rglob("*"):
        if path.name.endswith(".tmp"):
            temporary.append(path.name)
        elif path.suffix == ".h5":
            with h5py.File(path) as file:
                datasets = [file[series][column] for series in file for column in file[series]]
                assert all(len(data[()]) == len(data) for data in datasets), path
        elif path.suffix == ".safetensors":
            checkpoint.load(path)
        elif path.name == "settings.toml":
            load_settings(MDSettings, path)
        else:
            assert path.is_dir(), f"what is {path}?"
    return temporary


def columns(trajectory: Trajectory) -> dict[str, np.ndarray]:
    """All that was recorded, [T, ...]."""
    names = {"energies": ("step", "time", *UNITS)}
    every = {series: names.get(series, ("step", "time", "value")) for series in trajectory.names}
    return {f"{series}/{column}": trajectory.read(series, column) for series in every for column in every[series]}


def check_prefix(folder: Path, whole: Path) -> int:
    """What a killed run left is the beginning of the whole one; returns its number of frames."""
    if not trajectory_folders(folder):
        return 0
    got, all_of_it = Trajectory(folder), Trajectory(whole)
    mine = np.isin(all_of_it.numbers, got.numbers)  # a process that has written nothing yet has no trajectories
    expected = columns(all_of_it)
    for name, part in columns(got).items():
        full = expected[name][: len(part)]
        full = full if part.ndim == 1 else full[:, mine]
        assert np.array_equal(part, full), f"{folder}: {name} differs from the uninterrupted run"
    return len(got.times("energies")) if "energies" in got.names else 0


def check_end(folder: Path, whole: Path, parts: list[str]) -> None:
    """All that was recorded is equal, and the restart files."""
    for part in parts:
        got, expected = (columns(Trajectory(one / part)) for one in (folder, whole))
        assert got.keys() == expected.keys()
        for name, values in expected.items():
            assert np.array_equal(got[name], values), f"{name} differs from the uninterrupted run"
    for path in whole.rglob("restart.safetensors"):
        got, expected = (read_restart((one / path.relative_to(whole)).parent) for one in (folder, whole))
        for mine, other in zip(got.states, expected.states, strict=True):
            assert mine.step == other.step
            assert all(torch.equal(value, other.tensors()[name]) for name, value in mine.tensors().items()), path


def main(folder: Path, case: str, wanted: int, seed: int) -> None:
    """Kill until it was enough, then let it get through."""
    rng = np.random.default_rng(seed)
    ranks = range(CASES[case][1])
    began = time.monotonic()
    for rank in ranks:
        go(folder / "whole", case, rank, wanted)
    a_step = (time.monotonic() - began) / settings(folder, wanted).total_steps
    parts = molecules_of(folder / "whole") or [""]
    killed, kills, lengths, torn = folder / "killed", 0, [], Counter()
    while True:
        children = []
        for rank in ranks:
            child = os.fork()
            if child == 0:
                go(killed, case, rank, wanted)
                os._exit(0)
            children.append(child)
        if kills < wanted:
            wait_for_checkpoints(children, killed, int(rng.integers(MAX_CHECKPOINTS + 1)))
            for child in rng.permutation(children):
                time.sleep(rng.uniform(0.0, 1.5 * a_step))
                os.kill(child, signal.SIGKILL)
        status = [os.waitpid(child, 0)[1] for child in children]
        assert all(one == 0 or os.WIFSIGNALED(one) for one in status), "the resumed run failed"
        if not any(status):
            break
        kills += 1
        torn.update(name.split(".")[1] for name in open_everything(killed))
        lengths.append([check_prefix(killed / part, folder / "whole" / part) for part in parts])
    check_end(killed, folder / "whole", parts)
    assert not open_everything(killed), "temporary files of killed runs remain"
    print(f"killed {kills} times, frames each time {lengths}, in the middle of {dict(torn)}; then equal")


if __name__ == "__main__":
    torch.set_num_threads(1)
    recorder.SEGMENTS_AT_MOST = 4  # so that many a moment is in the middle of folding
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
