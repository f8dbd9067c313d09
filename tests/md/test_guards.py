"""A trajectory that goes wrong is stopped and explained; the others go on as if nothing had happened."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import read
from force_fields import Morse

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.io.model_file import save_model
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.md.estimators import Estimators
from painn_fast.md.forces import ForceField, ModelForces
from painn_fast.md.geometry import closest_pair
from painn_fast.md.guards import Guards
from painn_fast.md.state import State, System
from painn_fast.testing import assert_close

DIMER = Atoms("OH", positions=[[0, 0, 0], [1.4, 0, 0]])


class Sabotaged(Morse):
    """Morse that goes wrong for one copy at one evaluation."""

    def __init__(self, evaluation, copy, **what):
        super().__init__()
        self.evaluation, self.copy, self.what = evaluation, copy, what
        self.count = -1

    def __call__(self, positions):
        self.count += 1
        energy, forces = super().__call__(positions)
        if self.count == self.evaluation:
            if "energy" in self.what:
                energy[self.copy] = self.what["energy"]
            if "force" in self.what:
                forces[self.copy, 1] = torch.as_tensor(self.what["force"], dtype=torch.float64)
        return energy, forces


def settings(folder, **changes):
    values = {
        "output": str(folder),
        "ensemble": "t-rpmd",
        "beads": 4,
        "trajectories": 3,
        "duration": "20 fs",
        "positions_every": "0.5 fs",
        "energies_every": "0.5 fs",
    }
    return MDSettings.parse({**values, **changes})


def sabotaged(folder, capsys, **what):
    """Trajectory 1 of three goes wrong at step 10 by its bead 2; returns the trajectory and the output."""
    run(settings(folder), force_field=Sabotaged(10, 1 * 4 + 2, **what), atoms=DIMER)
    return Trajectory(folder), " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"force": [np.nan, 0, 0]}, "step 10, bead 2, atom 1: forces are not finite"),
        ({"force": [0, 0, -200.0]}, "step 10, bead 2, atom 1: force in eV/Å on H1 200, limit 100"),
        ({"energy": np.inf}, "step 10: energy not finite"),
        ({"force": [99.0, 0, 0]}, "step 1"),
    ],
)
def test_a_trajectory_that_goes_wrong_is_stopped_and_described(tmp_path, capsys, what, message):
    trajectory, output = sabotaged(tmp_path, capsys, **what)
    assert f"trajectory 1 stopped at {message}" in output
    assert "likely cause" in output
    assert trajectory.alive.tolist() == [True, False, True]
    (event,) = trajectory.frozen
    assert event["trajectory"] == 1
    positions = trajectory.positions
    assert np.isfinite(positions[: event["step"], 1]).all()
    assert np.isnan(positions[event["step"] :, 1]).all()
    assert np.isnan(trajectory.energies["potential"][event["step"] :, 1]).all()
    last_good = read(tmp_path / "frozen-1.xyz", index=":")
    np.testing.assert_allclose([frame.positions for frame in last_good], positions[event["step"] - 1, 1], atol=1e-8)


def test_the_other_trajectories_do_not_notice(tmp_path, capsys):
    run(settings(tmp_path / "whole"), force_field=Morse(), atoms=DIMER)
    trajectory, _ = sabotaged(tmp_path / "wrong", capsys, force=[np.nan] * 3)
    whole = Trajectory(tmp_path / "whole")
    for s in (0, 2):
        assert np.array_equal(trajectory.positions[:, s], whole.positions[:, s])
        assert np.array_equal(trajectory.energies["conserved"][:, s], whole.energies["conserved"][:, s])


def test_a_step_too_long_is_caught_by_the_move(tmp_path, capsys):
    fast = Atoms("OH", positions=DIMER.positions)
    with pytest.raises(PaiNNFastError, match=r"guards stopped every trajectory.*move in one step in Å on H1"):
        run(
            settings(tmp_path, time_step="20 fs", positions_every="20 fs", energies_every="20 fs", duration="400 fs"),
            force_field=Morse(),
            atoms=fast,
        )
    assert "limit 0.5; likely cause: a time step too long" in " ".join(capsys.readouterr().err.split())


def test_energy_that_is_not_conserved_is_caught_by_the_temperature(tmp_path, capsys):
    class Heater(Morse):
        def __call__(self, positions):
            energy, forces = super().__call__(positions)
            push = torch.zeros_like(forces)
            push[:, ::2, 2], push[:, 1::2, 2] = 3.0, -3.0
            return energy, forces + push

    chain = Atoms("H20", positions=[[0, 0, 1.5 * i] for i in range(20)])
    with pytest.raises(PaiNNFastError, match="temperature in K"):
        run(settings(tmp_path, beads=1), force_field=Heater(), atoms=chain)
    assert "energy is not conserved: the time step is too long" in capsys.readouterr().err.replace("\n", " ")


def test_a_frozen_trajectory_stays_frozen_after_a_restart(tmp_path, capsys):
    whole, half = tmp_path / "whole", tmp_path / "half"
    run(settings(whole), force_field=Sabotaged(10, 6, force=[np.nan] * 3), atoms=DIMER)
    run(settings(half, duration="7 fs"), force_field=Sabotaged(10, 6, force=[np.nan] * 3), atoms=DIMER)
    run(settings(half), force_field=Morse(), atoms=DIMER, resume=True)
    one, other = Trajectory(whole), Trajectory(half)
    assert np.array_equal(one.positions, other.positions, equal_nan=True)
    assert str(one.frozen) == str(other.frozen)
    assert len(one.frozen) == 1


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"force": [np.nan, 0, 0]}, "no finite energy and forces"),
        ({"force": [500.0, 0, 0]}, "too large; where: atom 1"),
    ],
)
def test_a_start_that_nothing_can_come_of_is_refused(tmp_path, what, message):
    with pytest.raises(PaiNNFastError, match=message):
        run(settings(tmp_path), force_field=Sabotaged(0, 0, **what), atoms=DIMER)
    assert not list(tmp_path.glob("trajectory*"))


class Collapse(ForceField):
    """Two atoms that fall together within 1 Å; where they meet in any copy, it fails as a whole or gives no numbers."""

    def __init__(self, failure):
        self.failure = failure

    def __call__(self, positions):
        r = positions[:, 1] - positions[:, 0]
        apart = torch.linalg.vector_norm(r, dim=1)
        pull = 4.0 * r / apart[:, None] * (apart < 1.0)[:, None]
        forces = torch.stack([pull, -pull], 1)
        meets = apart < 0.1
        if bool(meets.any()) and self.failure is not None:
            raise self.failure
        forces[meets] = torch.nan
        return apart, forces


STARTS = [Atoms("OH", positions=[[0, 0, 0], [x, 0, 0]]) for x in (2.0, 0.2, 2.1)]


@pytest.mark.parametrize("failure", [ZeroDivisionError("division by zero"), PaiNNFastError("no list"), None])
@pytest.mark.parametrize("beads", [1, 3])
def test_atoms_that_meet_stop_their_trajectory_alone_and_are_named(tmp_path, capsys, failure, beads):
    changes = {"beads": beads, "duration": "40 fs", "fragments": "off"}
    run(settings(tmp_path / "meet", **changes), force_field=Collapse(failure), atoms=STARTS)
    apart = [STARTS[0], STARTS[2], STARTS[2]]
    run(settings(tmp_path / "apart", **changes), force_field=Collapse(failure), atoms=apart)
    trajectory, other = Trajectory(tmp_path / "meet"), Trajectory(tmp_path / "apart")
    assert trajectory.alive.tolist() == [True, False, True]
    assert other.alive.all()
    (event,) = trajectory.frozen
    assert "forces are not finite" in event["what"]
    assert "O0 and H1 are on top of each other, 0.0" in " ".join(capsys.readouterr().err.split())
    good = trajectory.positions[event["step"] - 1, 1]
    assert np.isfinite(trajectory.positions[: event["step"], 1]).all()
    frames = read(tmp_path / "meet" / "frozen-1.xyz", index=":")
    np.testing.assert_allclose([frame.positions for frame in frames], good, atol=1e-7)
    for s in (0, 2):
        assert np.array_equal(trajectory.positions[:, s], other.positions[:, s])


def test_a_force_field_that_fails_for_another_reason_is_quoted(tmp_path):
    class Fails(Collapse):
        def __call__(self, positions):
            if bool((positions[:, 1, 0] - positions[:, 0, 0] < 0.18).any()):
                raise PaiNNFastError("too far outside", got="1e7 cells")
            return super().__call__(positions)

    with pytest.raises(PaiNNFastError, match=r"every trajectory.*fails at these positions: too far outside; got: 1e7"):
        run(settings(tmp_path, trajectories=1, fragments="off"), force_field=Fails(None), atoms=STARTS[1])


@pytest.mark.parametrize("failure", [ZeroDivisionError("division by zero"), None])
def test_a_start_with_atoms_that_meet_is_refused_in_words_and_nothing_is_written(tmp_path, failure):
    met = Atoms("OH", positions=[[0, 0, 0], [0.02, 0, 0]])
    with pytest.raises(PaiNNFastError, match="first frame"):
        run(settings(tmp_path / "run"), force_field=Collapse(failure), atoms=[STARTS[0], STARTS[2], met])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("apart", [0.02, 0.0])
@pytest.mark.parametrize("frame", [0, 1])
def test_a_start_of_a_model_with_atoms_that_meet_is_refused_whatever_the_frame(tmp_path, apart, frame):
    frames = [molecule("CH3CH2OH"), molecule("CH3CH2OH")]
    frames[frame].positions[3] = frames[frame].positions[0] + [0, 0, apart]
    given = settings(tmp_path / "run", model="ethanol", trajectories=2)
    with pytest.raises(PaiNNFastError, match=rf"on top of each other; where: structure {frame} .*atoms 0 and 3"):
        run(given, atoms=frames)
    frames[frame].positions[3] = np.nan
    with pytest.raises(PaiNNFastError, match="positions are not finite; where: atom 3"):
        run(given, atoms=frames)
    assert not (tmp_path / "run").exists()


def test_a_start_that_is_refused_leaves_the_run_that_it_was_to_replace(tmp_path):
    run(settings(tmp_path), force_field=Morse(), atoms=DIMER)
    with pytest.raises(PaiNNFastError, match="first frame"):
        run(settings(tmp_path), force_field=Sabotaged(0, 0, force=[np.nan, 0, 0]), atoms=DIMER, overwrite=True)
    assert len(Trajectory(tmp_path).times()) == 41


def test_a_spread_that_is_no_number_is_described_as_that():
    positions = torch.tensor(DIMER.positions).expand(1, 1, 2, 3).clone()
    state = State.at(positions, torch.zeros_like(positions))
    state.take(torch.zeros(1, dtype=torch.float64), torch.zeros(1, 2, 3, dtype=torch.float64))
    system, kelvin = System.from_atoms(DIMER), torch.tensor([300.0], dtype=torch.float64)
    spread = torch.tensor([[[0.1, np.nan]]], dtype=torch.float64)
    seen = state, positions, Estimators(system, 1, kelvin), kelvin, system
    event = Guards(spread=1.0).describe(0, 5, *seen, spread)
    assert "spread of the members' forces in eV/Å on H1" in event.what
    assert np.isnan(event.value)


def test_the_closest_pair_of_a_structure(monkeypatch):
    monkeypatch.setattr("painn_fast.md.geometry.ROWS", 2)
    system, x = System.from_atoms(molecule("CH3CH2OH")), torch.tensor(molecule("CH3CH2OH").positions)
    x[7] = x[4] + torch.tensor([0.0, 0.3, 0.4], dtype=torch.float64)
    x[0] = torch.nan
    assert closest_pair(x, system) == (4, 7, pytest.approx(0.5))
    assert closest_pair(x[:1], System.from_atoms(Atoms("C", positions=[[0, 0, 0]])))[2] == np.inf
    cell = Atoms("He2", positions=[[0.1, 0, 0], [9.8, 0, 0]], cell=[10, 10, 10], pbc=[True, False, False])
    assert closest_pair(torch.tensor(cell.positions), System.from_atoms(cell))[2] == pytest.approx(0.3)


def test_ordinary_dynamics_trips_nothing(tmp_path):
    run(settings(tmp_path, ensemble="pile-l", duration="200 fs"), force_field=Morse(), atoms=DIMER)
    assert Trajectory(tmp_path).alive.all()


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Files of two models: the bundled one, and one whose energies are a little off."""
    folder = tmp_path_factory.mktemp("members")
    paths = []
    for k in range(2):
        potential = pf.load("ethanol")
        with torch.no_grad():
            for parameter in potential.heads["energy"].parameters():
                parameter.mul_(1.0 + 0.02 * k)
        paths.append(str(folder / f"{k}.safetensors"))
        save_model(potential, Path(paths[-1]))
    return paths


def test_the_force_of_an_ensemble_is_the_mean_and_its_spread_that_of_evaluate(members):
    atoms = molecule("CH3CH2OH")
    positions = torch.tensor(np.stack([atoms.positions, 1.01 * atoms.positions]))
    field = ModelForces(pf.Ensemble(members), atoms)
    energy, forces, observed = field.evaluate(positions, ("dipole",))
    frames = [Atoms(atoms.numbers, place) for place in positions.numpy()]
    names = ("energy", "forces", "dipole", "forces_spread")
    expected = pf.evaluate(pf.Ensemble(members), frames, names)
    assert_close(energy, np.array(expected["energy"]), 1e-9)
    assert_close(forces, np.array(expected["forces"]), 1e-5)
    assert_close(observed["dipole"], np.array(expected["dipole"]), 1e-6)
    assert_close(observed["forces_spread"], np.array(expected["forces_spread"]), 1e-4)


def test_a_trajectory_where_members_disagree_is_stopped_and_the_atom_named(members, tmp_path):
    settings = {"members": members, "structure": str(tmp_path / "start.xyz"), "trajectories": 2, "duration": "20 fs"}
    ase.io.write(tmp_path / "start.xyz", molecule("CH3CH2OH"))
    calm = MDSettings.parse(settings | {"spread_limit": "5 eV/Ang", "output": str(tmp_path / "calm")})
    path = run(calm)
    assert Trajectory(path).frozen == []
    strict = MDSettings.parse(settings | {"spread_limit": "0.001 eV/Ang", "output": str(tmp_path / "strict")})
    with pytest.raises(PaiNNFastError, match=r"guards stopped every.*spread.*on [CHO]\d.*limit 0.001.*training data"):
        run(strict)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "ethanol", "spread_limit": "1 eV/Ang"}, "two members"),
        ({"members": ["ethanol"]}, "two members"),
        ({"model": "ethanol", "members": ["ethanol", "ethanol"]}, "either model or members"),
        ({"members": ["a", "b"], "spread_limit": "1"}, "missing unit of force"),
    ],
)
def test_settings_of_ensembles_that_make_no_sense_are_refused(values, message):
    with pytest.raises(PaiNNFastError, match=message):
        MDSettings.parse(values)
