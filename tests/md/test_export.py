"""Positions of runs in files of other programs: positions, cell, times and units are those that were recorded."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from force_fields import Morse

from painn_fast.errors import PaiNNFastError
from painn_fast.md import MDSettings, Trajectory, export, run

DIMER = Atoms("OH", positions=[[0, 0, 0], [1.4, 0.1, 0.2]])
CELLS = {
    "none": None,
    "orthorhombic": np.diag([9.0, 10.0, 11.0]),
    "turned": np.array([[0.0, 9.0, 1.0], [0.0, 2.0, 10.0], [11.0, 0.0, 3.0]]),
    "left-handed": np.array([[0.0, 2.0, 10.0], [0.0, 9.0, 1.0], [11.0, 0.0, 3.0]]),
}
FORMATS = [".h5md", ".dcd", ".nc"]


def finished(folder, cell=None, **given):
    values = {"output": str(folder), "duration": "8 fs", "positions_every": "2 fs", **given}
    atoms = DIMER.copy() if cell is None else Atoms(DIMER, cell=cell, pbc=True)
    return Trajectory(run(MDSettings.parse(values), force_field=Morse(), atoms=atoms))


@pytest.fixture(scope="module")
def beads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beads") / "run"
    return finished(folder, ensemble="rpmd", beads=12, trajectories=2, temperature="300 K", start="free")


@pytest.mark.parametrize("cell", CELLS)
def test_extended_xyz_is_what_was_recorded(tmp_path, cell):
    trajectory = finished(tmp_path / "run", CELLS[cell])
    (path,) = export(tmp_path / "run", tmp_path / "dimer.xyz")
    frames = ase.io.read(path, ":")
    np.testing.assert_allclose([one.positions for one in frames], trajectory.positions[:, 0, 0], atol=1e-8)
    assert [one.info["time_fs"] for one in frames] == [0, 2, 4, 6, 8]
    assert str(frames[0].symbols) == "OH"
    assert frames[0].pbc.all() == (cell != "none")
    if cell != "none":
        np.testing.assert_allclose(frames[-1].cell.array, CELLS[cell])


def test_centroids_by_default_and_each_bead_on_request(beads, tmp_path):
    centroids = export(beads.path, tmp_path / "all.extxyz", every=2)
    assert [path.name for path in centroids] == ["all-0.extxyz", "all-1.extxyz"]
    read = np.array([[one.positions for one in ase.io.read(path, ":")] for path in centroids])
    np.testing.assert_allclose(read.swapaxes(0, 1), beads.positions[::2].mean(axis=2), atol=1e-8)
    each = export(beads.path, tmp_path / "one.xyz", trajectory=1, beads=True)
    assert [path.name for path in each] == [f"one-1-bead-{k:02}.xyz" for k in range(12)]
    read = np.array([[one.positions for one in ase.io.read(path, ":")] for path in each])
    np.testing.assert_allclose(read.swapaxes(0, 1), beads.positions[:, 1], atol=1e-8)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.filterwarnings("ignore")  # of MDAnalysis, of what it guesses
def test_mdanalysis_reads_what_was_recorded(tmp_path, ending, cell):
    package = pytest.importorskip("MDAnalysis", reason="MDAnalysis is not installed")
    recorded = finished(tmp_path / "run", CELLS[cell]).positions[:, 0, 0]
    (path,) = export(tmp_path / "run", tmp_path / f"dimer{ending}")
    universe = package.Universe(tmp_path / "dimer.xyz", path)
    assert list(universe.atoms.elements) == ["O", "H"]
    frames = [(1000 * one.time, one.positions.copy(), one.dimensions) for one in universe.trajectory]
    np.testing.assert_allclose([time for time, _, _ in frames], [0, 2, 4, 6, 8], atol=1e-4)
    for (_, positions, box), right in zip(frames, recorded, strict=True):
        if cell == "none":
            assert box is None or not box[:3].any()
            np.testing.assert_allclose(positions, right, atol=1e-6)
            continue
        given = CELLS[cell]
        assert abs(np.prod(box[:3]) * _volume(box[3:]) - abs(np.linalg.det(given))) < 1e-2
        vectors = package.lib.mdamath.triclinic_vectors(box)
        handed = given * np.sign(np.linalg.det(given))
        np.testing.assert_allclose(vectors @ vectors.T, handed @ handed.T, rtol=1e-5, atol=1e-3)
        scaled = np.linalg.solve(vectors.T, positions.T).T
        np.testing.assert_allclose(scaled, np.linalg.solve(handed.T, right.T).T, atol=1e-6)


def _volume(angles):
    a, b, c = np.cos(np.radians(angles))
    return np.sqrt(1 - a**2 - b**2 - c**2 + 2 * a * b * c)


@pytest.mark.filterwarnings("ignore")
def test_mdanalysis_reads_files_of_beads_and_refuses_none(beads, tmp_path):
    package = pytest.importorskip("MDAnalysis", reason="MDAnalysis is not installed")
    files = export(beads.path, tmp_path / "one.h5md", trajectory=0, beads=True, every=3)
    assert len(files) == 12
    universe = package.Universe(files[7].with_suffix(".xyz"), files[7])
    read = np.array([one.positions.copy() for one in universe.trajectory])
    np.testing.assert_allclose(read, beads.positions[::3, 0, 7], atol=1e-6)


def test_frames_end_where_a_guard_stopped_a_trajectory(tmp_path):
    class Sabotaged(Morse):
        count = 0

        def __call__(self, positions):
            energy, forces = super().__call__(positions)
            self.count += 1
            if self.count == 10:
                forces[1] = float("nan")
            return energy, forces

    values = {"output": str(tmp_path / "run"), "trajectories": 2, "duration": "20 fs", "positions_every": "1 fs"}
    trajectory = Trajectory(run(MDSettings.parse(values), force_field=Sabotaged(), atoms=DIMER))
    assert [event["trajectory"] for event in trajectory.frozen] == [1]
    whole, cut = export(tmp_path / "run", tmp_path / "a.xyz")
    assert len(ase.io.read(whole, ":")) == 21
    assert [one.info["time_fs"] for one in ase.io.read(cut, ":")] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("target", "given", "message"),
    [
        ("a.pdb", {}, r"unknown format of the target.*\.xyz, \.extxyz, \.h5md, \.dcd, \.nc"),
        ("a.xyz", {"trajectory": 2}, "no such trajectory; got: 2; expected: 0 to 1"),
        ("there.xyz", {}, "the target exists already.*--overwrite"),
    ],
)
def test_wrong_requests_write_nothing(beads, tmp_path, target, given, message):
    (tmp_path / "there-1.xyz").write_text("precious")
    with pytest.raises(PaiNNFastError, match=message):
        export(beads.path, tmp_path / target, **given)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("there-1.xyz", "precious")]


def test_a_run_without_positions_says_how_to_record_them(tmp_path):
    finished(tmp_path / "run", positions_every="0 fs")
    with pytest.raises(PaiNNFastError, match=r"did not record positions.*positions_every"):
        export(tmp_path / "run", tmp_path / "a.xyz")


@pytest.mark.parametrize(
    ("given", "stride"),
    [
        ({"duration": "1 ps"}, 20),
        ({"duration": "100 ps", "time_step": "0.25 fs"}, 400),
        ({"duration": "5 ps", "trajectories": 64, "beads": 16, "ensemble": "rpmd"}, 103),
        ({"duration": "1e9 fs"}, 2 * 10**6),
        ({"duration": "1 ps", "time_step": "0.3 fs", "energies_every": "3 fs"}, 34),
    ],
)
def test_positions_are_recorded_by_default_so_that_a_long_run_does_not_fill_the_disk(given, stride):
    settings = MDSettings(**given).with_positions()
    assert settings.strides["positions"] == stride
    frames = settings.total_steps // stride
    assert frames <= 1000
    assert frames * settings.beads * settings.trajectories <= 10**5
    assert MDSettings.parse(settings.model_dump(mode="json")) == settings


def test_a_longer_resumed_run_keeps_the_interval_of_positions(tmp_path):
    finished(tmp_path / "run", duration="20 fs", positions_every=None)
    values = {"output": str(tmp_path / "run"), "duration": "40 ps", "positions_every": None, "max_time": "0.5 s"}
    with pytest.raises(PaiNNFastError, match="stopped"):
        run(MDSettings.parse(values), force_field=Morse(), atoms=DIMER, resume=True)
    times = Trajectory(tmp_path / "run").times()
    assert len(times) > 3
    np.testing.assert_allclose(times, 10.0 * np.arange(len(times)))


class Exploding(Morse):
    """The second trajectory ends in the third step."""

    calls = 0

    def __call__(self, positions):
        energy, forces = super().__call__(positions)
        self.calls += 1
        if self.calls > 3 and len(positions) > 1:
            forces[1] += 500.0
        return energy, forces


@pytest.mark.parametrize("ending", [".xyz", ".dcd"])
@pytest.mark.filterwarnings("ignore")
def test_a_trajectory_that_ended_before_its_first_frame_has_no_file(tmp_path, ending, capsys):
    if ending == ".dcd":
        pytest.importorskip("MDAnalysis")
    values = {"output": str(tmp_path / "run"), "trajectories": 2, "equilibration": "5 fs", "duration": "4 fs"}
    run(MDSettings.parse(values | {"positions_every": "1 fs"}), force_field=Exploding(), atoms=DIMER)
    written = export(tmp_path / "run", tmp_path / f"dimer{ending}")
    assert [path.name for path in written] == [f"dimer-0{ending}"]
    assert not list(tmp_path.glob("dimer-1*"))
    assert "no file of trajectory 1: guards stopped it before the first frame" in capsys.readouterr().err
    with pytest.raises(PaiNNFastError, match="guards stopped it before the first frame; where: trajectory 1"):
        export(tmp_path / "run", tmp_path / f"alone{ending}", trajectory=1)


@pytest.mark.parametrize("every", [0, -2])
def test_frames_go_forward(beads, tmp_path, every):
    with pytest.raises(PaiNNFastError, match=f"where: every; got: {every}; expected: 1 or more"):
        export(beads.path, tmp_path / "one.xyz", every=every)
