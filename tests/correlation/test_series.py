"""Spectra of a run whose frames were streamed are those of the run whose frames were kept."""

import json

import numpy as np
import pytest

from painn_fast import PaiNNFastError, md
from painn_fast.correlation.series import FILE
from painn_fast.md import MDSettings, Trajectory
from painn_fast.spectra import SpectrumSettings, SpectrumStreams, run
from painn_fast.testing import assert_close

EVERY = {"dipole": 2.0, "polarizability": 4.0, "velocities": 2.0}


@pytest.fixture(scope="module")
def kept(tmp_path_factory, water_on_springs):
    settings = MDSettings(
        fragments="off",  # springs are no bonds
        ensemble="rpmd", beads=2, trajectories=3, duration="600 fs", equilibration="50 fs", dipole_every="2 fs",
        polarizability_every="4 fs", velocities_every="2 fs", output=str(tmp_path_factory.mktemp("streams") / "run"),
    )  # fmt: skip
    water = water_on_springs
    return Trajectory(md.run(settings, force_field=water.force_field, atoms=water.atoms))


def empty(depth=300.0):
    return SpectrumStreams(EVERY, depth, symbols=["O", "H", "H"], masses=[15.999, 1.008, 1.008])


def feed(streams, trajectory, start=0, end=None, series=tuple(EVERY)):
    for name in series:
        for frame in trajectory.read(name)[start:end]:
            streams.push(name, frame)
    return streams


def test_the_verb_takes_streams_where_frames_were_not_kept(kept, tmp_path, water_on_springs):
    chosen = SpectrumSettings(
        trajectory=str(kept.path), depth="200 fs", output=str(tmp_path / "kept"), highest="3900 cm-1"
    )
    expected = run(chosen)
    water = water_on_springs
    settings = MDSettings(
        fragments="off",
        ensemble="rpmd", beads=2, trajectories=3, duration="600 fs", equilibration="50 fs", output=str(tmp_path / "md"),
    )  # fmt: skip
    md.run(settings, force_field=water.force_field, atoms=water.atoms)  # records energies only
    feed(empty(), kept).save(tmp_path / "md")
    change = {"trajectory": str(tmp_path / "md"), "output": str(tmp_path / "streamed")}
    got = run(chosen.model_copy(update=change))
    assert_close(got.infrared.intensity, expected.infrared.intensity, 1e-11)
    assert_close(got.infrared.error, expected.infrared.error, 1e-11)
    assert_close(got.raman.activity, expected.raman.activity, 1e-11)
    assert_close(got.power.density, expected.power.density, 1e-11)
    for name in ("infrared.csv", "power.csv"):
        headers = [
            [line for line in (tmp_path / folder / name).read_text().splitlines() if line.startswith("#")]
            for folder in ("kept", "streamed")
        ]
        assert headers[0] == headers[1]


def test_restart_gives_the_same_bits(kept, tmp_path):
    expected = feed(empty(), kept).state()
    first = feed(feed(empty(), kept, 0, 100), kept, 100, 130)
    again = empty()
    again.restore(first.state())
    assert all(np.array_equal(value, expected[name]) for name, value in feed(again, kept, 130).state().items())
    first.save(tmp_path)
    loaded = SpectrumStreams.load(tmp_path)
    assert all(np.array_equal(value, expected[name]) for name, value in feed(loaded, kept, 130).state().items())


def test_frozen_trajectories_are_left_out(kept):
    streams = empty()
    for frame in kept.dipole:
        frozen = frame.copy()
        frozen[1] = np.nan
        streams.push("dipole", frozen)
    for name in ("polarizability", "velocities"):
        feed(streams, kept, series=(name,))
    assert streams.alive.tolist() == [True, False, True]
    (part,) = streams.correlations("dipole").values()
    assert len(part.blocks) == 2


def test_length_of_a_series(kept):
    streams = feed(empty(), kept)
    assert streams.length("dipole") == 600.0
    assert streams.length("polarizability") == 600.0


def test_invalid_input_is_refused(kept, tmp_path):
    with pytest.raises(PaiNNFastError, match=r"no spectrum needs this series; got: energies"):
        SpectrumStreams({"energies": 1.0}, 100.0)
    with pytest.raises(PaiNNFastError, match="velocities need symbols and masses"):
        SpectrumStreams({"velocities": 1.0}, 100.0)
    with pytest.raises(PaiNNFastError, match="unknown series; got: dipole; expected: polarizability"):
        SpectrumStreams({"polarizability": 1.0}, 100.0).push("dipole", np.zeros((1, 3)))
    with pytest.raises(PaiNNFastError, match="the state of other series"):
        SpectrumStreams({"dipole": 2.0}, 300.0).restore(empty().state())
    with pytest.raises(PaiNNFastError, match="the state of another correlation"):
        empty(200.0).restore(feed(empty(), kept, 0, 3).state())
    assert SpectrumStreams.load(tmp_path) is None
    feed(empty(), kept, 0, 3).save(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    with np.load(tmp_path / FILE) as file:  # a file of version 1, which has no hash, with the state of no series
        about = json.loads(str(file["about"])) | {"version": 1}
        content = {**file, "about": json.dumps(about), "stray": np.zeros(1)}
    np.savez(tmp_path / "stray.npz", **content)
    stray = (tmp_path / "stray.npz").read_bytes()
    for content in (b"nothing of the kind", whole[:1000], whole[:-100], b"", stray):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(PaiNNFastError, match="not a file of correlations"):
            SpectrumStreams.load(tmp_path)
    with pytest.raises(PaiNNFastError, match="too few frames"):
        SpectrumStreams({"dipole": 2.0}, 300.0).correlations("dipole")
