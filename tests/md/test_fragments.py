"""A molecule that falls apart is stopped with the bond named; transferred protons and parting complexes are not."""

import contextlib
import shutil

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read
from force_fields import Free

from painn_fast.errors import PaiNNFastError
from painn_fast.md import MDSettings, Trajectory, run
from painn_fast.md.force_field import ForceField
from painn_fast.md.fragments import EVERY, Fragments
from painn_fast.md.geometry import atom_name
from painn_fast.md.state import System

ETHANOL = molecule("CH3CH2OH")
FASTEST = 0.25
"""Å/fs, of a hydrogen that is thrown out: 3 eV."""


def settings(folder, **changes):
    values = {"output": str(folder), "temperature": "300 K", "duration": "20 fs", "positions_every": "0.5 fs"}
    return MDSettings.parse({**values, **changes})


class Bound(ForceField):
    """Springs between pairs of atoms, and forces of the caller's on some atoms until they have gone 1.3 Å.

    Args:
        atoms: where the springs are at rest.
        pairs: [n, 2].
        pushed: {atom: force [3]}, eV/Å.
        copies: of which copies the atoms are pushed, all if none are named; they have no springs.
    """

    def __init__(self, atoms, pairs, pushed, copies=None, stiffness=20.0):
        self.pairs, self.stiffness = torch.tensor(pairs).view(-1, 2), stiffness
        self.copies = slice(None) if copies is None else copies
        self.cut = torch.tensor([any(atom in pair for atom in pushed) and copies is not None for pair in pairs])
        self.start = x = torch.tensor(atoms.positions)
        self.rest = torch.linalg.vector_norm(x[self.pairs[:, 1]] - x[self.pairs[:, 0]], dim=-1)
        self.push = torch.zeros_like(x)
        for atom, force in pushed.items():
            self.push[atom] = torch.tensor(force, dtype=torch.float64)

    def __call__(self, positions):
        i, j = self.pairs.T
        r = positions[:, j] - positions[:, i]
        d = torch.linalg.vector_norm(r, dim=-1, keepdim=True)
        pull = self.stiffness * (d - self.rest[:, None]) * r / d
        pull[self.copies] *= ~self.cut[:, None]
        forces = torch.zeros_like(positions).index_add_(1, i, pull).index_add_(1, j, -pull)
        near = torch.linalg.vector_norm(positions - self.start, dim=-1, keepdim=True) < 1.3
        forces[self.copies] += self.push * near[self.copies]
        return 0.5 * self.stiffness * (d[..., 0] - self.rest).square().sum(1), forces


def bonds(atoms):
    """Atoms of the bonds of a structure."""
    system = System.from_atoms(atoms)
    found = Fragments(system, torch.tensor(atoms.positions)[None], "stop", 0.5).bonds
    return {tuple(pair) for pair, length in zip(found.atoms[0].tolist(), found.length[0], strict=True) if length < 9}


def test_bonds_are_those_of_the_start():
    assert bonds(ETHANOL) == {(0, 1), (1, 2), (2, 3), (0, 6), (0, 7), (0, 8), (1, 4), (1, 5)}
    zundel = Atoms("OHO", positions=[[0, 0, 0], [1.18, 0, 0], [2.4, 0, 0]])
    assert bonds(zundel) == {(0, 1)}, "a hydrogen has one bond"
    assert bonds(molecule("H2")) == {(0, 1)}
    assert bonds(Atoms("C2", positions=np.zeros((2, 3)))) == set()
    split = molecule("CO", vacuum=4.0)
    split.pbc = True
    split.positions[1] += split.cell[2]
    split.positions[0] -= split.cell[0]
    assert bonds(split) == {(0, 1)}, "by the nearest image"


def thrown(beads, trajectories, which):
    """Ethanol of which H5 is pulled off in trajectory `which`."""
    copies = slice(which * beads, (which + 1) * beads)
    away = ETHANOL.positions[5] - ETHANOL.positions[1]
    return Bound(ETHANOL, sorted(bonds(ETHANOL)), {5: 1.5 * away / np.linalg.norm(away)}, copies)


@pytest.mark.parametrize(("ensemble", "beads"), [("nve", 1), ("t-rpmd", 4)])
def test_a_hydrogen_that_leaves_stops_its_trajectory_with_the_bond_named(tmp_path, capsys, ensemble, beads):
    given = {"ensemble": ensemble, "beads": beads, "trajectories": 3}
    run(settings(tmp_path / "thrown", **given), force_field=thrown(beads, 3, 1), atoms=ETHANOL)
    trajectory = Trajectory(tmp_path / "thrown")
    (event,) = trajectory.frozen
    assert (event["trajectory"], event["bond"]) == (1, [1, 5])
    start = ETHANOL.get_distance(1, 5)
    assert event["start"] == pytest.approx(start)
    centre = trajectory.positions[:, 1].mean(1)
    length = np.linalg.norm(centre[:, 1] - centre[:, 5], axis=1)[: event["step"]]  # a frame a step from the start on
    assert 2 * start - 1.0 < length[-1] < event["value"]
    assert event["value"] < 2 * start + FASTEST * EVERY
    words = f"trajectory 1 stopped at step {event['step']}: bond C1-H5 broke ({start:.4g} Å at the start)"
    output = " ".join(capsys.readouterr().err.split())
    assert words in output
    assert f"limit {2 * start:.4g}" in output
    frames = read(tmp_path / "thrown" / "frozen-1.xyz", index=":")
    np.testing.assert_allclose(
        [frame.positions for frame in frames], trajectory.positions[event["step"] - 1, 1], atol=1e-7
    )
    assert np.isnan(trajectory.positions[event["step"] :, 1]).all()
    assert np.isfinite(trajectory.positions[:, [0, 2]]).all()


def test_the_others_have_the_same_bits_as_without_it(tmp_path):
    run(settings(tmp_path / "stop", trajectories=3), force_field=thrown(1, 3, 1), atoms=ETHANOL)
    run(settings(tmp_path / "off", trajectories=3, fragments="off"), force_field=thrown(1, 3, 1), atoms=ETHANOL)
    one, other = Trajectory(tmp_path / "stop"), Trajectory(tmp_path / "off")
    assert other.frozen == []
    assert np.array_equal(one.positions[:, [0, 2]], other.positions[:, [0, 2]])
    assert np.isfinite(other.positions).all()


def test_when_all_fall_apart_the_run_ends_in_words(tmp_path):
    with pytest.raises(PaiNNFastError, match=r"guards stopped every trajectory.*bond C1-H5 broke.*falls apart"):
        run(settings(tmp_path), force_field=thrown(1, 1, 0), atoms=ETHANOL)


def test_note_reports_once_a_bond_and_goes_on(tmp_path, capsys):
    run(settings(tmp_path / "note", fragments="note"), force_field=thrown(1, 1, 0), atoms=ETHANOL)
    run(settings(tmp_path / "off", fragments="off"), force_field=thrown(1, 1, 0), atoms=ETHANOL)
    noted, off = Trajectory(tmp_path / "note"), Trajectory(tmp_path / "off")
    assert np.array_equal(noted.positions, off.positions)
    assert (noted.frozen, off.notes) == ([], [])
    (note,) = noted.notes
    assert note["bond"] == [1, 5]
    output = " ".join(capsys.readouterr().err.split())
    assert output.count(f"trajectory 0 at step {note['step']}: bond C1-H5 broke") == 1
    assert "stopped" not in output


def test_the_resolved_settings_tell_what_is_done(tmp_path):
    crystal = bulk("Cu", cubic=True)
    for atoms, mode in ((ETHANOL, "stop"), (crystal, "off")):
        folder = tmp_path / mode
        run(settings(folder, duration="1 fs"), force_field=Free(), atoms=atoms)
        assert f'fragments = "{mode}"' in (folder / "settings.toml").read_text().split("[resolved]")[1]
    run(settings(tmp_path / "asked", duration="1 fs", fragments="note"), force_field=Free(), atoms=crystal)
    assert 'fragments = "note"' in (tmp_path / "asked" / "settings.toml").read_text().split("[resolved]")[0]


WATERS = Atoms(
    "OHHHOHH",
    positions=[
        [0, 0, 0], [-0.4, 0.88, 0.1], [-0.4, -0.88, 0.1], [0.98, 0, 0],
        [2.6, 0, 0], [3.0, 0.88, 0.1], [3.0, -0.88, 0.1],
    ],
)  # fmt: skip
"""H3O+ and H2O: H3 of the first points to the oxygen of the second, 1.62 Å away."""
STIFF = [(0, 1), (0, 2), (4, 5), (4, 6), (1, 2), (5, 6)]


class Shuttle(Bound):
    """Two waters and a proton between them, in a well that goes to the other one and after `back` fs back again."""

    def __init__(self, back=np.inf, lost=np.inf):
        super().__init__(WATERS, STIFF, {})
        self.back, self.lost, self.count = back, lost, 0

    def __call__(self, positions):
        energy, forces = super().__call__(positions)
        goal = positions[:, 4] - torch.tensor([0.98, 0, 0], dtype=torch.float64)
        time = 0.5 * self.count
        if time > self.back:
            goal = positions[:, 0] + torch.tensor([0.98, 0, 0], dtype=torch.float64)
        if time > self.lost:
            goal = positions[:, 3] + torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)
        self.count += 1
        away = goal - positions[:, 3]
        apart = torch.linalg.vector_norm(away, dim=-1, keepdim=True).clamp(min=1e-3)
        forces[:, 3] += away / apart * apart.clamp(max=0.1) * 8.0
        return energy, forces


def cooled(folder, **changes):
    return settings(folder, ensemble="langevin", tau="5 fs", temperature="100 K", **changes)


def test_a_transferred_proton_is_no_fragment_there_and_back_again(tmp_path):
    far = WATERS.copy()
    far.positions[4:] += [0.2, 0, 0]
    run(cooled(tmp_path, duration="160 fs"), force_field=Shuttle(back=80.0), atoms=far)
    trajectory = Trajectory(tmp_path)
    apart = [
        np.linalg.norm(trajectory.positions[:, 0, 0, 3] - trajectory.positions[:, 0, 0, k], axis=1) for k in (0, 4)
    ]
    assert apart[0].max() > 1.5
    assert apart[0][-1] < 1.2
    assert trajectory.frozen == []


def test_a_proton_that_is_lost_after_its_transfer_is_noticed(tmp_path):
    far = WATERS.copy()
    far.positions[4:] += [0.5, 0, 0]
    changes = {"duration": "200 fs", "trajectories": 1}
    with pytest.raises(PaiNNFastError, match=r"bond H3-O4 broke \(0.97 Å by covalent radii, made since the start\)"):
        run(cooled(tmp_path / "whole", **changes), force_field=Shuttle(lost=80.0), atoms=far)


def test_transferred_bonds_survive_a_restart(tmp_path):
    far = WATERS.copy()
    far.positions[4:] += [0.5, 0, 0]
    seen = []
    for folder, ends in ((tmp_path / "whole", ()), (tmp_path / "halves", ("60 fs", "81 fs"))):
        field = Shuttle(lost=80.0)
        for end in ends:
            run(cooled(folder, duration=end), force_field=field, atoms=far, resume=True)
        with pytest.raises(PaiNNFastError, match="bond H3-O4 broke") as error:
            run(cooled(folder, duration="200 fs"), force_field=field, atoms=far, resume=True)
        seen.append((str(error.value).split("got:")[1], Trajectory(folder)))
    (one, first), (other, second) = seen
    assert one == other
    assert first.frozen == second.frozen
    assert np.array_equal(first.positions, second.positions, equal_nan=True)


def test_a_stop_is_the_same_after_a_restart_at_any_step(tmp_path):
    given = {"trajectories": 2, "ensemble": "t-rpmd", "beads": 2, "equilibration": "3 fs"}
    run(settings(tmp_path / "whole", **given), force_field=thrown(2, 2, 1), atoms=ETHANOL)
    expected = Trajectory(tmp_path / "whole")
    (event,) = expected.frozen
    for before in (3, 1, 0, -1):
        folder = tmp_path / "half"
        shutil.rmtree(folder, ignore_errors=True)
        end = f"{0.5 * (event['step'] - 6 - before)} fs"
        run(settings(folder, **{**given, "duration": end}), force_field=thrown(2, 2, 1), atoms=ETHANOL)
        run(settings(folder, **given), force_field=thrown(2, 2, 1), atoms=ETHANOL, resume=True)
        got = Trajectory(folder)
        assert got.frozen == expected.frozen
        assert np.array_equal(got.positions, expected.positions, equal_nan=True)


def test_notes_are_reported_once_over_a_restart(tmp_path):
    whole, half = tmp_path / "whole", tmp_path / "half"
    for folder, ends in ((whole, ("60 fs",)), (half, ("40 fs", "60 fs"))):
        for end in ends:
            changes = {"duration": end, "fragments": "note"}
            run(settings(folder, **changes), force_field=thrown(1, 1, 0), atoms=ETHANOL, resume=True)
    assert Trajectory(whole).notes == Trajectory(half).notes
    assert len(Trajectory(whole).notes) == 1


def test_molecules_of_a_complex_may_part(tmp_path):
    dimer = WATERS[[0, 1, 2, 4, 5, 6]]
    pairs = [(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)]
    pushed = {k: [(-1 if k < 3 else 1) * 0.03 * mass, 0, 0] for k, mass in enumerate(dimer.get_masses())}
    run(
        settings(tmp_path, duration="140 fs", temperature="600 K"), force_field=Bound(dimer, pairs, pushed), atoms=dimer
    )
    trajectory = Trajectory(tmp_path)
    assert np.linalg.norm(trajectory.positions[-1, 0, 0, 3] - trajectory.positions[-1, 0, 0, 0]) > 5.2
    assert trajectory.frozen == []


def test_a_bond_between_heavy_atoms_of_a_ring_counts_though_the_molecule_stays_connected(tmp_path):
    ring = molecule("cyclobutane")
    ring = ring[ring.numbers == 6]
    pairs = sorted(bonds(ring))
    first, second = pairs[0]
    away = ring.positions[second] - ring.positions[first]
    push = 1.0 * away / np.linalg.norm(away)
    springs = [pair for pair in pairs if pair != (first, second)]
    field = Bound(ring, springs, {first: -push, second: push})
    with pytest.raises(PaiNNFastError, match=f"bond C{first}-C{second} broke"):
        run(settings(tmp_path, duration="150 fs", temperature="1000 K"), force_field=field, atoms=ring)


def thermal(folder, temperature, duration, **changes):
    given = {"ensemble": "t-rpmd", "beads": 8, "trajectories": 2, "equilibration": "20 fs"}
    given |= {"model": "ethanol", "positions_every": None, "temperature": temperature, "duration": duration}
    return Trajectory(run(settings(folder, **{**given, **changes})))


@pytest.mark.parametrize("temperature", ["300 K", "600 K"])
def test_ethanol_at_moderate_temperatures_is_not_stopped(tmp_path, temperature):
    assert thermal(tmp_path, temperature, "20 fs").frozen == []


@pytest.mark.slow
@pytest.mark.parametrize("temperature", ["300 K", "600 K"])
def test_ethanol_at_moderate_temperatures_is_not_stopped_for_long(tmp_path, temperature):
    assert thermal(tmp_path, temperature, "2 ps", trajectories=8, equilibration="200 fs").frozen == []


@pytest.mark.slow
def test_ethanol_at_3000_kelvin_falls_apart(tmp_path):
    given = {"model": "ethanol", "ensemble": "langevin", "temperature": "3000 K", "trajectories": 4, "duration": "2 ps"}
    with contextlib.suppress(PaiNNFastError):  # where all of them do
        run(settings(tmp_path, **given))
    frozen = Trajectory(tmp_path).frozen
    assert frozen
    assert all(event["bond"] and "broke" in event["what"] for event in frozen)


def test_names_of_atoms_count_from_zero():
    assert atom_name(System.from_atoms(ETHANOL), 2) == "O2"


def test_a_check_every_four_femtoseconds():
    system, place = System.from_atoms(ETHANOL), torch.tensor(ETHANOL.positions)[None]
    for step, every in ((0.5, 8), (0.25, 16), (0.3, 13), (1.0, 4), (5.0, 1)):
        assert Fragments(system, place, "stop", step).every == every
