"""Runs that find no space on the disk."""

import ast
import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from force_fields import Morse

from painn_fast.errors import PaiNNFastError
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.md.restart import read_restart
from painn_fast.runtime import checkpoint
from painn_fast.runtime.hdf5 import new_hdf5

SCRIPT = Path(__file__).with_name("fill_the_disk.py")
OWN_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
OH = Atoms("OH", positions=[[0, 0, 0], [1.4, 0, 0]])


def check(command):
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-3000:]}"
    print(done.stdout)  # shown by -rP
    return set(ast.literal_eval(done.stdout.partition("no space for ")[2]))


@pytest.mark.parametrize("cases", ["limit", pytest.param("limits", marks=pytest.mark.slow)])
def test_a_run_whose_files_find_no_space_stops_in_one_line_and_resumes_bit_for_bit(tmp_path, cases):
    seen = check([sys.executable, str(SCRIPT), str(tmp_path), cases])
    assert {"restart.new.safetensors", "segment", "trajectory.h5"} <= seen


@pytest.mark.parametrize("cases", ["disk", pytest.param("disks", marks=pytest.mark.slow)])
def test_a_run_on_a_full_disk_stops_in_one_line_and_resumes_bit_for_bit(tmp_path, cases):
    mount = f"mount -t tmpfs -o size=3m tmpfs {tmp_path}"
    if (
        shutil.which("unshare") is None
        or subprocess.run([*OWN_DISK, mount], check=False, capture_output=True).returncode
    ):
        pytest.skip("a disk of one's own is not allowed here")
    seen = check([*OWN_DISK, f"{mount} && {sys.executable} {SCRIPT} {tmp_path} {cases}"])
    assert {"settings.toml", "restart.new.safetensors", "segment"} <= seen


def settings(folder):
    every = {"positions_every": "0.5 fs", "energies_every": "0.5 fs", "checkpoint": "0 s"}
    return MDSettings.parse({"output": str(folder), "equilibration": "0.5 fs", "duration": "1.5 fs", **every})


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_at_the_nth_call_leaves_a_run_that_resumes_bit_for_bit(tmp_path, monkeypatch, call):
    run(settings(tmp_path / "whole"), force_field=Morse(), atoms=OH)
    expected = Trajectory(tmp_path / "whole").positions
    real, n, result = getattr(os, call), 0, ""
    while result != "nothing":
        n += 1
        calls = iter(range(1, 1000))

        def full(*arguments):
            if next(calls) == n:  # noqa: B023  not called later
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        folder = tmp_path / str(n)
        monkeypatch.setattr(os, call, full)
        try:
            run(settings(folder), force_field=Morse(), atoms=OH)
            result = "nothing"
        except PaiNNFastError as error:
            result = str(error)
        monkeypatch.undo()
        assert result == "nothing" or result.startswith("no space for a file; where: "), result
        assert not list(folder.rglob("*.tmp"))
        run(settings(folder), force_field=Morse(), atoms=OH, resume=True)
        assert np.array_equal(Trajectory(folder).positions, expected)
        (got,), (end,) = (read_restart(one).states for one in (folder, tmp_path / "whole"))
        assert got.step == end.step
        assert all(torch.equal(got.tensors()[name], value) for name, value in end.tensors().items())
    assert n > 10


@pytest.mark.parametrize("steps", [0, 4])
def test_the_first_frame_is_not_recorded_twice_when_the_first_restart_after_it_was_not_written(
    tmp_path, monkeypatch, steps
):
    def unwritable(path, tensors, numbers):
        if numbers["step"] == steps + 1:
            raise PaiNNFastError("no space for a file")
        save(path, tensors, numbers)

    values = {"output": str(tmp_path), "equilibration": f"{steps * 0.5} fs", "duration": "5 fs", "checkpoint": "0 s"}
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", unwritable)
    with pytest.raises(PaiNNFastError, match="no space"):
        run(MDSettings.parse(values | {"energies_every": "0.5 fs"}), force_field=Morse(), atoms=OH)
    monkeypatch.undo()
    assert Trajectory(tmp_path).times("energies").tolist() == [0.0, 0.5]
    run(MDSettings.parse(values | {"energies_every": "0.5 fs"}), force_field=Morse(), atoms=OH, resume=True)
    assert Trajectory(tmp_path).times("energies").tolist() == [0.5 * k for k in range(11)]


@pytest.mark.parametrize("asked", [True, False])
def test_a_new_hdf5_file_reports_when_asked_or_at_its_end_what_the_disk_refused(tmp_path, asked):
    path = tmp_path / "file.h5"
    path.write_text("old")

    def write():
        with new_hdf5(path) as (file, check):
            check()
            file["a"] = np.arange(1e5)
            if asked:
                check()
                pytest.fail("should have raised")

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(PaiNNFastError, match=f"no space for a file; where: {path}; got: File too large"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
