"""Several methods, small, from a model to one picture."""

import csv
import sys

import numpy as np
import pytest

from painn_fast import PaiNNFastError
from painn_fast.md import Trajectory
from painn_fast.settings import load_settings
from painn_fast.spectra import SpectrumSettings, compare, run
from painn_fast.vibrations import Conformer, Conformers

SHORT = {
    "model": "ethanol", "beads": 2, "trajectories": 2, "time_step": "1 fs", "equilibration": "10 fs",
    "duration": "60 fs", "depth": "40 fs", "dipole_every": "1 fs", "method": "classical, rpmd",
    "quantum_correction": "standard",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _lines(ethanol_modes):
    """The harmonic spectrum is the same every time."""
    alone = Conformers(
        (Conformer("trans", ethanol_modes, 0.0, 0.0, 1.0, 1, 1, np.zeros((1, 0))),), (), 300.0, quantum=True
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["painn_fast.spectra.compare"], "harmonic_lines", lambda *_, **__: alone)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    overlay = folder / "measured.csv"
    overlay.write_text("\n".join(f"{nu},{1 + (nu % 700) / 700}" for nu in range(500, 3900, 100)))
    settings = SpectrumSettings(**SHORT, output=str(folder / "out"), overlay=(str(overlay),))
    return settings, compare(settings)


def test_each_method_has_a_folder_and_all_have_a_picture(finished):
    settings, result = finished
    folder = settings.folder
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "classical", "rpmd", "comparison.csv", "comparison.png", "comparison.svg", "harmonic.csv", "harmonic.xyz",
        "settings.toml",
    }  # fmt: skip
    assert list(result.results) == ["classical NVE", "RPMD, 2 beads"]
    assert [Trajectory(folder / name / "dynamics").beads for name in ("classical", "rpmd")] == [1, 2]
    assert (folder / "classical" / "spectrum.png").exists()
    picture = (folder / "comparison.svg").read_text()
    for text in ("classical NVE", "RPMD, 2 beads", "measured (scaled)", "harmonic (axis on the right)"):
        assert text in picture, text
    assert "measured" not in (folder / "rpmd" / "spectrum.svg").read_text()


def test_settings_can_be_used_again(finished):
    settings, _ = finished
    assert load_settings(SpectrumSettings, settings.folder / "settings.toml") == settings
    one = load_settings(SpectrumSettings, settings.folder / "rpmd" / "settings.toml")
    assert (one.method, one.methods, one.beads, one.quantum_correction) == ("rpmd", (), 2, "harmonic")
    one = load_settings(SpectrumSettings, settings.folder / "classical" / "settings.toml")
    assert (one.method, one.beads, one.quantum_correction) == ("classical", 1, "standard")


def test_table_of_bands(finished):
    settings, result = finished
    lines = (settings.folder / "comparison.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert len(rows) == len(result.bands)
    assert {"infrared", "Raman"} == {row["spectrum"] for row in rows}
    for row in rows:
        shift = float(row["RPMD, 2 beads: centre / cm-1"]) - float(row["harmonic / cm-1"])
        assert float(row["RPMD, 2 beads: shift / cm-1"]) == pytest.approx(shift, abs=1e-2)


def test_resume_adds_a_method(finished, capsys, monkeypatch):
    """Another window, and a method more; finished dynamics stay. It needs no matplotlib."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    settings, _ = finished
    before = (settings.folder / "rpmd" / "dynamics" / "trajectory.h5").read_bytes()
    more = SpectrumSettings(**SHORT | {"method": ["t-rpmd", "rpmd"], "quantum_correction": "harmonic", "window": "hann",
                                       "output": str(settings.folder)})  # fmt: skip
    result = compare(more, resume=True)
    assert list(result.results) == ["T-RPMD, 2 beads", "RPMD, 2 beads"]
    assert (settings.folder / "rpmd" / "dynamics" / "trajectory.h5").read_bytes() == before
    assert "O-H stretch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "classical,rpmd,classical"}, "a method twice"),
        ({"method": "classical,rpdm"}, "methods.1.*rpdm"),
        ({"method": ["rpmd", "t-rpmd"]}, "quantum_correction standard is for classical runs"),
        ({"trajectory": "run"}, "either a finished trajectory"),
        ({"depth": "70 fs"}, "depth must be below duration"),
    ],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(PaiNNFastError, match=message):
        SpectrumSettings.parse(SHORT | change)


def test_one_method_is_no_comparison():
    one = SpectrumSettings(**SHORT | {"method": ["rpmd"], "quantum_correction": "harmonic"})
    assert (one.method, one.methods, one.beads) == ("rpmd", (), 2)
    classical = SpectrumSettings(model="ethanol", method="classical")
    assert (classical.method, classical.methods, classical.beads) == ("classical", (), 1)
    with pytest.raises(PaiNNFastError, match="nothing to compare"):
        compare(one)
    with pytest.raises(PaiNNFastError, match=r"several methods; got: classical, rpmd"):
        run(SpectrumSettings(**SHORT))


def test_broken_overlays_are_found_before_anything_is_run(tmp_path):
    settings = SpectrumSettings(**SHORT, output=str(tmp_path / "out"), overlay=("nowhere.csv",))
    with pytest.raises(PaiNNFastError, match="cannot read an overlay"):
        compare(settings)
    assert not (tmp_path / "out").exists()
