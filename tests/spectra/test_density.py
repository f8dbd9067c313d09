import numpy as np
import pytest
from scipy.integrate import trapezoid

from painn_fast import PaiNNFastError
from painn_fast.spectra import Analysis
from painn_fast.spectra.density import (
    correlate,
    cosine_transform,
    nyquist,
    spectral_density,
    standard_error,
)
from painn_fast.spectra.window import line_shape
from painn_fast.testing import assert_close, rotated
from painn_fast.units import AMU_A2_PER_FS2, KB


def mode_density(series, interval, temperature, analysis):
    return spectral_density(correlate(series, interval, analysis), temperature, analysis)


def test_components_are_summed_before_anything_else(normal_coordinates, rng):
    """A strong and a weak component: normalising each would make them equal."""
    q = normal_coordinates([1000.0, 2000.0], 1, 2.0 * np.arange(20000), 300.0, rng, thermal=False)
    series = np.stack([10.0 * q[..., 0], q[..., 1], 0 * q[..., 0]], axis=-1)
    density = mode_density(series, 2.0, 300.0, Analysis(depth=2000.0))
    nu, values = density.wavenumber, density.mean
    strong, weak = (trapezoid(values[abs(nu - x) < 200], nu[abs(nu - x) < 200]) for x in (1000, 2000))
    assert strong / weak == pytest.approx(100.0, rel=5e-3)


@pytest.mark.parametrize("window", ["gaussian", "hann", "blackman"])
@pytest.mark.parametrize("interval", [0.5, 1.0, 2.0, 4.0])
def test_a_mode_gives_its_line_whatever_the_sampling_and_the_window(normal_coordinates, window, interval, rng):
    """|dx/dQ|^2 = 9 at 3600 cm-1; at 4 fs that is 86 % of the Nyquist wavenumber."""
    q = normal_coordinates([3600.0], 2, np.arange(0, 60000.0, interval), 300.0, rng, thermal=False)
    analysis = Analysis(window, 1000.0, 4000.0)
    density = mode_density(3.0 * q, interval, 300.0, analysis)
    expected = 9.0 * line_shape(window, analysis.depth, density.wavenumber - 3600.0)
    assert_close(density.blocks.mean(0), expected, 1e-2)
    assert trapezoid(density.blocks.mean(0), density.wavenumber) == pytest.approx(9.0, rel=5e-3)


def test_rotating_the_laboratory_changes_nothing(rng, ethanol):
    _, rotation = rotated(ethanol)
    series = rng.normal(size=(2, 300, 3))
    tensor = rng.normal(size=(2, 300, 3, 3))
    turned = np.einsum("ai,bj,stij->stab", rotation, rotation, tensor)
    analysis = Analysis(depth=100.0)
    assert_close(
        mode_density(series @ rotation.T, 1.0, 300.0, analysis).blocks,
        mode_density(series, 1.0, 300.0, analysis).blocks,
        1e-12,
    )
    assert_close(
        mode_density(turned, 1.0, 300.0, analysis).blocks, mode_density(tensor, 1.0, 300.0, analysis).blocks, 1e-12
    )


def test_a_constant_adds_nothing(rng):
    series = rng.normal(size=(2, 300, 3))
    analysis = Analysis(depth=100.0)
    with_constant = mode_density(series + 1e4, 1.0, 300.0, analysis).blocks
    assert_close(with_constant, mode_density(series, 1.0, 300.0, analysis).blocks, 1e-9)


def test_cosine_transform_of_a_gaussian_is_a_gaussian():
    """Integral of exp(-t^2/2s^2) cos(omega t) over all t = s sqrt(2 pi) exp(-omega^2 s^2 / 2)."""
    width, interval = 20.0, 1.0
    time = np.arange(400) * interval
    nu, transform = cosine_transform(np.exp(-0.5 * (time / width) ** 2)[None], interval, 3000.0)
    omega = 2 * np.pi * 2.99792458e-5 * nu
    assert_close(transform[0], width * np.sqrt(2 * np.pi) * np.exp(-0.5 * (omega * width) ** 2), 1e-9)
    assert nu[0] == 0
    assert nu[-1] <= 3000
    assert nu[1] - nu[0] <= 1.0


def mean_and_error(blocks, weights):
    mean = weights @ blocks
    return mean, standard_error(mean, blocks, weights)


def test_error_is_the_scatter_of_the_mean(rng):
    """Over 400 repetitions the stated error of 8 blocks is what the means scatter by."""
    weights = np.full(8, 1 / 8)
    means, errors = zip(*(mean_and_error(rng.normal(3.0, 2.0, size=(8, 5)), weights) for _ in range(400)), strict=True)
    assert np.std(means, axis=0) == pytest.approx(2.0 / np.sqrt(8), rel=0.12)
    assert np.mean(np.square(errors), axis=0) == pytest.approx(4.0 / 8, rel=0.12)


def test_error_of_blocks_of_unequal_length(rng):
    """Blocks of 10, 10, 10 and 2 numbers: the mean is that of all 32, and so is its error."""
    sizes = np.array([10, 10, 10, 2])
    weights = sizes / sizes.sum()
    errors = []
    for _ in range(2000):
        blocks = np.array([rng.normal(size=(size, 3)).mean(axis=0) for size in sizes])
        errors.append(mean_and_error(blocks, weights)[1])
    assert np.mean(np.square(errors), axis=0) == pytest.approx(1 / 32, rel=0.08)


def test_one_block_has_no_error():
    assert np.isnan(standard_error(np.ones(5), np.ones((1, 5)), np.ones(1))).all()


def test_error_of_thermal_trajectories_covers_the_truth(normal_coordinates, rng):
    """Integrated intensities of 40 runs of 16 trajectories: deviations over errors have a variance near one."""
    deviations = []
    for _ in range(40):
        q = normal_coordinates([1500.0], 16, 2.0 * np.arange(700), 300.0, rng)
        density = mode_density(q, 2.0, 300.0, Analysis(depth=500.0))
        whole, parts = (trapezoid(y, density.wavenumber) for y in (density.mean, density.blocks))
        error = standard_error(np.array([whole]), parts[:, None], density.weights)[0]
        deviations.append((whole - 1.0) / error)
    assert 0.5 < np.mean(np.square(deviations)) < 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"series": np.full((2, 300, 3), np.nan)}, "not finite.*trajectory 0, frame 0"),
        ({"series": np.zeros((0, 300, 3))}, "not a series"),
        ({"series": np.zeros(300)}, "not a series"),
        ({"series": np.zeros((2, 80, 3))}, "correlation depth.*100 fs.*8 to 79 fs.*depth lower"),
        ({"interval": -1.0}, "interval must be positive"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"interval": 5.0}, "exceeds the Nyquist limit of the frames.*3336 cm-1.*record more often"),
        ({"analysis": Analysis(depth=4.0)}, "correlation depth"),
        ({"analysis": Analysis("kaiser", 100.0)}, "unknown window"),
    ],
)
def test_invalid_input_is_refused(change, message):
    given = {"series": np.zeros((2, 300, 3)), "interval": 1.0, "temperature": 300.0, "analysis": Analysis(depth=100.0)}
    with pytest.raises(PaiNNFastError, match=message):
        mode_density(**(given | change))


def test_nyquist():
    assert nyquist(2.0) == pytest.approx(8339.1, abs=0.1)


def verlet(wavenumber, time_step, steps):
    """Positions and velocities [1, T, 1] of a harmonic mode by velocity Verlet, with kB T of energy on the average."""
    omega = 2 * np.pi * 2.99792458e-5 * wavenumber
    variance = KB * 300.0 / AMU_A2_PER_FS2 / omega**2
    x, v = np.sqrt(2 * variance), 0.0
    found = []
    for _ in range(steps):
        found.append((x, v))
        v -= 0.5 * time_step * omega**2 * x
        x += time_step * v
        v -= 0.5 * time_step * omega**2 * x
    return np.array(found).T[:, None, :, None]


@pytest.mark.parametrize("time_step", [0.25, 0.5, 1.0, 1.5])
def test_the_effect_of_the_time_step_on_a_mode_is_corrected(time_step):
    """At 1 fs 3700 cm-1 appear at 3778 cm-1, and carry 4 % too much."""
    positions, velocities = verlet(3700.0, time_step, round(40000 / time_step))
    analysis = Analysis("hann", 1000.0, 4000.0, time_step)
    for series, differences in ((positions, True), (velocities, False)):
        density = spectral_density(correlate(series, time_step, analysis, differences=differences), 300.0, analysis)
        assert density.wavenumber[density.mean.argmax()] == pytest.approx(3700.0, abs=1.0)
        assert trapezoid(density.mean, density.wavenumber) == pytest.approx(1.0, rel=2e-3)
    assert analysis.shown(np.array(3700.0)) - 3700.0 == pytest.approx(78 * time_step**2, rel=0.15)


def test_a_mode_that_the_time_step_puts_beyond_the_frames_is_refused(rng):
    series = rng.normal(size=(2, 600, 3))
    with pytest.raises(PaiNNFastError, match=r"exceeds the Nyquist limit of the frames.*at most 4063 cm-1"):
        mode_density(series, 4.0, 300.0, Analysis(depth=800.0, highest=4100.0, time_step=1.0))
