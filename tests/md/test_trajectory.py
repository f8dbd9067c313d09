"""Reading what runs wrote."""

import json

import h5py
import numpy as np
import pytest
from ase import Atoms
from force_fields import Morse

from painn_fast.errors import PaiNNFastError
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.md.recorder import Recorder, trajectory_files
from painn_fast.runtime.hdf5 import read_dataset

HEADER = {
    "numbers": np.array([8, 1]),
    "masses": np.array([15.999, 1.008]),
    "cell": np.zeros((3, 3)),
    "pbc": np.zeros(3, dtype=bool),
    "beads": 1,
    "trajectories": 2,
    "temperature": 300.0,
    "dipole_every": 2.0,
}


@pytest.fixture
def recorder(tmp_path):
    return Recorder(tmp_path, HEADER, {"dipole/value": "e Ang"})


def record(recorder, steps):
    for step in steps:
        recorder.add("dipole", step, 2.0 * step, {"value": np.full((2, 3), float(step))})


def test_a_run_can_be_read_while_it_goes_on(tmp_path):
    seen = []

    class Watched(Morse):
        def __call__(self, positions):
            if len(seen) < 30:
                try:
                    seen.append(len(Trajectory(tmp_path).times("energies")))
                except PaiNNFastError as error:
                    seen.append(str(error).split(";")[0])
            return super().__call__(positions)

    values = {"output": str(tmp_path), "duration": "20 fs", "energies_every": "0.5 fs", "checkpoint": "0 s"}
    run(MDSettings.parse(values), force_field=Watched(), atoms=Atoms("OH", positions=[[0, 0, 0], [1.4, 0, 0]]))
    assert seen[0] == "no trajectory here"
    lengths = [length for length in seen if isinstance(length, int)]
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 20


def test_segments_and_folded_file_read_as_one(tmp_path, recorder):
    for first in (0, 3, 6):
        record(recorder, range(first, first + 3))
        recorder.flush(first + 2)
        if first == 3:
            recorder.fold(5)
    assert [path.name for path in trajectory_files(tmp_path)] == ["trajectory.h5", "to-000000000008.h5"]
    for path in (tmp_path, tmp_path / "trajectory.h5"):
        np.testing.assert_array_equal(Trajectory(path).dipole[:, 0, 0], np.arange(9.0))
        np.testing.assert_array_equal(Trajectory(path).times("dipole"), 2.0 * np.arange(9))


def test_folding_that_was_cut_short_counts_no_frame_twice(tmp_path, recorder, monkeypatch):
    record(recorder, range(4))
    recorder.flush(3)
    monkeypatch.setattr("painn_fast.md.recorder.remove_segments", lambda folder: None)
    recorder.fold(3)
    assert (tmp_path / "segments").exists()
    assert len(Trajectory(tmp_path).dipole) == 4


def test_folding_drops_what_lies_beyond_its_step(tmp_path, recorder):
    record(recorder, range(10))
    recorder.flush(9)
    recorder.fold(9)
    recorder.fold(4)
    np.testing.assert_array_equal(Trajectory(tmp_path).dipole[:, 0, 0], np.arange(5.0))
    recorder.fold(7)  # asks for more than there is: nothing to do
    assert len(Trajectory(tmp_path).dipole) == 5


def test_units_times_and_what_is_needed_to_understand_them_stand_in_the_file(tmp_path, recorder):
    record(recorder, range(3))
    recorder.flush(2)
    recorder.fold(2)
    with h5py.File(tmp_path / "trajectory.h5") as file:
        assert file["dipole/value"].attrs["unit"] == "e Ang"
        assert file["dipole/time"].attrs["unit"] == "fs"
        assert file["dipole/time"].dtype == np.float64
        assert file.attrs["temperature"] == 300.0
        assert json.loads(file.attrs["frozen"]) == []


def test_what_was_not_recorded_is_named(tmp_path, recorder):
    record(recorder, range(3))
    recorder.flush(2)
    with pytest.raises(PaiNNFastError, match=r"did not record positions.*expected: dipole; fix: set positions_every"):
        _ = Trajectory(tmp_path).positions


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", None])
def test_unreadable_files_end_in_one_clear_line(tmp_path, recorder, content):
    record(recorder, range(300))
    recorder.flush(299)
    recorder.fold(299)
    path = tmp_path / "trajectory.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(PaiNNFastError, match="not a readable trajectory") as caught:
        _ = Trajectory(path).dipole
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_hdf5_files_and_missing_ones_are_refused(tmp_path):
    with pytest.raises(PaiNNFastError, match="no trajectory here"):
        Trajectory(tmp_path)
    with pytest.raises(PaiNNFastError, match="no trajectory here"):
        Trajectory(tmp_path / "nowhere.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1.0
    with pytest.raises(PaiNNFastError, match="not a painn-fast trajectory"):
        Trajectory(tmp_path / "other.h5")


def test_columns_have_the_same_frames_though_more_are_written_between_two_reads(tmp_path, monkeypatch):
    recorded = iter(range(3, 9))

    def go_on(*arguments):
        """Each data set that is read is followed by a new segment."""
        values = read_dataset(*arguments)
        if (step := next(recorded, None)) is not None:
            run_for(step)
        return values

    def run_for(steps):
        values = {"output": str(tmp_path), "duration": f"{steps} fs", "time_step": "1 fs", "energies_every": "1 fs"}
        atoms = Atoms("OH", positions=[[0, 0, 0], [1.4, 0, 0]])
        run(MDSettings.parse(values | {"positions_every": "1 fs"}), force_field=Morse(), atoms=atoms, resume=True)

    run_for(2)
    trajectory = Trajectory(tmp_path)
    monkeypatch.setattr("painn_fast.md.trajectory.read_dataset", go_on)
    frames = trajectory.atoms()
    assert [frame.info["time_fs"] for frame in frames] == list(range(len(frames)))
    assert len({len(column) for column in trajectory.energies.values()}) == 1
