from dataclasses import replace

import numpy as np
import pytest

from painn_fast.spectra import Analysis, InfraredSpectrum, fit_shift, infrared_peaks, raman_peaks
from painn_fast.spectra.peaks import Shift
from painn_fast.spectra.raman import RamanSpectrum, stokes_factor

NU = np.arange(0.0, 4000.5, 1.0)


def gaussians(*lines):
    """Sum of Gaussians (position, area, FWHM)."""
    total = np.zeros_like(NU)
    for position, area, width in lines:
        sigma = width / 2.3548
        total += area / (sigma * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((NU - position) / sigma) ** 2)
    return total


def spectrum(*lines, error=0.0):
    return InfraredSpectrum(NU, gaussians(*lines), np.full_like(NU, error), Analysis(), 2.0, 300.0)


def raman_spectrum(isotropic, anisotropic):
    a, g = gaussians(*isotropic), gaussians(*anisotropic)
    activity = 45 * a + 7 * g
    stokes = stokes_factor(NU, 300.0, 532.0) / 45 * activity
    return RamanSpectrum(NU, a, g, activity, 0 * NU, stokes, 0 * NU, Analysis(), 2.0, 300.0, 532.0)


def test_position_area_and_width_of_separate_peaks():
    lines = [(500.3, 20.0, 30.0), (1700.6, 80.0, 50.0), (3300.0, 40.0, 60.0)]
    found = infrared_peaks(spectrum(*lines))
    assert len(found) == 3
    for peak, (position, area, width) in zip(found, lines, strict=True):
        assert peak.position == pytest.approx(position, abs=0.1)
        assert peak.intensity == pytest.approx(area, rel=0.01)
        assert peak.width == pytest.approx(width, abs=1.0)
        assert peak.height == pytest.approx(area / (width / 2.3548 * np.sqrt(2 * np.pi)), rel=1e-3)
        assert (peak.name, peak.mode, peak.harmonic) == ("unassigned", None, None)


def test_overlapping_peaks_share_what_is_there():
    found = infrared_peaks(spectrum((1000.0, 50.0, 40.0), (1070.0, 50.0, 40.0)))
    assert [round(peak.position) for peak in found] == [1000, 1070]
    assert found[0].high == found[1].low == pytest.approx(1035, abs=1)
    assert sum(peak.intensity for peak in found) == pytest.approx(100.0, rel=0.01)


def test_noise_is_no_peak():
    rng = np.random.default_rng(0)
    ripple = 0.02 * np.sin(NU / 30.0) + 0.005 * rng.normal(size=len(NU))
    noisy = spectrum((1500.0, 80.0, 60.0), error=0.05)
    found = infrared_peaks(replace(noisy, intensity=noisy.intensity + ripple))
    assert [round(peak.position, -1) for peak in found] == [1500]


def test_rotation_does_not_hide_vibrations():
    found = infrared_peaks(spectrum((60.0, 5000.0, 60.0), (1500.0, 30.0, 50.0)))
    assert [round(peak.position) for peak in found] == [60, 1500]


def test_a_flat_spectrum_has_no_peaks():
    assert infrared_peaks(spectrum()) == []


@pytest.mark.parametrize("shift", [Shift(0.0, 0.0), Shift(0.01, 0.04), Shift(0.03, 0.02)])
def test_shift_of_harmonic_lines_is_found(ethanol_modes, shift):
    lines = list(zip(shift(ethanol_modes.wavenumber), ethanol_modes.intensity, np.full(21, 50.0), strict=True))
    found = fit_shift(ethanol_modes, spectrum(*lines))
    assert found(ethanol_modes.wavenumber) == pytest.approx(shift(ethanol_modes.wavenumber), abs=20)


def test_peaks_of_a_red_shifted_spectrum_are_named(ethanol_modes):
    """4 to 5 % below harmonic at the top, 2 % in the fingerprint region."""
    shift = Shift(0.015, 0.03)
    nu = shift(ethanol_modes.wavenumber)
    ir = spectrum(*zip(nu, ethanol_modes.intensity, 0.015 * nu + 15.0, strict=True))
    found = infrared_peaks(ir, ethanol_modes, fit_shift(ethanol_modes, ir))
    by_name = {}
    for peak in found:
        by_name.setdefault(peak.name, []).append(peak.position)
    assert "unassigned" not in by_name
    assert by_name["O-H stretch"] == pytest.approx([nu[-1]], abs=10)
    assert all(2780 < position < 3100 for position in by_name["C-H stretch"])
    named = {
        name: places for name, places in by_name.items() if name in ("C-O stretch", "C-C stretch", "C-O/C-C stretch")
    }
    assert any(950 < place < 1150 for places in named.values() for place in places)
    top = max(found, key=lambda peak: peak.position)
    assert top.mode == 21
    assert top.harmonic == pytest.approx(ethanol_modes.wavenumber[-1])


def test_a_peak_where_no_mode_is_stays_unassigned(ethanol_modes):
    ir = spectrum((2200.0, 30.0, 40.0), (3700.0, 50.0, 60.0))
    found = infrared_peaks(ir, ethanol_modes, Shift(0.02, 0.03))
    assert [peak.name for peak in found] == ["unassigned", "O-H stretch"]


def test_what_lies_below_all_modes_is_rotation(ethanol_modes):
    found = infrared_peaks(spectrum((70.0, 300.0, 60.0), (3700.0, 50.0, 60.0)), ethanol_modes, Shift(0.02, 0.03))
    assert [peak.name for peak in found] == ["rotation", "O-H stretch"]


def test_raman_peaks_carry_activity_and_depolarisation():
    rm = raman_spectrum([(1000.0, 0.5, 40.0), (2900.0, 2.0, 60.0)], [(2000.0, 1.0, 50.0), (2900.0, 1.0, 60.0)])
    breathing, shear, both = raman_peaks(rm)
    assert breathing.intensity == pytest.approx(22.5, rel=0.01)
    assert shear.intensity == pytest.approx(7.0, rel=0.01)
    assert both.intensity == pytest.approx(97.0, rel=0.01)
    assert breathing.depolarisation == pytest.approx(0.0, abs=1e-3)
    assert shear.depolarisation == pytest.approx(0.75, abs=1e-3)
    assert both.depolarisation == pytest.approx(3 / (90 + 4), rel=0.01)
    assert breathing.name == "unassigned"
