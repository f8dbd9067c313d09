import numpy as np
import pytest
from scipy import constants

from painn_fast import PaiNNFastError
from painn_fast.spectra import Analysis, infrared
from painn_fast.spectra.infrared import DECADIC
from painn_fast.spectra.quantum import quantum_correction
from painn_fast.units import DEBYE
from painn_fast.vibrations.harmonic import KM_PER_MOL

SLOPES = np.array([[0.3, 0.0, 0.0], [0.0, 0.1, -0.2], [0.5, 0.5, 0.5]])  # d mu / dQ, e / sqrt(amu)
WAVENUMBERS = [400.0, 1200.0, 3700.0]


@pytest.fixture
def dipole(normal_coordinates, rng):
    """Makes a series of dipoles of three modes."""

    def make(*, trajectories=2, steps=40000, temperature=300.0, thermal=False):
        times = 2.0 * np.arange(steps)
        q = normal_coordinates(WAVENUMBERS, trajectories, times, temperature, rng, thermal=thermal)
        return np.array([1.0, -2.0, 3.0]) + q @ SLOPES

    return make


def test_constant_is_that_of_nature():
    """N_A / (12 eps0 c^2) in km/mol per (D/Å)^2/amu, from CODATA."""
    debye = 1e-21 / constants.c  # C m
    per_unit = (debye / 1e-10) ** 2 / constants.atomic_mass
    value = constants.N_A / (12 * constants.epsilon_0 * constants.c**2) * per_unit / 1e3
    assert value == pytest.approx(42.2561, abs=1e-4)
    assert pytest.approx(value, rel=1e-5) == KM_PER_MOL * DEBYE**2


@pytest.mark.parametrize("temperature", [50.0, 300.0, 1000.0])
@pytest.mark.parametrize("window", ["gaussian", "hann", "blackman"])
def test_bands_integrate_to_double_harmonic_intensities(dipole, temperature, window):
    spectrum = infrared(dipole(temperature=temperature), 2.0, temperature, Analysis(window, 2000.0))
    for nu, slope in zip(WAVENUMBERS, SLOPES, strict=True):
        expected = 42.2561 * (slope @ slope) / DEBYE**2
        assert spectrum.integral(nu - 250, nu + 250) == pytest.approx(expected, rel=0.01), f"{nu} cm-1"


def test_peaks_stand_at_their_wavenumbers(dipole):
    spectrum = infrared(dipole(), 2.0, 300.0, Analysis(depth=2000.0))
    for nu in WAVENUMBERS:
        near = np.abs(spectrum.wavenumber - nu) < 100
        top = spectrum.wavenumber[near][spectrum.intensity[near].argmax()]
        assert top == pytest.approx(nu, abs=1.5)


def test_thermal_trajectories_agree_within_their_errors(dipole):
    spectrum = infrared(dipole(trajectories=200, steps=1500, thermal=True), 2.0, 300.0, Analysis(depth=1000.0))
    for nu, slope in zip(WAVENUMBERS, SLOPES, strict=True):
        at = int(np.abs(spectrum.wavenumber - nu).argmin())
        sharp = infrared(dipole(), 2.0, 300.0, Analysis(depth=1000.0)).intensity[at]
        assert abs(spectrum.intensity[at] - sharp) < 4 * spectrum.error[at]
        assert 0.04 < spectrum.error[at] / spectrum.intensity[at] < 0.12, "1 / sqrt(200), energies being exponential"
        assert spectrum.integral(nu - 200, nu + 200) == pytest.approx(KM_PER_MOL * slope @ slope, rel=0.35)


def test_absorption_coefficient_of_a_known_unit():
    """ln(10) epsilon c l = N sigma l: 1 km/mol per cm-1 is 1e5 cm^2/mol, 100 L/(mol cm) to the base e."""
    assert pytest.approx(1e3 * 1e4 / 100 / 1e3 / np.log(10)) == DECADIC  # km -> m, m^2 -> cm^2, m-1, cm^3 -> L


@pytest.mark.parametrize("name", ["harmonic", "standard", "schofield", "mixed"])
def test_quantum_correction_keeps_detailed_balance_and_the_classical_limit(name):
    """Q(nu) = factor x / (1 - exp(-x)) obeys Q(-nu) = exp(-x) Q(nu), and Q(0) = 1."""
    nu = np.linspace(50.0, 4000.0, 80)
    x = constants.h * constants.c * 100 * nu / (constants.k * 300.0)
    factor = quantum_correction(name, nu, 300.0)
    named = {
        "harmonic": lambda x: x / (1 - np.exp(-x)),
        "standard": lambda x: 2 / (1 + np.exp(-x)),
        "schofield": lambda x: np.exp(x / 2),
        "mixed": lambda x: np.sqrt(x / (1 - np.exp(-x))) * np.exp(x / 4),
    }
    whole = named[name](x)
    assert named[name](-x) == pytest.approx(np.exp(-x) * whole)
    assert factor * x / (1 - np.exp(-x)) == pytest.approx(whole, rel=1e-5)
    assert quantum_correction(name, np.zeros(1), 300.0) == pytest.approx(1.0)


def test_named_correction_scales_the_spectrum(dipole):
    series = dipole(steps=3000)
    plain = infrared(series, 2.0, 300.0)
    standard = infrared(series, 2.0, 300.0, correction="standard")
    factor = quantum_correction("standard", plain.wavenumber, 300.0)
    assert standard.intensity == pytest.approx(factor * plain.intensity)
    assert standard.error == pytest.approx(factor * plain.error)
    with pytest.raises(PaiNNFastError, match=r"unknown quantum correction.*'none'.*schofield"):
        infrared(series, 2.0, 300.0, correction="none")


@pytest.mark.parametrize("shape", [(100, 3), (2, 100, 4), (2, 100, 3, 3)])
def test_series_of_another_shape_is_refused(shape):
    with pytest.raises(PaiNNFastError, match=r"not a series of dipoles.*\[S, T, 3\]"):
        infrared(np.zeros(shape), 1.0, 300.0)
