"""Many trajectories at once: of several molecules, under several conditions, by several processes."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from force_fields import Morse

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.md.forces import ModelForces

OH = Atoms("OH", positions=[[0, 0, 0], [1.4, 0, 0]])
WATERY = Atoms("HOH", positions=[[1.4, 0, 0], [0, 0, 0], [0, 1.4, 0]])
EVERY = {f"{name}_every": "1 fs" for name in ("positions", "velocities", "energies")}


def settings(folder, **changes):
    values = {"output": str(folder), "ensemble": "pile-g", "beads": 4, "trajectories": 5, "seed": 7}
    return MDSettings.parse({**values, "equilibration": "4 fs", "duration": "10 fs", **EVERY, **changes})


def assert_equal(one, s, other, r):
    """Trajectory s of one run is trajectory r of another, bit for bit."""
    assert np.array_equal(one.positions[:, s], other.positions[:, r])
    assert np.array_equal(one.velocities[:, s], other.velocities[:, r])
    for name, values in one.energies.items():
        assert np.array_equal(values[:, s], other.energies[name][:, r]), name


def test_molecules_of_a_mixture_move_as_they_do_alone(tmp_path):
    run(settings(tmp_path / "mixed"), force_field=Morse(), atoms=[OH, WATERY])
    one, other = Trajectory(tmp_path / "mixed" / "0-HO"), Trajectory(tmp_path / "mixed" / "1-H2O")
    assert one.numbers.tolist() == [0, 2, 4]
    assert other.numbers.tolist() == [1, 3]
    for trajectory, atoms, name in ((one, OH, "oh"), (other, WATERY, "watery")):
        run(settings(tmp_path / name), force_field=Morse(), atoms=atoms)
        alone = Trajectory(tmp_path / name)
        for s, number in enumerate(trajectory.numbers):
            assert_equal(trajectory, s, alone, number)
    with pytest.raises(PaiNNFastError, match=r"several molecules.*0-HO, 1-H2O.*read one of them"):
        Trajectory(tmp_path / "mixed")


def test_a_mixture_resumes_bit_for_bit(tmp_path):
    whole, half = tmp_path / "whole", tmp_path / "half"
    run(settings(whole), force_field=Morse(), atoms=[OH, WATERY])
    run(settings(half, duration="6 fs"), force_field=Morse(), atoms=[OH, WATERY])
    run(settings(half), force_field=Morse(), atoms=[OH, WATERY], resume=True)
    for name in ("0-HO", "1-H2O"):
        for s in range(2):
            assert_equal(Trajectory(whole / name), s, Trajectory(half / name), s)
    with pytest.raises(PaiNNFastError, match="other molecules"):
        run(settings(half, duration="20 fs"), force_field=Morse(), atoms=[OH], resume=True)


class Failing(Morse):
    """Not a number on one copy of the second molecule, from its fourth evaluation on."""

    def __init__(self, copy):
        super().__init__()
        self.copy, self.count = copy, 0

    def __call__(self, positions):
        energy, forces = super().__call__(positions)
        self.count += positions.shape[1] == 3
        if self.count > 3 and positions.shape[1] == 3:
            forces[self.copy] = float("nan")
        return energy, forces


def test_a_trajectory_of_a_mixture_that_goes_wrong_is_named_by_its_number(tmp_path):
    run(settings(tmp_path), force_field=Failing(4), atoms=[OH, WATERY])
    assert Trajectory(tmp_path / "0-HO").alive.all()
    other = Trajectory(tmp_path / "1-H2O")
    assert other.alive.tolist() == [True, False]
    assert other.frozen[0]["trajectory"] == 3
    assert (tmp_path / "frozen-3.xyz").exists()


def test_more_molecules_than_trajectories_are_refused(tmp_path):
    with pytest.raises(PaiNNFastError, match="more molecules than trajectories; got: 1 for 2 molecules"):
        run(settings(tmp_path, trajectories=1), force_field=Morse(), atoms=[OH, WATERY])


@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_a_model_evaluates_a_mixture_in_one_batch_with_the_results_of_each_alone(backend):
    model = pf.load("ethanol")
    molecules = [molecule("CH3CH2OH"), molecule("H2O"), molecule("CH3OH")]
    places = [
        torch.from_numpy(np.stack([atoms.positions * scale for scale in np.linspace(0.98, 1.02, 3 + k)]))
        for k, atoms in enumerate(molecules)
    ]
    field = ModelForces(model, molecules, backend=backend)
    calls = []
    if backend == "fused":
        engine = field._parts[0][1].engine
        field._parts[0][1].engine = Counting(engine, calls)
    together = field.together(places, ("dipole",))
    assert len(calls) == (1 if backend == "fused" else 0)
    for atoms, place, (energy, forces, observed) in zip(molecules, places, together, strict=True):
        alone = ModelForces(model, atoms, backend=backend).evaluate(place, ("dipole",))
        assert torch.equal(energy, alone[0])
        assert torch.equal(forces, alone[1])
        torch.testing.assert_close(observed["dipole"], alone[2]["dipole"], rtol=1e-5, atol=1e-6)


class Counting:
    """An engine that counts calls."""

    def __init__(self, engine, calls):
        self.engine, self.calls, self.workspace = engine, calls, engine.workspace

    def __call__(self, *args, **options):
        self.calls.append(args)
        return self.engine(*args, **options)


def test_a_trajectory_of_a_model_is_the_same_alone_and_among_others_whatever_the_number_of_threads(tmp_path):
    threads = torch.get_num_threads()
    same = {"model": "ethanol", "ensemble": "t-rpmd", "beads": 3, "dipole_every": "1 fs"}
    run(settings(tmp_path / "many", trajectories=11, **same))
    try:
        torch.set_num_threads(1)
        run(settings(tmp_path / "one", trajectories=1, **same))
    finally:
        torch.set_num_threads(threads)
    many, one = Trajectory(tmp_path / "many"), Trajectory(tmp_path / "one")
    assert_equal(many, 0, one, 0)
    np.testing.assert_allclose(many.dipole[:, 0], one.dipole[:, 0], rtol=1e-4, atol=1e-6)


def test_each_trajectory_may_have_its_temperature_time_step_and_seed(tmp_path):
    kelvin, steps, seeds = ["200 K", "300 K", "400 K"], ["0.5 fs", "0.25 fs", "0.5 fs"], [4, 5, 2**40]
    each = {"trajectories": 3, "temperature": kelvin, "time_step": steps, "seed": seeds}
    run(settings(tmp_path / "each", **each), force_field=Morse(), atoms=OH)
    got = Trajectory(tmp_path / "each")
    assert got.temperatures.tolist() == [200.0, 300.0, 400.0]
    for s in range(3):
        scale = float(steps[s].split()[0]) / 0.5
        every = dict.fromkeys(EVERY, f"{scale} fs")
        times = {"equilibration": f"{4 * scale} fs", "duration": f"{10 * scale} fs"}
        same = {"trajectories": 3, "temperature": kelvin[s], "time_step": steps[s], "seed": seeds[s], **times, **every}
        run(settings(tmp_path / str(s), **same), force_field=Morse(), atoms=OH)
        alone = Trajectory(tmp_path / str(s))
        assert_equal(got, s, alone, s)
        np.testing.assert_allclose(got.times("positions", s), alone.times("positions"), rtol=1e-12)
    with pytest.raises(PaiNNFastError, match="trajectories of different temperature"):
        got.temperature  # noqa: B018
    with pytest.raises(PaiNNFastError, match="trajectories of different time_step"):
        got.interval("positions")


def test_values_of_a_command_line_are_separated_by_commas_and_counted():
    assert MDSettings.parse({"trajectories": 2, "temperature": "300 K, 310 K"}).temperature == (300.0, 310.0)
    assert MDSettings.parse({"temperature": "300 K"}).temperature == 300.0
    with pytest.raises(PaiNNFastError, match="temperature has 2 values for 3 trajectories: give one, or one each"):
        MDSettings.parse({"trajectories": 3, "temperature": ["300 K", "310 K"]})
    with pytest.raises(PaiNNFastError, match="seed has 2 values"):
        MDSettings.parse({"seed": [1, 2]})


class Slow(Morse):
    """Something that can be stopped."""

    def __call__(self, positions):
        time.sleep(0.05)
        return super().__call__(positions)


@pytest.mark.parametrize("how", ["EXIT", "max_time"])
def test_a_file_or_a_time_limit_ends_a_run_that_goes_on_bit_for_bit(tmp_path, how):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(settings(whole, trajectories=2), force_field=Morse(), atoms=OH)

    class Asking(Slow):
        count = 0

        def __call__(self, positions):
            self.count += 1
            if self.count == 3 and how == "EXIT":
                (stopped / "EXIT").touch()
            return super().__call__(positions)

    limit = {"max_time": "0.25 s"} if how == "max_time" else {}
    with pytest.raises(PaiNNFastError, match=rf"stopped by .*{how}.* of 28; restartable: yes.*--resume"):
        run(settings(stopped, trajectories=2, **limit), force_field=Asking(), atoms=OH)
    run(settings(stopped, trajectories=2), force_field=Morse(), atoms=OH, resume=True)
    assert not (stopped / "EXIT").exists()
    for s in range(2):
        assert_equal(Trajectory(whole), s, Trajectory(stopped), s)


def test_processes_share_the_trajectories_of_a_run(tmp_path, monkeypatch):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    run(settings(alone), force_field=Morse(), atoms=OH)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert run(settings(shared), force_field=Morse(), atoms=OH) == shared
    one, other = Trajectory(alone), Trajectory(shared)
    assert other.numbers.tolist() == [0, 1, 2, 3, 4]
    assert Trajectory(shared / "rank-1").numbers.tolist() == [2, 3, 4]
    assert other.trajectories == 5
    assert other.temperature == 300.0
    for s in range(5):
        assert_equal(one, s, other, s)
    np.testing.assert_array_equal(one.times(), other.times())
    for rank, changes in (("0", {}), ("1", {"trajectories": 1})):
        monkeypatch.setenv("RANK", rank)
        message = "holds a run already" if rank == "0" else "fewer trajectories than processes"
        with pytest.raises(PaiNNFastError, match=message):
            run(settings(shared, **changes), force_field=Morse(), atoms=OH)


def test_a_run_by_another_number_of_processes_is_in_the_way(tmp_path, monkeypatch):
    run(settings(tmp_path), force_field=Morse(), atoms=OH)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for resume in (False, True):
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(PaiNNFastError, match="a run by another number of processes"):
            run(settings(tmp_path), force_field=Morse(), atoms=OH, resume=resume)
    (tmp_path / "EXIT").touch()
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        run(settings(tmp_path), force_field=Morse(), atoms=OH, overwrite=True)
    assert Trajectory(tmp_path).numbers.tolist() == [0, 1, 2, 3, 4]
    assert not (tmp_path / "trajectory.h5").exists()
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    with pytest.raises(PaiNNFastError, match=r"a run by another number of processes; where: .*rank-0"):
        run(settings(tmp_path), force_field=Morse(), atoms=OH)


def test_processes_share_a_mixture_and_what_guards_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        run(settings(tmp_path, trajectories=8), force_field=Failing(0), atoms=[OH, WATERY])
    one, other = Trajectory(tmp_path / "0-HO"), Trajectory(tmp_path / "1-H2O")
    assert one.numbers.tolist() == [0, 2, 4, 6]
    assert one.alive.all()
    assert other.numbers.tolist() == [1, 3, 5, 7]
    assert other.alive.tolist() == [False, True, False, True]
    with pytest.raises(PaiNNFastError, match="0-HO, 1-H2O"):
        Trajectory(tmp_path)


@pytest.mark.parametrize("ensemble", ["langevin", "pile-l"])
def test_thermostats_do_not_begin_motion_that_is_removed(tmp_path, ensemble):
    values = {
        "ensemble": ensemble,
        "beads": 4 if ensemble == "pile-l" else 1,
        "remove_com_motion": ["translation", "rotation"],
    }
    run(settings(tmp_path, **values), force_field=Morse(), atoms=WATERY)
    got = Trajectory(tmp_path)
    m = got.system.masses.numpy()[:, None]
    p = (got.velocities * m).mean(2)
    x = got.positions.mean(2)
    x = x - (m * x).sum(2, keepdims=True) / m.sum()
    assert np.abs(p.sum(2)).max() < 1e-12
    half_kick = 5e-3  # after the thermostat comes half a kick, along bonds of beads that are not where the centroid is
    assert np.abs(np.cross(x, p).sum(2)).max() < half_kick * np.abs(p).max()
    free = settings(tmp_path / "free", **{**values, "remove_com_motion": []})
    run(free, force_field=Morse(), atoms=WATERY)
    assert np.abs((Trajectory(tmp_path / "free").velocities * m).mean(2).sum(2)[1:]).max() > 1e-3


def test_settings_of_earlier_versions_name_it_hold():
    got = MDSettings.parse({"hold": ["rotation"]})
    assert got == MDSettings(remove_com_motion=("rotation",))
    assert "hold" not in got.model_dump()
    with pytest.raises(PaiNNFastError, match="hold is the earlier name of remove_com_motion"):
        MDSettings.parse({"hold": ["rotation"], "remove_com_motion": ["rotation"]})


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    """2 fs of it, written when the setting was `hold`, which identifies the run in its trajectory too."""
    shutil.copytree(Path(__file__).parents[1] / "data" / "run_with_hold", tmp_path / "half")
    atoms = Atoms("OH", positions=OH.positions, masses=[16.0, 1.0])
    values = {"ensemble": "langevin", "remove_com_motion": ["translation"], "duration": "4 fs"}
    every = {"energies_every": "0.5 fs", "positions_every": "0.5 fs"}
    for name in ("half", "whole"):
        settings = MDSettings.parse({"output": str(tmp_path / name), **values, **every})
        run(settings, force_field=Morse(), atoms=atoms, resume=True)
    half, whole = Trajectory(tmp_path / "half"), Trajectory(tmp_path / "whole")
    np.testing.assert_allclose(half.positions, whole.positions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(half.energies["conserved"], whole.energies["conserved"], rtol=1e-12)
