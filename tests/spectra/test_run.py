"""From a model to files, small."""

import csv
import re
import shutil
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
from ase.build import molecule

from painn_fast import PaiNNFastError
from painn_fast.md import MDSettings, Trajectory
from painn_fast.md import run as run_dynamics
from painn_fast.settings import load_settings
from painn_fast.spectra import Analysis, SpectrumSettings, analyse, infrared, raman, run
from painn_fast.spectra.run import molecule_of
from painn_fast.testing import assert_close

SHORT = {
    "model": "ethanol", "beads": 2, "trajectories": 2, "time_step": "1 fs", "equilibration": "10 fs",
    "duration": "60 fs", "depth": "40 fs", "dipole_every": "1 fs",
}  # fmt: skip
FILES = [
    "conformers.csv",
    "harmonic.csv", "harmonic.xyz", "infrared.csv", "peaks.csv", "raman.csv", "settings.toml", "spectrum.png",
    "spectrum.svg",
]  # fmt: skip


def comments(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line[2:].split(": ", 1) for line in lines if line.startswith("#"))


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spectrum") / "out"
    return folder, run(SpectrumSettings(**SHORT, output=str(folder)))


@pytest.fixture
def copy(finished, tmp_path):
    """The finished run in a folder that may be changed."""
    shutil.copytree(finished[0], tmp_path / "out")
    return tmp_path / "out"


def test_everything_is_written(finished):
    folder, result = finished
    assert result.folder == folder
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == FILES
    assert Trajectory(folder / "dynamics").dipole.shape == (61, 2, 3)
    assert ase.io.read(folder / "harmonic.xyz").get_chemical_formula() == "C2H6O"


def test_harmonic_lines_have_method_steps_and_roughness_in_their_header(finished):
    header = comments(finished[0] / "harmonic.csv")
    assert header["derivatives"] == "central differences over 0.01 and 0.02 Å, h^2 term removed"
    largest, mean = re.match(r"([\d.]+) cm-1 at most, ([\d.]+) cm-1 in the mean", header["roughness"]).groups()
    assert float(largest) == pytest.approx(finished[1].harmonic.roughness.largest, abs=0.006)
    assert float(mean) == pytest.approx(finished[1].harmonic.roughness.mean, abs=0.006)


def test_an_analytic_harmonic_spectrum_is_a_setting(copy, finished):
    result = run(SpectrumSettings(**SHORT | {"hessian": "analytic", "output": str(copy)}), resume=True)
    header = comments(copy / "harmonic.csv")
    assert header["derivatives"] == "analytic at the minimum"
    assert header["roughness"] == comments(finished[0] / "harmonic.csv")["roughness"]
    ours, before = (np.sort(one.wavenumber[one.conformer == 0]) for one in (result.harmonic, finished[1].harmonic))
    theirs = [np.sort(one.wavenumber[one.conformer == 1]) for one in (result.harmonic, finished[1].harmonic)]
    largest = max(np.abs(ours - before).max(), np.abs(theirs[0] - theirs[1]).max())
    assert largest == pytest.approx(result.harmonic.roughness.largest)
    with pytest.raises(PaiNNFastError, match="hessian"):
        SpectrumSettings.parse({"model": "ethanol", "hessian": "numeric"}, where="spectrum")


def test_tables_have_the_conditions_of_the_run_in_their_header(finished):
    header = comments(finished[0] / "infrared.csv")
    assert header["method"] == "T-RPMD"
    assert header["beads"] == "2"
    assert header["temperature"] == "300 K"
    assert header["sampling"] == "2 trajectories of 0.06 ps, 0.12 ps in all"
    assert "Nyquist 16678 cm-1" in header["frames"]
    assert header["window"] == "gaussian, correlation depth 0.04 ps"
    assert header["resolution"].startswith("1094")
    assert header["model"] == "ethanol"
    assert len(header["model sha256"]) == 64
    assert comments(finished[0] / "raman.csv")["laser"] == "532 nm"


def test_spectra_are_those_of_the_trajectory(finished):
    folder, result = finished
    trajectory, analysis = Trajectory(folder / "dynamics"), result.infrared.analysis
    assert analysis.time_step == 1.0
    expected = infrared(trajectory.dipole.swapaxes(0, 1), 1.0, 300.0, analysis)
    assert_close(result.infrared.intensity, expected.intensity, 1e-12)
    scattered = raman(trajectory.polarizability.swapaxes(0, 1), 2.0, 300.0, analysis)
    assert_close(result.raman.activity, scattered.activity, 1e-12)
    with open(folder / "infrared.csv", encoding="utf-8") as file:
        rows = list(csv.reader(line for line in file if not line.startswith("#")))
    assert_close([float(row[1]) for row in rows[1:]], expected.intensity, 1e-6)


def test_settings_are_written_as_they_were(finished):
    written = load_settings(SpectrumSettings, finished[0] / "settings.toml")
    assert written == SpectrumSettings(**SHORT, output=str(finished[0]))


def test_nothing_is_overwritten_unasked(finished):
    before = files(finished[0])
    with pytest.raises(PaiNNFastError, match=r"holds a spectrum already.*--resume.*--overwrite"):
        run(SpectrumSettings(**SHORT, output=str(finished[0])))
    assert files(finished[0]) == before


def test_resume_analyses_a_finished_run_anew(copy, finished, capsys):
    moved = SpectrumSettings(**SHORT | {"window": "hann", "output": str(copy)})
    result = run(moved, resume=True)
    assert result.infrared.analysis.window == "hann"
    assert comments(copy / "infrared.csv")["window"].startswith("hann")
    got, expected = (Trajectory(folder / "dynamics").dipole for folder in (copy, finished[0]))
    assert np.array_equal(got, expected)
    printed = capsys.readouterr()
    assert "peaks" in printed.out
    assert "harmonic spectrum" in printed.err
    assert "roughness: " in printed.err
    assert "O-H stretch" in printed.err


def test_resume_of_a_longer_run_goes_on(copy, finished):
    run(SpectrumSettings(**SHORT | {"duration": "70 fs", "output": str(copy)}), resume=True)
    dipole = Trajectory(copy / "dynamics").dipole
    assert dipole.shape == (71, 2, 3)
    assert np.array_equal(dipole[:61], Trajectory(finished[0] / "dynamics").dipole)


def test_spectrum_of_a_finished_trajectory(finished, tmp_path):
    folder, result = finished
    settings = SpectrumSettings(trajectory=str(folder / "dynamics"), depth="40 fs", output=str(tmp_path / "again"))
    again = run(settings)
    assert np.array_equal(again.infrared.intensity, result.infrared.intensity)
    assert again.harmonic is None, "no model was named"
    assert not (tmp_path / "again" / "dynamics").exists()
    named = run(settings.model_copy(update={"model": "ethanol"}), overwrite=True)
    assert np.array_equal(named.raman.activity, result.raman.activity)
    assert named.harmonic is not None


def test_classical_run_has_one_bead_and_may_be_corrected(tmp_path):
    settings = SpectrumSettings(
        **{key: value for key, value in SHORT.items() if key != "beads"},
        method="classical", quantum_correction="standard", output=str(tmp_path / "out"),
    )  # fmt: skip
    assert settings.beads == 1
    run(settings)
    header = comments(tmp_path / "out" / "infrared.csv")
    assert (header["method"], header["quantum correction"]) == ("classical NVE", "standard")


def test_without_matplotlib_the_tables_are_written(tmp_path, finished, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run(SpectrumSettings(trajectory=str(finished[0] / "dynamics"), depth="40 fs", output=str(tmp_path / "out")))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "infrared.csv", "peaks.csv", "raman.csv", "settings.toml",
    ]  # fmt: skip
    assert "no matplotlib" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": "2 ps"}, "depth must be below duration"),
        ({"dipole_every": "8 fs"}, r"dipole_every of 8 fs resolves nothing above 2085 cm-1"),
        ({"dipole_every": "1.5 fs"}, "not a multiple of time_step"),
        ({"method": "classical", "beads": 4}, "nve is classical"),
        ({"quantum_correction": "standard"}, "for classical runs, not t-rpmd"),
        ({"window": "hamming"}, "window.*gaussian"),
        ({"laser": "532"}, "missing unit of wavelength"),
        ({"temperature": "-3 K"}, "temperature must be positive"),
        ({"temprature": "300 K"}, "unknown key 'temprature', did you mean 'temperature'"),
    ],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(PaiNNFastError, match=message):
        SpectrumSettings.parse(SHORT | change)


def test_invalid_inputs_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.xyz").write_text("no structure")
    (tmp_path / "si.xyz").write_text("2\n\nSi 0 0 0\nH 0 0 1.5\n")
    before = files(tmp_path)
    for change, message in (
        ({"model": ""}, "no model"),
        ({"model": "etanol"}, "no such model"),
        ({"structure": "bad.xyz"}, "not a readable structure file"),
        ({"structure": "si.xyz"}, "element"),
        ({"trajectory": "nowhere"}, "no trajectory here"),
    ):
        with pytest.raises(PaiNNFastError, match=message):
            run(SpectrumSettings(**SHORT | change))
    assert files(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_trajectories_that_guards_stopped_are_left_out(finished):
    """Their rows are NaN from the step on in which they exceeded a limit."""
    whole = Trajectory(finished[0] / "dynamics")
    three = {
        name: np.concatenate([getattr(whole, name), getattr(whole, name)[:, :1]], 1)
        for name in ("dipole", "polarizability")
    }
    for series in three.values():
        series[30:, 2] = np.nan
    stopped = SimpleNamespace(
        read=three.get, names=("dipole", "polarizability"), alive=np.array([True, True, False]), temperature=300.0,
        beads=2, interval=whole.interval, time_step=1.0,
    )  # fmt: skip
    settings = SpectrumSettings(**SHORT)
    assert np.array_equal(analyse(stopped, settings).infrared.intensity, analyse(whole, settings).infrared.intensity)
    stopped.alive = np.zeros(3, dtype=bool)
    stopped.path = "run"
    with pytest.raises(PaiNNFastError, match="no guard stopped"):
        analyse(stopped, settings)


@pytest.mark.slow
def test_bands_of_ethanol_stand_where_they_should(tmp_path):
    """The default run: O-H stretch at 3650 to 3850, C-H stretches at 2830 to 3080, C-O and C-C at 1000 to 1150 cm-1."""
    result = run(SpectrumSettings(model="ethanol", output=str(tmp_path / "out")))
    for peaks in (result.infrared_peaks, result.raman_peaks):
        found = {name: [p.position for p in peaks if p.name == name] for name in {p.name for p in peaks}}
        assert all(3650 < position < 3850 for position in found["O-H stretch"])
        assert all(2830 < position < 3080 for position in found["C-H stretch"])
        skeleton = [p for name in ("C-O stretch", "C-C stretch", "C-O/C-C stretch") for p in found.get(name, [])]
        assert any(1000 < position < 1150 for position in skeleton)


def test_trajectory_without_dipoles_is_refused(tmp_path):
    settings = MDSettings(model="ethanol", duration="4 fs", positions_every="1 fs", output=str(tmp_path / "run"))
    run_dynamics(settings)
    with pytest.raises(PaiNNFastError, match=r"no series.*dipole_every"):
        run(SpectrumSettings(trajectory=str(tmp_path / "run"), output=str(tmp_path / "out")))
    assert not (tmp_path / "out" / "infrared.csv").exists()


def test_lines_are_of_the_molecule_that_moved(tmp_path):
    """CD3OH at 500 K by a model of ethanol: its isotopes, its temperature, and classical statistics."""
    heavy = molecule("CH3OH")
    masses = heavy.get_masses()
    carbon = next(k for k, symbol in enumerate(heavy.symbols) if symbol == "C")
    methyl = [k for k in range(6) if heavy.symbols[k] == "H" and heavy.get_distance(k, carbon) < 1.2]
    masses[methyl] = 2.014
    heavy.set_masses(masses)
    values = {"model": "ethanol", "temperature": "500 K", "time_step": "1 fs", "duration": "60 fs"}
    run_dynamics(MDSettings(**values, dipole_every="2 fs", output=str(tmp_path / "run")), atoms=heavy)
    given = {"model": "ethanol", "trajectory": str(tmp_path / "run"), "depth": "40 fs", "sticks": "none"}
    result = run(SpectrumSettings(**given, output=str(tmp_path / "out")))
    np.testing.assert_array_equal(result.harmonic.atoms.get_masses(), masses)
    stretches = result.harmonic.wavenumber[-4:]
    assert len(result.harmonic.wavenumber) == 12
    assert (stretches[:3] < 2400).all(), "C-D"
    assert stretches[3] > 3000, "O-H"
    written = load_settings(SpectrumSettings, tmp_path / "out" / "settings.toml")
    assert (written.temperature, written.method, written.beads, written.time_step) == (500.0, "classical", 1, 1.0)
    assert "trajectories" not in ase.io.read(tmp_path / "out" / "harmonic.xyz").info, "none was started"


def test_a_structure_gets_the_isotopes_and_the_charge_of_a_trajectory(tmp_path):
    ion = molecule("CH3OH")
    ion.set_masses(ion.get_masses() + 1.0)
    ion.info["charge"] = 1
    path = run_dynamics(MDSettings(model="ethanol", duration="2 fs", output=str(tmp_path / "run")), atoms=ion)
    settings = SpectrumSettings(model="ethanol", trajectory=str(path))
    (one,) = molecule_of(Trajectory(path), [molecule("CH3OH")], settings)
    np.testing.assert_array_equal(one.get_masses(), ion.get_masses())
    assert one.info == {"charge": 1}
    with pytest.raises(PaiNNFastError, match=r"another molecule than the trajectory; .*got: C-C-O-.*expected: C-O-H"):
        molecule_of(Trajectory(path), [molecule("CH3CH2OH")], settings)


def test_positions_keep_their_interval_when_a_run_becomes_longer():
    began, longer = (
        SpectrumSettings(model="ethanol", duration=time).dynamics(positions=True) for time in ("4 ps", "40 ps")
    )
    before = began.with_positions()
    assert before.positions_every > 0
    assert longer.with_positions(before.model_dump(mode="json")).positions_every == before.positions_every
    assert SpectrumSettings(model="ethanol").dynamics(positions=False).positions_every == 0.0


@pytest.mark.parametrize("highest", ["0.5 cm-1", "9 cm-1"])
def test_a_spectrum_of_nothing_is_refused(highest):
    with pytest.raises(PaiNNFastError, match=r"highest must be at least 10 cm-1"):
        SpectrumSettings(model="ethanol", highest=highest)
    series = np.random.default_rng(0).normal(size=(2, 200, 3))
    analysis = Analysis(depth=100.0, highest=float(highest.split()[0]))
    with pytest.raises(PaiNNFastError, match="too narrow a spectrum; where: highest"):
        infrared(series, 2.0, 300.0, analysis)
