import numpy as np
import pytest
from scipy import constants
from scipy.spatial.transform import Rotation

from painn_fast import PaiNNFastError
from painn_fast.spectra import Analysis, raman
from painn_fast.spectra.raman import invariants, stokes_factor
from painn_fast.testing import assert_close
from painn_fast.vibrations.harmonic import depolarisation_ratio

SLOPES = np.array(  # d alpha / dQ, Å^2 / sqrt(amu): a sphere that breathes, a pure deviator, one of both
    [
        np.diag([0.7, 0.7, 0.7]),
        [[0.3, 0.2, 0.0], [0.2, -0.3, 0.1], [0.0, 0.1, 0.0]],
        [[0.9, 0.1, 0.0], [0.1, 0.2, 0.3], [0.0, 0.3, 0.4]],
    ]
)
WAVENUMBERS = [600.0, 1500.0, 3000.0]


def gamma_squared(t):
    """Long's expression, component by component."""
    return 0.5 * ((t[0, 0] - t[1, 1]) ** 2 + (t[1, 1] - t[2, 2]) ** 2 + (t[2, 2] - t[0, 0]) ** 2) + 3 * (
        t[0, 1] ** 2 + t[1, 2] ** 2 + t[2, 0] ** 2
    )


def activity(t):
    return 45 * (np.trace(t) / 3) ** 2 + 7 * gamma_squared(t)


@pytest.fixture(scope="module")
def spectrum(normal_coordinates):
    rng = np.random.default_rng(3)
    q = normal_coordinates(WAVENUMBERS, 2, 2.0 * np.arange(40000), 300.0, rng, thermal=False)
    alpha = 5.0 * np.eye(3) + np.einsum("stk,kij->stij", q, SLOPES)
    return raman(alpha, 2.0, 300.0, Analysis(depth=2000.0))


def test_bands_integrate_to_activities(spectrum):
    for nu, slope in zip(WAVENUMBERS, SLOPES, strict=True):
        assert spectrum.integral(nu - 300, nu + 300) == pytest.approx(activity(slope), rel=0.01), f"{nu} cm-1"


def test_activity_is_the_mean_of_its_blocks_and_their_scatter_its_error(spectrum):
    assert_close(spectrum.weights @ spectrum.blocks, spectrum.activity, 1e-9)
    assert_close(spectrum.error, 0.5 * np.abs(spectrum.blocks[0] - spectrum.blocks[1]), 1e-9)  # of two trajectories


def test_depolarisation_of_bands(spectrum):
    ratios = [spectrum.integrated_depolarisation(nu - 100, nu + 100) for nu in WAVENUMBERS]
    g = gamma_squared(SLOPES[2])
    assert ratios[0] == pytest.approx(0.0, abs=0.01)
    assert ratios[1] == pytest.approx(0.75, abs=0.01)
    assert ratios[2] == pytest.approx(3 * g / (45 * 0.5**2 + 4 * g), rel=0.01)


def test_depolarisation_ratio_stays_between_zero_and_three_quarters(spectrum, rng):
    ratio = spectrum.depolarisation[np.isfinite(spectrum.depolarisation)]
    assert ((ratio >= 0) & (ratio <= 0.75)).all()
    noisy = depolarisation_ratio(rng.normal(size=1000), rng.normal(size=1000))
    assert (np.isnan(noisy) | ((noisy >= 0) & (noisy <= 0.75))).all()
    assert np.isnan(depolarisation_ratio(np.zeros(1), np.zeros(1))).all()


def test_parallel_and_perpendicular_make_the_whole(spectrum):
    inside = spectrum.wavenumber > 50
    assert_close((spectrum.parallel + spectrum.perpendicular)[inside], spectrum.stokes[inside], 1e-12)


def test_invariants_are_averages_over_orientations(rng):
    """<alpha_zz^2> = (45 a^2 + 4 gamma^2) / 45 and <alpha_xz^2> = gamma^2 / 15 over 200,000 random orientations."""
    turn = Rotation.random(200_000, rng=rng).as_matrix()
    for slope in SLOPES:
        mean, deviator = invariants(slope)
        a2, g2 = float(mean @ mean), float(deviator @ deviator)
        zz = np.einsum("ni,ij,nj->n", turn[:, 2], slope, turn[:, 2])
        xz = np.einsum("ni,ij,nj->n", turn[:, 0], slope, turn[:, 2])
        assert (zz**2).mean() == pytest.approx(a2 + 4 * g2 / 45, rel=0.01)
        assert (xz**2).mean() == pytest.approx(g2 / 15, rel=0.02, abs=1e-12)
        assert g2 == pytest.approx(gamma_squared(slope), abs=1e-14)


@pytest.mark.parametrize("temperature", [77.0, 300.0, 900.0])
@pytest.mark.parametrize("laser", [355.0, 532.0, 1064.0])
@pytest.mark.parametrize("nu", [100.0, 1000.0, 3700.0])
def test_stokes_factor_in_si_units(nu, laser, temperature):
    """pi^2 / eps0^2 (nu0 - nu)^4 h / (8 pi^2 c nu) / (1 - exp(-h c nu / k T)), Long (5.3.8) and tables, in SI."""
    c, h = constants.c, constants.h
    slope = (
        4 * np.pi * constants.epsilon_0 * 1e-20 / np.sqrt(constants.atomic_mass)
    )  # C m^2/V/(m kg^1/2) of 1 Å^2/amu^1/2
    shift = 100 * nu
    light = (1 / (laser * 1e-9) - shift) ** 4
    thermal = 1 / (1 - np.exp(-h * c * shift / (constants.k * temperature)))
    expected = np.pi**2 / constants.epsilon_0**2 * light * h / (8 * np.pi**2 * c * shift) * slope**2 * thermal  # m^2/sr
    got = stokes_factor(np.array([nu]), temperature, laser)[0] * 1e-34
    assert got == pytest.approx(expected, rel=1e-5)


def test_absolute_cross_section_of_nitrogen():
    """a' = 1.86 Å^2, gamma' = 2.2 Å^2 along the bond, mass 7.00 amu: 4.3(3)e-31 cm^2/sr at 514.5 nm, measured."""
    scattered = stokes_factor(np.array([2330.7]), 293.0, 514.5)[0] * (1.86**2 + 7 / 45 * 2.2**2) / 7.0015
    assert 0.40 < scattered < 0.70


def test_intensity_has_the_factors_of_laser_and_temperature(rng):
    alpha = rng.normal(size=(2, 1200, 3, 3))
    green, red = (raman(alpha, 2.0, 300.0, laser=laser) for laser in (532.0, 785.0))
    inside = green.wavenumber > 50
    light = ((1e7 / 532 - green.wavenumber) / (1e7 / 785 - green.wavenumber)) ** 4
    assert_close((green.stokes / red.stokes)[inside], light[inside], 1e-9)
    assert np.array_equal(green.activity, red.activity)
    assert np.isnan(green.stokes[green.wavenumber < 10]).all()
    assert np.isfinite(green.stokes[inside]).all()


def test_stokes_side_of_a_band_at_two_temperatures():
    """The ratio of n + 1 at 200 cm-1: 1 / (1 - exp(-200 / 0.695035 T))."""
    factor = [stokes_factor(np.array([200.0]), T, 532.0)[0] for T in (150.0, 600.0)]
    expected = (1 - np.exp(-200 / (0.69503480 * 150))) / (1 - np.exp(-200 / (0.69503480 * 600)))
    assert factor[1] / factor[0] == pytest.approx(expected, rel=1e-5)


def test_antisymmetric_part_does_not_scatter(rng):
    alpha = rng.normal(size=(1, 1200, 3, 3))
    symmetric = 0.5 * (alpha + alpha.swapaxes(2, 3))
    assert_close(raman(alpha, 2.0, 300.0).activity, raman(symmetric, 2.0, 300.0).activity, 1e-12)


def test_broken_input_is_refused(rng):
    alpha = rng.normal(size=(1, 1200, 3, 3))
    with pytest.raises(PaiNNFastError, match=r"not a series of polarizabilities.*\[S, T, 3, 3\]"):
        raman(alpha[0], 2.0, 300.0)
    with pytest.raises(PaiNNFastError, match=r"laser cannot excite.*3000 nm.*below 2500 nm"):
        raman(alpha, 2.0, 300.0, laser=3000.0)
    with pytest.raises(PaiNNFastError, match="not finite"):
        raman(np.where(alpha > 2, np.nan, alpha), 2.0, 300.0)
