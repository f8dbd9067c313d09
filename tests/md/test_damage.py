"""Restart files and trajectories that are damaged, gone, or those of another run: noticed, and named in one line."""

import json
import os
import random
import shutil
import signal

import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from force_fields import Harmonic, Morse
from safetensors.torch import load_file, save_file

from painn_fast.correlation.series import SpectrumStreams
from painn_fast.errors import PaiNNFastError
from painn_fast.io import save_model
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.md import restart as restart_module
from painn_fast.md.recorder import Recorder
from painn_fast.md.restart import read_restart
from painn_fast.nn import PotentialConfig, RepresentationConfig
from painn_fast.runtime import checkpoint
from painn_fast.testing import random_potential

OH = Atoms("OH", positions=[[0, 0, 0], [1.4, 0, 0]])
EVERY = {"positions_every": "1 fs", "velocities_every": "2 fs", "energies_every": "0.5 fs"}


def settings(folder, **changes):
    values = {
        "output": str(folder),
        "ensemble": "pile-l",
        "beads": 2,
        "trajectories": 2,
        "seed": 5,
        "checkpoint": "0 s",
    }
    return MDSettings.parse({**values, "equilibration": "1 fs", "duration": "6 fs", **EVERY, **changes})


def go(folder, atoms=OH, **changes):
    return run(settings(folder, **changes), force_field=Morse(), atoms=atoms, resume=folder.exists())


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run of 3 fs that is to go on to 6 fs."""
    folder = tmp_path_factory.mktemp("half") / "run"
    go(folder, duration="3 fs")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of 6 fs without a stop."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    go(folder)
    return folder


@pytest.fixture
def mine(half, tmp_path):
    """A copy of the run of 3 fs."""
    return shutil.copytree(half, tmp_path / "run")


def assert_same(folder, whole):
    a, b = Trajectory(folder), Trajectory(whole)
    assert np.array_equal(a.positions, b.positions)
    assert np.array_equal(a.velocities, b.velocities)
    assert all(np.array_equal(a.energies[name], values) for name, values in b.energies.items())
    (got,), (expected,) = read_restart(folder).states, read_restart(whole).states
    assert got.step == expected.step
    assert all(torch.equal(got.tensors()[name], value) for name, value in expected.tensors().items())


def flip(path, byte, bit=2):
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)


def test_a_bit_flipped_anywhere_in_a_restart_file_is_noticed_and_the_one_before_taken(mine):
    """Length, names, numbers, padding, hash, tensors: read_restart gives the state before and the reason."""
    path = mine / "restart.safetensors"
    good, rng = path.read_bytes(), random.Random(1)
    before = checkpoint.load(mine / "restart.previous.safetensors")[1]["step"]
    assert read_restart(mine).states[0].step == before + 1
    for byte in (*range(8), *range(8, len(good), 3)):
        path.write_bytes(good)
        flip(path, byte, rng.randrange(8))
        restart = read_restart(mine)
        assert restart.states[0].step == before, f"the flip in byte {byte} was not noticed"
        assert [error.where.name for error in restart.failed] == ["restart.safetensors"]


def test_a_resume_reports_what_was_damaged_and_what_is_lost_and_goes_on_bit_for_bit(mine, whole, capsys):
    flip(mine / "restart.safetensors", -100)
    go(mine)
    output = " ".join(capsys.readouterr().err.split())
    assert "restart.safetensors: a damaged checkpoint, another SHA-256 than written" in output
    assert "going on from restart.previous.safetensors; 1 steps (0.5 fs) after its step 7 are computed again" in output
    assert_same(mine, whole)
    assert (mine / "restart.damaged.safetensors").exists()
    checkpoint.load(mine / "restart.previous.safetensors")  # the damaged one did not become the one before


def test_two_damaged_restart_files_are_one_line_and_nothing_is_touched(mine):
    for name in ("restart.safetensors", "restart.previous.safetensors"):
        flip(mine / name, -100)
    before = {path.name: path.read_bytes() for path in mine.iterdir()}
    with pytest.raises(
        PaiNNFastError, match=r"no checkpoint here can be read.*restart\.safetensors.*restart\.previous"
    ):
        go(mine)
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == before


def test_a_restart_file_without_a_hash_is_refused_in_words(mine):
    path = mine / "restart.safetensors"
    (mine / "restart.previous.safetensors").unlink()
    with_numbers(path, signed=False)
    with pytest.raises(PaiNNFastError, match=r"a checkpoint without a hash; where: .*restart\.safetensors"):
        go(mine)


def with_numbers(path, *, signed=True, **changes):
    """The file anew with other numbers, signed or not."""
    tensors, numbers = checkpoint.load(path)
    if signed:
        checkpoint.save(path, tensors, numbers | changes)
    else:
        save_file(load_file(path), path, metadata={"numbers": json.dumps(numbers | changes)})


@pytest.mark.parametrize("step", [-1, 10**9, 10**15, 1e9, 2.5, True, "7", None])
def test_a_restart_file_of_an_absurd_step_is_refused(mine, step):
    (mine / "restart.previous.safetensors").unlink()
    with_numbers(mine / "restart.safetensors", step=step)
    with pytest.raises(PaiNNFastError, match=r"not a step of a run|a step beyond the end of the run"):
        go(mine)


def test_a_restart_file_of_other_shapes_is_refused(mine):
    path = mine / "restart.safetensors"
    tensors, numbers = checkpoint.load(path)
    checkpoint.save(path, tensors | {"state.0.momenta": tensors["state.0.momenta"][:, :1]}, numbers)
    with pytest.raises(PaiNNFastError, match="not a state of a run"):
        restart_module._read(path)


STRUCTURES = {
    "positions": (lambda atoms: atoms.positions.__setitem__((1, 0), 1.401), r"where: positions, trajectory 0, atom 1"),
    "charge": (lambda atoms: atoms.info.update(charge=1), r"where: charge; got: 1\.0; expected: 0\.0"),
    "spin": (lambda atoms: atoms.info.update(spin=2), r"where: spin; got: 2\.0; expected: 1\.0"),
    "cell": (lambda atoms: atoms.set_cell([9, 9, 9]), r"where: cell; got: 9\.0; expected: 0\.0"),
    "pbc": (lambda atoms: (atoms.set_cell([9, 9, 9]), atoms.set_pbc(True)), r"where: (cell|pbc)"),
    "masses": (lambda atoms: atoms.set_masses([16, 2.014]), r"where: masses"),
    "numbers": (lambda atoms: atoms.set_atomic_numbers([8, 9]), r"where: numbers; got: 9; expected: 1"),
}


@pytest.mark.parametrize("what", STRUCTURES)
def test_a_changed_structure_is_named(mine, what):
    change, message = STRUCTURES[what]
    atoms = OH.copy()
    change(atoms)
    if what not in ("masses", "numbers"):
        atoms.set_masses(OH.get_masses())
    with pytest.raises(PaiNNFastError, match=f"the run began with another structure; {message}.*fix: restore"):
        go(mine, atoms)


def test_a_changed_second_frame_is_named(tmp_path):
    frames = [OH, Atoms("OH", positions=[[0, 0, 0], [1.3, 0, 0]])]
    go(tmp_path / "run", frames, duration="3 fs")
    frames[1].positions[1] += 0.01
    with pytest.raises(PaiNNFastError, match="positions, trajectory 1, atom 1"):
        go(tmp_path / "run", frames)


def test_a_structure_that_differs_by_rounding_is_the_same(mine, whole):
    atoms = OH.copy()
    atoms.positions += 1e-9
    go(mine, atoms)
    assert_same(mine, whole)


MODEL = PotentialConfig(representation=RepresentationConfig(n_features=8, n_layers=1, n_rbf=5), name="small")


def with_representation(model, **changes):
    model.config = model.config.model_copy(
        update={"representation": model.config.representation.model_copy(update=changes)}
    )


MODELS = {
    "weights": lambda model: model.representation.embedding.weight.data.add_(1e-3),
    "epsilon": lambda model: with_representation(model, epsilon=2e-3),
    "cutoff": lambda model: with_representation(model, cutoff=4.5),
    "unit": lambda model: setattr(model, "config", model.config.model_copy(update={"energy_unit": "kcal/mol"})),
}


@pytest.mark.parametrize("what", MODELS)
def test_a_changed_model_is_refused(tmp_path, what):
    path = tmp_path / "model.safetensors"
    potential = random_potential(MODEL, dtype=torch.float32)
    save_model(potential, path)
    values = {"model": str(path), "output": str(tmp_path / "run"), "duration": "2 fs"}
    run(MDSettings.parse(values), atoms=OH)
    MODELS[what](potential)
    save_model(potential, path)
    with pytest.raises(PaiNNFastError, match="the run began with another model"):
        run(MDSettings.parse(values | {"duration": "4 fs"}), atoms=OH, resume=True)


def test_a_model_of_another_name_and_origin_is_the_same(tmp_path):
    path = tmp_path / "model.safetensors"
    potential = random_potential(MODEL, dtype=torch.float32)
    save_model(potential, path)
    values = {"model": str(path), "output": str(tmp_path / "run"), "duration": "2 fs"}
    run(MDSettings.parse(values), atoms=OH)
    potential.config = potential.config.model_copy(update={"name": "other", "provenance": {"data": "added later"}})
    save_model(potential, tmp_path / "moved.safetensors")
    moved = values | {"model": str(tmp_path / "moved.safetensors"), "duration": "4 fs"}
    run(MDSettings.parse(moved), atoms=OH, resume=True)


class Stops(Morse):
    """Morse that stops the run, by a signal, at its 12th evaluation."""

    left = 12

    def __call__(self, positions):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__call__(positions)


def stopped(folder):
    """A run that was stopped, with segments that are not folded yet."""
    with pytest.raises(PaiNNFastError, match="stopped by SIGTERM"):
        run(settings(folder), force_field=Stops(), atoms=OH)
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


def test_a_run_that_is_damaged_all_over_can_be_replaced(mine, whole):
    for path in (*mine.glob("restart*"), mine / "trajectory.h5"):
        path.write_bytes(b"rubbish")
    run(settings(mine), force_field=Morse(), atoms=OH, overwrite=True)
    assert_same(mine, whole)


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
