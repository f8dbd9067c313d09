import csv

import numpy as np
import pytest

from painn_fast.spectra import Analysis, infrared, raman, table
from painn_fast.spectra.peaks import Peak


def read(path):
    """Comments as a dictionary, rows as dictionaries."""
    lines = path.read_text(encoding="utf-8").splitlines()
    about = dict(line[2:].split(": ", 1) for line in lines if line.startswith("#"))
    return about, list(csv.DictReader(line for line in lines if not line.startswith("#")))


@pytest.fixture
def series(rng):
    return rng.normal(size=(3, 600, 3)), rng.normal(size=(3, 600, 3, 3))


def test_infrared_table_has_units_and_what_was_computed(tmp_path, series):
    spectrum = infrared(series[0], 2.0, 300.0, Analysis(depth=500.0))
    table.write_infrared(tmp_path / "ir.csv", spectrum, {"temperature": "300 K", "window": "gaussian\nby name"})
    about, rows = read(tmp_path / "ir.csv")
    assert about == {"temperature": "300 K", "window": "gaussian by name"}
    columns = list(rows[0])
    assert columns[:3] == [
        "wavenumber / cm-1",
        "absorption / (km/mol per cm-1)",
        "standard error / (km/mol per cm-1)",
    ]
    got = np.array([[float(row[column]) for column in columns[:3]] for row in rows])
    assert got == pytest.approx(np.stack([spectrum.wavenumber, spectrum.intensity, spectrum.error], 1), rel=1e-6)


def test_raman_table_has_units_and_empty_cells_where_nothing_is_known(tmp_path, series):
    spectrum = raman(series[1], 2.0, 300.0, Analysis(depth=500.0))
    table.write_raman(tmp_path / "raman.csv", spectrum, {})
    _, rows = read(tmp_path / "raman.csv")
    assert all("cm" in column or "amu" in column for column in rows[0] if column != "depolarisation ratio")
    assert rows[0]["Stokes cross-section / (1e-30 cm2/sr per cm-1)"] == ""
    got = [float(row["activity / (Ang^4/amu per cm-1)"]) for row in rows]
    assert got == pytest.approx(spectrum.activity, rel=1e-6)


def test_harmonic_table(tmp_path, ethanol_modes):
    table.write_harmonic(tmp_path / "harmonic.csv", ethanol_modes, {"model": "ethanol"})
    _, rows = read(tmp_path / "harmonic.csv")
    assert list(rows[0]) == [
        "mode",
        "wavenumber / cm-1",
        "IR intensity / (km/mol)",
        "Raman activity / (Ang^4/amu)",
        "depolarisation ratio",
        "motion",
    ]
    assert [int(row["mode"]) for row in rows] == list(range(1, 22))
    assert rows[-1]["motion"] == "O-H stretch"
    assert [float(row["IR intensity / (km/mol)"]) for row in rows] == pytest.approx(ethanol_modes.intensity, rel=1e-6)


def test_peak_table(tmp_path):
    ir = Peak(3700.0, 1.0, 0.1, 50.0, 40.0, 3600.0, 3800.0, "O-H stretch", 21, 3908.0)
    rm = Peak(2900.0, 0.1, 0.01, 200.0, 60.0, 2800.0, 3000.0, depolarisation=0.1)
    table.write_peaks(tmp_path / "peaks.csv", [ir], [rm], {})
    _, (first, second) = read(tmp_path / "peaks.csv")
    assert (first["spectrum"], second["spectrum"]) == ("infrared", "Raman")
    assert (first["position / cm-1"], first["motion"], first["unit of intensity"]) == ("3700", "O-H stretch", "km/mol")
    assert (second["unit of intensity"], second["nearest harmonic mode"]) == ("Ang^4/amu", "")
    assert float(second["depolarisation ratio"]) == 0.1


def test_a_table_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("precious")
    with pytest.raises(ValueError):
        table.write_table(path, {"a": [1, 2], "b": [1]}, {})
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]
