"""Two processes make the spectrum of one; streamed correlation functions make that of recorded frames."""

import subprocess
import sys

import numpy as np
import pytest

from painn_fast import md
from painn_fast.correlation.series import SpectrumStreams
from painn_fast.errors import PaiNNFastError
from painn_fast.io.structures import read_structures
from painn_fast.md import Trajectory
from painn_fast.spectra import SpectrumSettings, run

VALUES = {
    "model": "ethanol", "beads": 2, "trajectories": 5, "equilibration": "4 fs", "duration": "90 fs", "depth": "40 fs",
    "time_step": "1 fs", "dipole_every": "2 fs", "polarizability_every": "2 fs", "velocities_every": "2 fs",
}  # fmt: skip
TABLES = ("infrared.csv", "raman.csv", "power.csv")


def columns(folder, table):
    text = [line for line in (folder / table).read_text().splitlines() if not line.startswith("#")]
    return np.genfromtxt(text, delimiter=",", skip_header=1)


def assert_same(one, other):
    for table in TABLES:
        expected = columns(one, table)
        np.testing.assert_allclose(columns(other, table), expected, rtol=2e-6, atol=1e-6 * np.nanmax(np.abs(expected)))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    run(SpectrumSettings.parse({**VALUES, "output": str(folder / "a")}))
    return folder / "a"


@pytest.mark.slow
def test_two_processes_make_the_spectrum_of_one(alone, tmp_path):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in VALUES.items() if name != "model"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "painn_fast.cli"]
    done = subprocess.run(
        [*command, "spectrum", "ethanol", *flags, "--output", "two"],
        check=False, capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(alone, tmp_path / "two")
    assert done.stdout.count("peaks") == 1
    trajectory = Trajectory(tmp_path / "two" / "dynamics")
    assert trajectory.numbers.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(trajectory.dipole, Trajectory(alone / "dynamics").dipole)


def test_streams_of_two_processes_are_those_of_one(alone, tmp_path, monkeypatch):
    def dynamics(output):
        settings = SpectrumSettings.parse({**VALUES, "stream": True, "output": str(output)})
        start = read_structures(alone / "harmonic.xyz")
        return md.run(settings.dynamics(("dipole", "polarizability", "velocities")), atoms=start)

    dynamics(tmp_path / "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        two = dynamics(tmp_path / "two")
    assert Trajectory(two).names == ("energies",)
    one, both = (SpectrumStreams.load(tmp_path / name / "dynamics") for name in ("one", "two"))
    for series in ("dipole", "polarizability", "velocities"):
        for part, expected in one.correlations(series).items():
            got = both.correlations(series)[part]
            np.testing.assert_allclose(got.mean, expected.mean, rtol=1e-10, atol=1e-12 * expected.mean[0])
            np.testing.assert_allclose(got.blocks, expected.blocks, rtol=1e-10, atol=1e-12 * expected.mean[0])


def test_streams_of_a_run_that_was_interrupted_make_the_same_spectrum(alone, tmp_path, monkeypatch):
    settings = SpectrumSettings.parse({**VALUES, "stream": True, "output": str(tmp_path / "s")})
    runs = sys.modules["painn_fast.md.run"]._Run
    with monkeypatch.context() as patch:
        patch.setattr(runs, "_stop", lambda self, interrupt: "a test" if self.step == 40 else "")
        with pytest.raises(PaiNNFastError, match=r"stopped by a test after step 40 of 94; restartable: yes"):
            run(settings)
    run(settings, resume=True)
    assert_same(alone, tmp_path / "s")


def test_processes_with_different_numbers_of_frames_are_refused(tmp_path):
    for rank, frames in ((0, 30), (1, 31)):
        folder = tmp_path / f"rank-{rank}"
        (folder / "segments").mkdir(parents=True)
        (folder / "segments" / "to-000000000001.h5").touch()
        streams = SpectrumStreams({"dipole": 2.0}, 40.0)
        for _ in range(frames):
            streams.push("dipole", np.random.default_rng(rank).normal(size=(2, 3)))
        streams.save(folder)
    with pytest.raises(PaiNNFastError, match=r"different numbers of frames; got: \[29, 30\]"):
        SpectrumStreams.load(tmp_path)
