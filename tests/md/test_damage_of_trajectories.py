"""Trajectories and correlations that are damaged, gone, or those of another run: noticed, and named in one line."""

import random
import shutil

import h5py
import numpy as np
import pytest
import torch
from force_fields import Harmonic, StopsAfter
from resumable_runs import OH, flip, go, settings

from painn_fast.correlation.series import SpectrumStreams
from painn_fast.errors import PaiNNFastError
from painn_fast.md import Trajectory, run
from painn_fast.md.recorder import Recorder


def stopped(folder):
    """A run that was stopped, with segments that are not folded yet."""
    with pytest.raises(PaiNNFastError, match="stopped by SIGTERM"):
        run(settings(folder), force_field=StopsAfter(12), atoms=OH)
    return folder


def test_a_trajectory_that_is_gone_is_noticed(mine):
    (mine / "trajectory.h5").unlink()
    before = sorted(path.name for path in mine.iterdir())
    with pytest.raises(PaiNNFastError, match=r"the trajectory is gone; where: .*positions; got: 0 frames up to step 8"):
        go(mine)
    assert sorted(path.name for path in mine.iterdir()) == before


def test_a_folder_named_as_a_trajectory_is_reported(mine):
    (mine / "trajectory.h5").unlink()
    (mine / "trajectory.h5").mkdir()
    with pytest.raises(PaiNNFastError, match=r"not a readable trajectory; where: .*a folder"):
        go(mine)


def test_segments_that_are_gone_are_noticed(tmp_path):
    folder = stopped(tmp_path / "run")
    segments = sorted((folder / "segments").glob("*.h5"))
    assert len(segments) > 3
    segments[len(segments) // 2].unlink()
    with pytest.raises(PaiNNFastError, match="the trajectory lacks frames"):
        go(folder)


@pytest.mark.parametrize("duration", ["1 fs", "2.5 fs"])
def test_a_shorter_trajectory_of_the_same_run_is_noticed(mine, tmp_path, duration):
    go(tmp_path / "short", duration=duration)
    shutil.copy(tmp_path / "short" / "trajectory.h5", mine / "trajectory.h5")
    with pytest.raises(PaiNNFastError, match=r"the trajectory lacks frames; where: .*; got: \d+ frames up to step 8"):
        go(mine)


@pytest.mark.parametrize("changes", [{"seed": 6}, {"temperature": "301 K"}, {"tau": "99 fs"}, {"start": "free"}])
def test_the_trajectory_of_another_run_is_noticed(mine, tmp_path, changes):
    go(tmp_path / "other", **changes)
    shutil.copy(tmp_path / "other" / "trajectory.h5", mine / "trajectory.h5")
    with pytest.raises(PaiNNFastError, match=r"the trajectory is of another run; where: .*trajectory\.h5"):
        go(mine)


def test_a_trajectory_cut_off_at_its_end_is_noticed(mine):
    path = mine / "trajectory.h5"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(PaiNNFastError, match=r"not a readable trajectory|a damaged file"):
        go(mine)


def contents(path):
    """All that a reader gets out of a trajectory."""
    got = Trajectory(path)
    header = {name: np.asarray(value).tolist() for name, value in got.header.items()}
    return (
        header,
        got.names,
        [got.read(name, "step") for name in got.names],
        got.positions,
        got.velocities,
        got.energies,
    )


def test_a_bit_flipped_anywhere_in_a_trajectory_is_noticed_or_changes_nothing(whole, tmp_path):
    path = tmp_path / "trajectory.h5"
    good, expected, rng = (whole / "trajectory.h5").read_bytes(), contents(whole / "trajectory.h5"), random.Random(2)
    noticed = 0
    for byte in sorted(rng.sample(range(len(good)), 100)):
        path.write_bytes(good)
        flip(path, byte, rng.randrange(8))
        try:
            got = contents(path)
        except PaiNNFastError:
            noticed += 1
            continue
        np.testing.assert_equal(got, expected, f"the flip in byte {byte} was not noticed")
    assert noticed > 15  # much of the file is room for frames to come


@pytest.mark.parametrize("name", ["positions/value", "positions/step", "energies/time", "energies/potential"])
def test_damaged_data_name_file_data_set_and_what_to_do(whole, tmp_path, name):
    path = shutil.copy(whole / "trajectory.h5", tmp_path / "trajectory.h5")
    with h5py.File(path) as file:
        assert file[name].fletcher32
        chunk = file[name].id.get_chunk_info(0)
    flip(path, chunk.byte_offset + 3)
    trajectory = Trajectory(path)
    series, column = name.split("/")
    with pytest.raises(
        PaiNNFastError, match=rf"a damaged file; where: {path}, data set '{name}'; got: .*; fix: restore"
    ):
        trajectory.read(series, column)
    other = "velocities" if series != "velocities" else "positions"
    assert len(trajectory.read(other))  # the rest is readable


@pytest.mark.parametrize("name", ["masses", "temperature", "seed", "positions_every", "settings", "numbers"])
def test_a_changed_attribute_is_noticed_at_opening(whole, tmp_path, name):
    path = shutil.copy(whole / "trajectory.h5", tmp_path / "trajectory.h5")
    with h5py.File(path, "r+") as file:
        old = file.attrs[name]
        file.attrs[name] = old + " " if isinstance(old, str) else np.asarray(old) + 1
    with pytest.raises(PaiNNFastError, match=rf"a damaged file; where: {path}, the header; got: another SHA-256"):
        Trajectory(path)


def test_a_changed_unit_is_noticed_at_opening(whole, tmp_path):
    path = shutil.copy(whole / "trajectory.h5", tmp_path / "trajectory.h5")
    with h5py.File(path, "r+") as file:
        file["positions/value"].attrs["unit"] = "Bohr"
    with pytest.raises(PaiNNFastError, match=r"a damaged file.*the header"):
        Trajectory(path)


def test_damage_is_noticed_before_a_resume_folds_it(tmp_path):
    folder = stopped(tmp_path / "run")
    segment = sorted((folder / "segments").glob("*.h5"))[1]
    with h5py.File(segment) as file:
        chunk = file["energies/potential"].id.get_chunk_info(0)
    flip(segment, chunk.byte_offset + 1)
    with pytest.raises(PaiNNFastError, match=rf"a damaged file; where: {segment}, data set 'energies/potential'"):
        go(folder)
    assert segment.exists()


def test_trajectories_of_version_1_are_read(whole, tmp_path):
    """Without checksums and hashes, as earlier versions wrote them."""
    old = tmp_path / "trajectory.h5"
    with h5py.File(whole / "trajectory.h5") as new, h5py.File(old, "w") as file:
        file.attrs.update({name: new.attrs[name] for name in new.attrs if name not in ("header_sha256", "run_sha256")})
        file.attrs["version"] = 1
        for series, group in new.items():
            for column, entry in group.items():
                file.create_dataset(f"{series}/{column}", data=entry[()], chunks=True)
    np.testing.assert_equal(contents(old)[2:], contents(whole)[2:])


def test_segments_have_checksums_too(tmp_path):
    recorder = Recorder(tmp_path, {"numbers": np.array([1])}, {"dipole/value": "e Ang"})
    recorder.add("dipole", 0, 0.0, {"value": np.zeros((2, 3))})
    recorder.flush(0)
    with h5py.File(next((tmp_path / "segments").glob("*.h5"))) as file:
        assert all(file[f"dipole/{column}"].fletcher32 for column in file["dipole"])


def test_a_bit_flipped_in_any_byte_of_the_correlations_is_noticed(tmp_path):
    streams = SpectrumStreams({"dipole": 1.0}, 2.0)
    for k in range(6):
        streams.push("dipole", np.full((1, 3), float(k)))
    streams.save(tmp_path)
    path, rng = tmp_path / "correlations.npz", random.Random(3)
    good = path.read_bytes()
    for byte in range(0, len(good), 7):
        path.write_bytes(good)
        flip(path, byte, rng.randrange(8))
        with pytest.raises(PaiNNFastError, match="not a file of correlations"):
            SpectrumStreams.load(tmp_path)


def test_frame_counts_after_a_stop_and_a_resume_are_those_of_the_lengths(tmp_path):
    """Counted by hand: 2 steps of equilibration, 3 fs to the stop, then 6 and 6.5 fs, first and last frame included."""
    folder = tmp_path / "run"
    field = Harmonic(torch.tensor(OH.get_masses()), 0.05, torch.tensor(OH.positions))
    for duration, frames in (("3 fs", (4, 2, 7, 3)), ("6 fs", (7, 4, 13, 5)), ("6.5 fs", (7, 4, 14, 5))):
        chosen = settings(folder, duration=duration, dipole_every="1.5 fs")
        run(chosen, force_field=field, atoms=OH, resume=True)
        trajectory = Trajectory(folder)
        lengths = {"positions": 1.0, "velocities": 2.0, "energies": 0.5, "dipole": 1.5}
        for (name, every), count in zip(lengths.items(), frames, strict=True):
            assert trajectory.read(name, "step").tolist() == [2 + round(2 * every) * k for k in range(count)], name
            assert trajectory.times(name).tolist() == [every * k for k in range(count)], name
        assert trajectory.positions.shape == (frames[0], 2, 2, 2, 3)
        assert trajectory.velocities.shape == (frames[1], 2, 2, 2, 3)
        assert trajectory.energies["potential"].shape == (frames[2], 2)
        assert trajectory.dipole.shape == (frames[3], 2, 3)
