"""Not a test by itself: runs dynamics, lets the disk be full from some step on, resumes, compares.

Usage: python fill_the_disk.py FOLDER HOW, where HOW is limit or limits (no file may be larger), disk or disks (FOLDER
is a small one).
"""

import itertools
import resource
import shutil
import sys
from collections import Counter
from pathlib import Path

import torch
from ase import Atoms
from force_fields import Morse
from kill_many_times import check_end, check_prefix, open_everything

from painn_fast.errors import PaiNNFastError
from painn_fast.md import MDSettings, recorder, run

OH = Atoms("OH", positions=[[0, 0, 0], [1.4, 0, 0]])
CASES = {
    "limit": [(2000, 3), (60_000, 26), (70_000, 26)],
    "limits": list(itertools.product((2000, 60_000, 70_000), (3, 26))),
    "disk": [(0, 0), (0, 3), (65_536, 26)],
    "disks": list(itertools.product((0, 65_536), (0, 3, 26))),
}
"""Bytes that a file may have, or that are free, and evaluations after which it is so.

A restart has 3,200 bytes, a segment up to 67,300, all in one 72,000 to 81,000."""


class FillsUp(Morse):
    """Morse that does something at its n-th evaluation."""

    def __init__(self, n, fill):
        super().__init__()
        self.left, self.fill = n, fill

    def __call__(self, positions):
        """Energy and forces."""
        self.left -= 1
        if self.left == 0:
            self.fill()
        return super().__call__(positions)


def settings(folder):
    """Everything goes out at every step."""
    values = {"ensemble": "pile-l", "beads": 2, "trajectories": 3, "seed": 3, "checkpoint": "0 s", "duration": "10 fs"}
    every = {"energies_every": "0.5 fs", "positions_every": "1 fs", "velocities_every": "2 fs"}
    return MDSettings.parse({**values, **every, "equilibration": "3 fs", "output": str(folder)})


def limit(room):
    """Files may have `room` bytes; None for any number."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if room is None else room, hard))


def fill(filler, room):
    """Leave `room` bytes of the disk; None frees what was taken."""
    filler.unlink(missing_ok=True)
    if room is None:
        return
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(file.tell() // 4096 * 4096 - room, 0))


def check_line(error):
    """Which file had no space; its error is one line with the way to go on."""
    assert error.what == "no space for a file", error
    assert "\n" not in str(error)
    name = error.where.name
    assert name == "settings.toml" or "--resume" in error.fix, error
    return "segment" if name.startswith("to-") else name


def main(folder, how):
    """Every evaluation by every room."""
    filler, whole, full = folder / "filler", folder / "whole", folder / "full"
    leave = limit if how.startswith("limit") else lambda room: fill(filler, room)
    run(settings(whole), force_field=Morse(), atoms=OH)
    missing = Counter()
    for room, n in CASES[how]:
        field = FillsUp(n, lambda: leave(room))  # noqa: B023  not called later
        try:
            if n == 0:
                leave(room)
            run(settings(full), force_field=field, atoms=OH)
            missing["nothing"] += 1
        except PaiNNFastError as error:
            missing[check_line(error)] += 1
        finally:
            leave(None)
        assert not open_everything(full), "temporary files remain"
        check_prefix(full, whole)
        run(settings(full), force_field=Morse(), atoms=OH, resume=True)
        check_end(full, whole, [""])
        shutil.rmtree(full)
    print(f"no space for {dict(missing)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    recorder.SEGMENTS_AT_MOST = 8
    main(Path(sys.argv[1]), sys.argv[2])
