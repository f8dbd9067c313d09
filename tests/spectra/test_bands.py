"""Bands whose positions are known, found by each method's own lines."""

from types import SimpleNamespace

import numpy as np
import pytest

from painn_fast.spectra import Analysis, InfraredSpectrum, compare_bands, infrared, table
from painn_fast.spectra.bands import _groups

NU = np.arange(0.0, 4000.5, 1.0)


def spectrum(positions, areas, width=50.0):
    sigma = width / 2.3548
    lines = np.exp(-0.5 * ((NU[:, None] - positions) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    return InfraredSpectrum(NU, lines @ areas, 0 * NU, Analysis(), 2.0, 300.0)


def test_bands_are_found_where_each_method_has_them(ethanol_modes):
    nu, areas = ethanol_modes.wavenumber, ethanol_modes.intensity
    methods = {"classical": nu - 0.01 * nu, "RPMD": nu - 0.02 * nu - 0.02 * nu**2 / 4000.0}
    found = compare_bands(ethanol_modes, {label: (spectrum(at, areas), None) for label, at in methods.items()})
    assert {band.spectrum for band in found} == {"infrared"}
    assert [band.harmonic for band in found] == sorted(band.harmonic for band in found)
    stretches = {band.name: band for band in found if band.name in ("O-H stretch", "C-H stretch")}
    assert stretches["O-H stretch"].modes == (21,)
    assert stretches["C-H stretch"].modes == (16, 17, 18, 19, 20)
    for band in stretches.values():
        members = np.array(band.modes) - 1
        assert band.intensity == pytest.approx(areas[members].sum())
        assert band.harmonic == pytest.approx(np.average(nu[members], weights=areas[members]))
        for label, at in methods.items():
            position = band.positions[label]
            assert position.centre == pytest.approx(np.average(at[members], weights=areas[members]), abs=6)
            assert position.intensity == pytest.approx(areas[members].sum(), rel=0.05)
            assert np.isnan(position.error), "no blocks"
    oh = stretches["O-H stretch"].positions
    assert oh["classical"].peak == pytest.approx(methods["classical"][20], abs=1)
    assert oh["RPMD"].peak == pytest.approx(methods["RPMD"][20], abs=1)


def test_a_window_holds_a_band_that_is_wide_and_skewed():
    """As the O-H stretch of T-RPMD is; the centre is that of the whole band, wherever the fit puts the line."""
    nu, areas = np.array([1500.0, 3889.0]), np.array([30.0, 30.0])
    modes = SimpleNamespace(wavenumber=nu, intensity=areas, activity=None, names=("a", "b"))
    narrow = spectrum([1460.0], [30.0]).intensity
    wide = spectrum([3785.0], [18.0], 120.0).intensity + spectrum([3685.0], [12.0], 190.0).intensity
    found = compare_bands(modes, {"x": (InfraredSpectrum(NU, narrow + wide, 0 * NU, Analysis(), 2.0, 300.0), None)})
    position = found[-1].positions["x"]
    assert position.centre == pytest.approx(3745.0, abs=7)  # tails below a twentieth of the height do not count
    assert position.intensity == pytest.approx(30.0, rel=0.03)


def test_error_of_a_centre_is_what_it_scatters_by(ethanol_modes, normal_coordinates):
    """Trajectories whose O-H stretch is at another wavenumber each, 24 of them, 30 runs."""
    rng = np.random.default_rng(2)
    modes = SimpleNamespace(
        wavenumber=np.array([1500.0, 3700.0]), intensity=np.array([30.0, 50.0]), activity=None, names=("a", "b")
    )
    centres, errors = [], []
    for _ in range(30):
        parts = [
            normal_coordinates([1500.0, 3700.0 + rng.normal(scale=15.0)], 1, 2.0 * np.arange(700), 300.0, rng)
            for _ in range(24)
        ]
        dipole = np.concatenate(parts) @ np.array([[0.1, 0, 0], [0, 0.2, 0]])
        (_, band) = compare_bands(modes, {"x": (infrared(dipole, 2.0, 300.0, Analysis(depth=800.0)), None)})
        centres.append(band.positions["x"].centre)
        errors.append(band.positions["x"].error)
    assert np.mean(centres) == pytest.approx(3700.0, abs=3)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(centres), rel=0.4)


def test_modes_of_one_name_are_one_band_if_nothing_is_between():
    modes = SimpleNamespace(
        wavenumber=np.array([100.0, 900.0, 1000.0, 1050.0, 1100.0, 1120.0, 1400.0]),
        names=("torsion", "bend", "bend", "stretch", "bend", "stretch", "bend"),
    )
    weights = np.array([50.0, 10.0, 10.0, 20.0, 10.0, 0.01, 10.0])
    assert [group.tolist() for group in _groups(modes, weights)] == [[1, 2], [3], [4], [6]]


def test_comparison_table(tmp_path, ethanol_modes):
    one = spectrum(0.97 * ethanol_modes.wavenumber, ethanol_modes.intensity)
    bands = compare_bands(ethanol_modes, {"classical": (one, None), "RPMD, 8 beads": (one, None)})
    table.write_comparison(tmp_path / "c.csv", bands, {"model": "ethanol"})
    lines = (tmp_path / "c.csv").read_text().splitlines()
    assert lines[0] == "# model: ethanol"
    assert "RPMD, 8 beads: shift / cm-1" in lines[1]
    last = lines[-1].split(",")
    assert (last[0], last[1], last[2]) == ("infrared", "O-H stretch", "21")
    assert float(last[8]) == pytest.approx(-0.03 * ethanol_modes.wavenumber[-1], abs=2)
