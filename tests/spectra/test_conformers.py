"""Conformers in a spectrum: starts by population, sticks of the mixture, populations in dynamics."""

import csv

import ase.io
import numpy as np
import pytest
from ase.build import molecule

import painn_fast as pf
from painn_fast.md import Trajectory
from painn_fast.spectra import SpectrumSettings, run
from painn_fast.spectra.conformers import TorsionPopulations, allotted, as_before, write_minima
from painn_fast.vibrations import anharmonic, conformers, sticks
from painn_fast.vibrations.torsions import angles

SHORT = {
    "model": "ethanol", "method": "classical", "trajectories": 3, "time_step": "1 fs", "equilibration": "0 fs",
    "duration": "80 fs", "depth": "40 fs",
}  # fmt: skip


def rows(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


@pytest.fixture(scope="module")
def ethanol():
    return conformers(pf.load("ethanol"), molecule("CH3CH2OH"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spectrum") / "out"
    return folder, run(SpectrumSettings(**SHORT, output=str(folder)))


@pytest.mark.parametrize(
    ("populations", "trajectories", "expected"),
    [([0.68, 0.32], 12, [8, 4]), ([0.68, 0.32], 1, [1, 0]), ([0.95, 0.05], 4, [3, 1]),
     ([0.9, 0.09, 0.01], 2, [1, 1, 0]),
     ([0.9, 0.0995, 0.0005], 10, [9, 1, 0]), ([1.0], 3, [3])],
)  # fmt: skip
def test_trajectories_start_by_population_one_each_at_least(populations, trajectories, expected):
    assert allotted(np.array(populations), trajectories).tolist() == expected


def test_trajectories_start_in_trans_and_gauche(finished, ethanol):
    trajectory = Trajectory(finished[0] / "dynamics")
    started = np.abs(angles(trajectory.positions[0].mean(axis=1), list(ethanol.torsions))[:, 0])
    assert sorted(round(float(angle), -1) for angle in started) == [60.0, 60.0, 180.0]
    table = {row["conformer"]: row for row in rows(finished[0] / "conformers.csv")}
    assert {name: row["trajectories started"] for name, row in table.items()} == {"gauche": "2", "trans": "1"}
    assert float(table["gauche"]["population in dynamics"]) == pytest.approx(2 / 3)


def test_minima_of_all_conformers_are_kept(finished):
    frames = ase.io.read(finished[0] / "harmonic.xyz", index=":")
    assert [(frame.info["conformer"], frame.info["trajectories"]) for frame in frames] == [("gauche", 2), ("trans", 1)]


def test_sticks_are_of_the_mixture(finished, ethanol):
    folder, result = finished
    lines, listed = result.harmonic, conformers(pf.load("ethanol"), molecule("CH3CH2OH"), quantum=False)
    assert len(lines.wavenumber) == 42
    assert (np.diff(lines.wavenumber) >= 0).all()
    for k, one in enumerate(listed.members):
        own = lines.conformer == k
        assert lines.conformers[k][0] == one.name
        assert lines.intensity[own] == pytest.approx(one.population * one.lines.intensity, rel=2e-2, abs=0.05)
        assert lines.activity[own] == pytest.approx(one.population * one.lines.activity, rel=2e-2, abs=0.05)
    table = rows(folder / "harmonic.csv")
    assert sorted({row["conformer"] for row in table}) == ["gauche", "trans"]
    assert float(table[0]["population"]) + float(table[1]["population"]) == pytest.approx(1.0, abs=1e-6)
    assert {row["its conformer"] for row in rows(folder / "peaks.csv")} <= {"gauche", "trans", ""}


def test_the_picture_has_a_colour_for_each_conformer(finished):
    picture = (finished[0] / "spectrum.svg").read_text(encoding="utf-8")
    assert "harmonic, gauche 64%" in picture
    assert "harmonic, trans 36%" in picture


@pytest.mark.slow
def test_anharmonic_sticks_of_the_mixture(finished, ethanol):
    """Each conformer's own lines, infrared intensities times its population; Raman ones of fundamentals alone."""
    folder, result = finished
    chosen = {"sticks": "anharmonic", "output": str(folder.parent / "anharmonic")}
    settings = SpectrumSettings(model="ethanol", trajectory=str(folder / "dynamics"), depth="40 fs", method="classical",
                                **chosen)  # fmt: skip
    drawn = run(settings).sticks
    assert result.sticks.kind == "harmonic"
    assert drawn.kind == "anharmonic"
    assert drawn.conformers == result.harmonic.conformers
    shares = dict(drawn.conformers)
    table = rows(folder.parent / "anharmonic" / "anharmonic.csv")
    for k, one in enumerate(ethanol.members):
        own = sticks(anharmonic(pf.load("ethanol"), one.atoms, lines=one.lines))
        chosen = drawn.conformer == k
        np.testing.assert_allclose(drawn.wavenumber[chosen], own.wavenumber, atol=0.5)
        np.testing.assert_allclose(drawn.intensity[chosen], shares[one.name] * own.intensity, rtol=0.1, atol=0.05)
        written = [row for row in table if row["conformer"] == one.name]
        assert [row["line"] for row in written] == list(own.labels)
        assert all(bool(row["Raman activity / (Ang^4/amu)"]) == (row["kind"] == "fundamental") for row in written)
    picture = (folder.parent / "anharmonic" / "spectrum.svg").read_text()
    assert all(f"anharmonic, {one.name}" in picture for one in ethanol.members)


def test_no_sticks_on_request(finished):
    folder, _ = finished
    settings = SpectrumSettings(model="ethanol", trajectory=str(folder / "dynamics"), depth="40 fs", sticks="none",
                                method="classical", output=str(folder.parent / "none"))  # fmt: skip
    assert run(settings).sticks is None
    assert "harmonic" not in (folder.parent / "none" / "spectrum.svg").read_text()
    assert (folder.parent / "none" / "harmonic.csv").exists()


def test_torsions_that_did_not_equilibrate_are_reported_everywhere(finished, tmp_path, capsys):
    folder, result = finished
    assert not result.torsions.equilibrated
    assert result.torsions.changes == 0.0
    again = run(SpectrumSettings(**SHORT, output=str(folder)), resume=True)
    assert "warning: torsions are not equilibrated: gauche 100% of the time" in capsys.readouterr().err
    assert again.torsions.dynamics.tolist() == result.torsions.dynamics.tolist()
    for name in ("infrared.csv", "peaks.csv", "conformers.csv", "spectrum.svg"):
        assert "torsions NOT equilibrated" in (folder / name).read_text(encoding="utf-8"), name


def test_one_conformer_on_request(tmp_path):
    result = run(SpectrumSettings(**SHORT, conformers="one", output=str(tmp_path / "out")))
    assert len(result.harmonic.wavenumber) == 21
    assert result.torsions is None
    assert not (tmp_path / "out" / "conformers.csv").exists()
    assert "positions" not in Trajectory(tmp_path / "out" / "dynamics").names


def test_conformers_that_are_given(tmp_path, ethanol):
    write_minima(tmp_path / "given.xyz", ethanol, 2)
    settings = SpectrumSettings(
        **SHORT, structure=str(tmp_path / "given.xyz"), conformers="given", output=str(tmp_path / "out")
    )
    result = run(settings)
    assert [name for name, _ in result.harmonic.conformers] == ["gauche", "trans"]


def test_a_resumed_run_starts_from_the_minima_of_its_file(tmp_path, ethanol):
    write_minima(tmp_path / "harmonic.xyz", ethanol, 2)
    kept = ase.io.read(tmp_path / "harmonic.xyz", index=":")
    again = as_before(conformers(pf.load("ethanol"), molecule("CH3CH2OH")), tmp_path / "harmonic.xyz")
    assert all(
        np.array_equal(one.atoms.positions, frame.positions) for one, frame in zip(again.members, kept, strict=True)
    )


def visits(stay, frames, trajectories, start, seed=0):
    """A chain of two states with equal populations that is left with the probability 1 - stay."""
    random = np.random.default_rng(seed)
    states = [np.arange(trajectories) % 2 if start is None else np.full(trajectories, start)]
    for _ in range(frames - 1):
        states.append(np.where(random.random(trajectories) < stay, states[-1], 1 - states[-1]))
    return np.array(states)


def test_equilibrated_torsions_raise_no_doubt():
    doubts = [
        TorsionPopulations(("a", "b"), np.full(2, 0.5), visits(0.9, 500, 12, None, seed)).doubts for seed in range(20)
    ]
    assert sum(map(bool, doubts)) <= 2, doubts


@pytest.mark.parametrize(
    ("stay", "frames", "start", "expected", "words"),
    [(1.0, 100, None, 0.5, "where it was the start"), (0.999, 100, None, 0.5, "where it was the start"),
     (0.99, 200, 1, 0.5, "in the first half"), (0.5, 400, None, 0.8, "by free energy")],
)  # fmt: skip
def test_each_doubt(stay, frames, start, expected, words):
    found = TorsionPopulations(("a", "b"), np.array([expected, 1 - expected]), visits(stay, frames, 24, start))
    assert any(words in doubt for doubt in found.doubts), found.doubts
    assert "NOT equilibrated" in str(found)


def test_errors_are_those_over_trajectories():
    seen = np.array([[0, 0, 1, 1], [0, 1, 1, 1]])
    found = TorsionPopulations(("a", "b"), np.full(2, 0.5), seen)
    shares = np.array([1.0, 0.5, 0.0, 0.0])
    assert found.dynamics.tolist() == [0.375, 0.625]
    assert found.error[0] == pytest.approx(shares.std(ddof=1) / 2)
    assert found.changes == 0.25
