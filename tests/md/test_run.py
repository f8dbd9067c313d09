"""Whole runs: restart, resume, interruption, refusal to overwrite."""

import os
import re
import signal
import threading

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read
from force_fields import Free, Harmonic, Morse, StopsAfter

from painn_fast.errors import PaiNNFastError
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.md import recorder as recorder_module
from painn_fast.runtime import checkpoint
from painn_fast.settings import load_settings

DIMER = Atoms("OH", positions=[[0, 0, 0], [1.4, 0, 0]])
EVERY = {name: f"{name}_every" for name in ("positions", "velocities", "energies")}


def settings(folder, **changes):
    values = {
        "output": str(folder),
        "ensemble": "t-rpmd",
        "beads": 4,
        "trajectories": 3,
        "equilibration": "5 fs",
        "duration": "20 fs",
        "seed": 7,
        **dict.fromkeys(EVERY.values(), "1 fs"),
    }
    return MDSettings.parse({**values, **changes})


def restart_of(folder):
    return checkpoint.load(folder / "restart.safetensors")[0]


def assert_same_run(one, other):
    a, b = Trajectory(one), Trajectory(other)
    assert a.names == b.names
    for name in a.names:
        assert np.array_equal(a.times(name), b.times(name))
    assert np.array_equal(a.positions, b.positions)
    assert np.array_equal(a.velocities, b.velocities)
    for name, values in a.energies.items():
        assert np.array_equal(values, b.energies[name]), name
    tensors = restart_of(one), restart_of(other)
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


@pytest.mark.parametrize("ensemble", ["rpmd", "t-rpmd", "pile-l", "pile-g", "nve", "langevin"])
def test_n_steps_restart_and_n_steps_equal_2n_steps_bit_for_bit(tmp_path, ensemble):
    beads = {"beads": 1} if ensemble in ("nve", "langevin") else {}
    whole, half = tmp_path / "whole", tmp_path / "half"
    run(settings(whole, ensemble=ensemble, **beads), force_field=Morse(), atoms=DIMER)
    run(settings(half, ensemble=ensemble, duration="7.5 fs", **beads), force_field=Morse(), atoms=DIMER)
    run(settings(half, ensemble=ensemble, **beads), force_field=Morse(), atoms=DIMER, resume=True)
    assert_same_run(whole, half)


@pytest.mark.parametrize("evaluation", [2, 10, 11, 12, 27])  # in the equilibration, at its end, in the run
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_says_how_to_go_on_and_goes_on_bit_for_bit(tmp_path, evaluation, number):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    handler = signal.getsignal(number)
    run(settings(whole), force_field=Morse(), atoms=DIMER)
    with pytest.raises(PaiNNFastError, match=f"stopped by {number.name} after step .* fix: go on with .*--resume"):
        run(settings(stopped), force_field=StopsAfter(evaluation, number), atoms=DIMER)
    assert signal.getsignal(number) is handler
    run(settings(stopped), force_field=Morse(), atoms=DIMER, resume=True)
    assert_same_run(whole, stopped)


def test_a_signal_in_the_last_step_lets_the_run_finish(tmp_path):
    path = run(settings(tmp_path / "stopped"), force_field=StopsAfter(51), atoms=DIMER)  # one at the start, 50 steps
    assert path.exists()
    run(settings(tmp_path / "whole"), force_field=Morse(), atoms=DIMER)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    class Impatient(Morse):
        def __call__(self, positions):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            return super().__call__(positions)

    with pytest.raises(KeyboardInterrupt):
        run(settings(tmp_path), force_field=Impatient(), atoms=DIMER)


def test_runs_in_a_thread_where_signals_cannot_be_caught(tmp_path):
    thread = threading.Thread(target=run, args=(settings(tmp_path),), kwargs={"force_field": Morse(), "atoms": DIMER})
    thread.start(), thread.join()
    assert len(Trajectory(tmp_path).times()) == 21


def test_a_trajectory_longer_than_the_restart_is_cut_to_it(tmp_path):
    whole, behind = tmp_path / "whole", tmp_path / "behind"
    for folder in (whole, behind):
        run(settings(folder, duration="10 fs"), force_field=Morse(), atoms=DIMER)
    early = (behind / "restart.safetensors").read_bytes()
    run(settings(whole), force_field=Morse(), atoms=DIMER, resume=True)
    run(settings(behind), force_field=Morse(), atoms=DIMER, resume=True)
    for path in behind.glob("restart*"):
        path.unlink()
    (behind / "restart.safetensors").write_bytes(early)  # now the trajectory is 10 fs ahead of it
    run(settings(behind), force_field=Morse(), atoms=DIMER, resume=True)
    assert_same_run(whole, behind)


def test_a_damaged_restart_falls_back_on_the_one_before(tmp_path):
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    for folder in (whole, damaged):
        run(settings(folder, duration="10 fs"), force_field=Morse(), atoms=DIMER)
    newest = damaged / "restart.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    for folder in (whole, damaged):
        run(settings(folder), force_field=Morse(), atoms=DIMER, resume=True)
    assert_same_run(whole, damaged)


def test_when_no_restart_can_be_read_nothing_is_touched(tmp_path):
    run(settings(tmp_path), force_field=Morse(), atoms=DIMER)
    for path in tmp_path.glob("restart*"):
        path.write_bytes(b"rubbish")
    before = (tmp_path / "trajectory.h5").read_bytes()
    with pytest.raises(PaiNNFastError, match="not a readable checkpoint"):
        run(settings(tmp_path), force_field=Morse(), atoms=DIMER, resume=True)
    for path in tmp_path.glob("restart*"):
        path.unlink()
    with pytest.raises(PaiNNFastError, match="a trajectory without a restart file"):
        run(settings(tmp_path), force_field=Morse(), atoms=DIMER, resume=True)
    assert (tmp_path / "trajectory.h5").read_bytes() == before


def test_many_segments_are_folded_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "SEGMENTS_AT_MOST", 5)
    monkeypatch.setattr(recorder_module, "BUFFER_AT_MOST", 1)  # everything goes out at once
    monkeypatch.setattr(recorder_module, "BLOCK", 1)  # a row
    many, one = tmp_path / "many", tmp_path / "one"
    run(settings(many), force_field=Morse(), atoms=DIMER)
    monkeypatch.undo()
    run(settings(one), force_field=Morse(), atoms=DIMER)
    assert_same_run(many, one)
    assert not (many / "segments").exists()


def test_a_run_is_never_overwritten_by_mistake(tmp_path):
    run(settings(tmp_path), force_field=Morse(), atoms=DIMER)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(PaiNNFastError, match=r"holds a run already.*overwrite"):
        run(settings(tmp_path, seed=8), force_field=Morse(), atoms=DIMER)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "notes.txt").write_text("mine")
    run(settings(tmp_path, seed=8), force_field=Morse(), atoms=DIMER, overwrite=True)
    assert (tmp_path / "trajectory.h5").read_bytes() != before["trajectory.h5"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_resume_without_a_run_starts_one(tmp_path):
    run(settings(tmp_path / "a"), force_field=Morse(), atoms=DIMER, resume=True)
    run(settings(tmp_path / "b"), force_field=Morse(), atoms=DIMER)
    assert_same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_step": "0.25 fs"}, "must keep its settings; where: time_step"),
        ({"seed": 1}, "where: seed"),
        ({"beads": 2}, "where: beads"),
        ({"positions_every": "2 fs"}, "where: positions_every"),
    ],
)
def test_a_resumed_run_keeps_its_settings(tmp_path, change, message):
    run(settings(tmp_path), force_field=Morse(), atoms=DIMER)
    with pytest.raises(PaiNNFastError, match=message):
        run(settings(tmp_path, duration="40 fs", **change), force_field=Morse(), atoms=DIMER, resume=True)


def test_a_resumed_run_keeps_its_structure(tmp_path):
    run(settings(tmp_path), force_field=Morse(), atoms=DIMER)
    other = Atoms("OF", positions=DIMER.positions)
    with pytest.raises(PaiNNFastError, match="another structure; where: numbers"):
        run(settings(tmp_path), force_field=Morse(), atoms=other, resume=True)


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    path = run(settings(tmp_path), force_field=Morse(), atoms=DIMER)
    before = path.read_bytes()
    assert run(settings(tmp_path), force_field=Morse(), atoms=DIMER, resume=True) == path
    assert path.read_bytes() == before


def test_trajectories_start_from_several_structures_in_turn(tmp_path):
    frames = [Atoms("OH", positions=[[0, 0, 0], [length, 0, 0]]) for length in (1.3, 1.4)]
    run(settings(tmp_path, equilibration="0 fs", beads=1), force_field=Free(), atoms=frames)
    first = Trajectory(tmp_path).positions[0, :, 0]
    np.testing.assert_allclose(np.linalg.norm(first[:, 1] - first[:, 0], axis=1), [1.3, 1.4, 1.3])


def test_the_centre_of_mass_rests_in_the_run_whatever_the_equilibration_did(tmp_path):
    run(settings(tmp_path, remove_rotation=True), force_field=Morse(), atoms=DIMER)
    trajectory = Trajectory(tmp_path)
    momentum = (trajectory.velocities.mean(2) * trajectory.system.masses.numpy()[:, None]).sum(2)
    assert np.abs(momentum).max() < 1e-12
    centroid = trajectory.positions.mean(2)
    spin = np.cross(centroid, trajectory.velocities.mean(2) * trajectory.system.masses.numpy()[:, None])[0].sum(1)
    assert np.abs(spin).max() < 1e-12


def test_the_equilibration_may_have_a_thermostat_of_its_own(tmp_path):
    """Frames begin where a run under the strong one ends its equilibration, and go on under the weak one."""
    frames = {}
    for name, times in {
        "strong": {"tau": "5 fs"},
        "weak": {"tau": "1 ps"},
        "both": {"tau": "1 ps", "equilibration_tau": "5 fs"},
    }.items():
        changes = {"ensemble": "langevin", "beads": 1, "duration": "20 fs", "output": str(tmp_path / name)}
        frames[name] = Trajectory(
            run(settings(tmp_path, **(changes | times)), force_field=Morse(), atoms=DIMER)
        ).positions
    assert np.array_equal(frames["both"][0], frames["strong"][0])
    assert not np.array_equal(frames["both"][0], frames["weak"][0])
    assert np.abs(frames["both"][-1] - frames["strong"][-1]).max() > 1e-3


def test_settings_and_versions_stand_beside_the_results(tmp_path):
    path = run(settings(tmp_path), force_field=Morse(), atoms=DIMER)
    text = (tmp_path / "settings.toml").read_text()
    assert 'time_step = "0.5 fs"' in text
    assert "torch = " in text
    assert "model_sha256" in text
    keep = text.split("[resolved]")[0]
    (tmp_path / "again.toml").write_text(keep)
    assert load_settings(MDSettings, tmp_path / "again.toml") == settings(tmp_path)
    assert path == tmp_path / "trajectory.h5"


def test_a_resume_to_less_than_is_done_is_an_error(tmp_path):
    run(settings(tmp_path), force_field=Morse(), atoms=DIMER)
    done, before = settings(tmp_path).duration, (tmp_path / "trajectory.h5").read_bytes()
    message = rf"already longer than the duration; where: .*; got: {done / 2:g} fs; expected: at least {done:g} fs"
    with pytest.raises(PaiNNFastError, match=message):
        run(settings(tmp_path, duration=f"{done / 2} fs"), force_field=Morse(), atoms=DIMER, resume=True)
    assert (tmp_path / "trajectory.h5").read_bytes() == before
    run(settings(tmp_path), force_field=Morse(), atoms=DIMER, resume=True)  # nothing left to do
    assert (tmp_path / "trajectory.h5").read_bytes() == before


def test_progress_shows_time_temperature_speed_and_time_left(tmp_path, capsys):
    run(settings(tmp_path, duration="400 fs"), force_field=Morse(), atoms=DIMER)
    output = capsys.readouterr().err
    assert re.search(r"of 0\.005 ps \| T \d+ K", output)
    assert re.search(
        r"production 0\.400 of 0\.400 ps \| T \d+ K \| drift [+-][\d.]+ meV/atom/ps \| [\d.e+]+ ns/day x 3", output
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_step": "0.5"}, "'time_step': missing unit of time"),
        ({"time_step": "0.5 K"}, "'time_step': unknown unit of time"),
        ({"time_step": "-1 fs"}, "time_step must be positive"),
        ({"temperature": "0 K"}, "temperature must be positive"),
        ({"ensemble": "nve"}, "nve is classical; for 4 beads choose rpmd, t-rpmd, pile-l or pile-g"),
        ({"ensemble": "npt"}, "'ensemble'"),
        ({"beads": 0}, "'beads'"),
        ({"dipole_every": "0.7 fs"}, "dipole_every is not a multiple of time_step: 0.7 fs of 0.5 fs"),
        ({"dipole_every": "0.1 fs"}, "dipole_every is not a multiple of time_step"),
        ({"time_stepp": "1 fs"}, "unknown key 'time_stepp', did you mean 'time_step'"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, change, message):
    with pytest.raises(PaiNNFastError) as caught:
        settings(tmp_path, **change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_without_a_model_or_structure_says_so(tmp_path):
    with pytest.raises(PaiNNFastError, match="no structure to start from"):
        run(settings(tmp_path / "a"), force_field=Morse())
    with pytest.raises(PaiNNFastError, match="no model"):
        run(settings(tmp_path / "b"), atoms=DIMER)
    with pytest.raises(PaiNNFastError, match="no such structure file"):
        run(settings(tmp_path / "c", structure="nowhere.xyz"), force_field=Morse())


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "a structure without atoms"),
        (Atoms("OH", positions=[[0, 0, 0], [np.nan, 0, 0]]), "positions are not finite; where: atom 1"),
        ([], "no frames"),
    ],
)
def test_broken_structures_are_refused(tmp_path, atoms, message):
    with pytest.raises(PaiNNFastError, match=message):
        run(settings(tmp_path), force_field=Morse(), atoms=atoms)
    assert not (tmp_path / "trajectory.h5").exists()


def test_dipole_and_polarizability_are_the_means_over_beads_of_each_trajectory(tmp_path):
    masses = torch.tensor([15.999, 1.008], dtype=torch.float64)
    field = Harmonic(masses, 0.05, torch.tensor(DIMER.positions))
    run(
        settings(tmp_path, dipole_every="1 fs", polarizability_every="2 fs", ensemble="rpmd"),
        force_field=field,
        atoms=DIMER,
    )
    trajectory = Trajectory(tmp_path)
    positions = trajectory.positions
    np.testing.assert_allclose(trajectory.dipole, positions.sum(3).mean(2), atol=1e-12)
    alpha = np.einsum("tspnx,tspny->tsxy", positions, positions) / 4
    np.testing.assert_allclose(trajectory.polarizability, alpha[::2], atol=1e-12)
    assert trajectory.interval("polarizability") == 2.0
    np.testing.assert_array_equal(trajectory.times("polarizability"), np.arange(0, 21, 2.0))


def test_extxyz_holds_the_centroids_or_a_bead(tmp_path):
    run(settings(tmp_path), force_field=Morse(), atoms=DIMER)
    trajectory = Trajectory(tmp_path)
    trajectory.write_extxyz(tmp_path / "out.xyz", trajectory=1)
    frames = read(tmp_path / "out.xyz", index=":")
    assert [frame.info["time_fs"] for frame in frames] == list(np.arange(21.0))
    np.testing.assert_allclose(frames[5].positions, trajectory.positions[5, 1].mean(0), atol=1e-8)
    np.testing.assert_allclose(trajectory.atoms(1, bead=2)[5].positions, trajectory.positions[5, 1, 2])
