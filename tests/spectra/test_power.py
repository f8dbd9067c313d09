"""Power spectra of oscillators whose degrees of freedom are known."""

import numpy as np
import pytest
from scipy.integrate import trapezoid

from painn_fast import PaiNNFastError, md
from painn_fast.md import MDSettings, Trajectory
from painn_fast.spectra import Analysis, SpectrumSettings, analyse, power, run
from painn_fast.spectra.power import mass_weighted
from painn_fast.spectra.window import line_shape
from painn_fast.testing import assert_close
from painn_fast.units import AMU_A2_PER_FS2, KB, SPEED_OF_LIGHT

WAVENUMBERS = np.array([300.0, 900.0, 1100.0, 1700.0, 2500.0, 3600.0])
SYMBOLS = ["O", "H"]
MASSES = np.array([15.999, 1.008])


@pytest.fixture
def velocities(rng):
    """Of two atoms whose six mass-weighted coordinates mix six modes, each with kB T of energy: [S, T, 2, 3]."""
    omega = 2 * np.pi * SPEED_OF_LIGHT * WAVENUMBERS
    phase = rng.uniform(0, 2 * np.pi, size=(2, 6))
    times = 2.0 * np.arange(30000)
    speed = np.sqrt(2 * KB * 300.0 / AMU_A2_PER_FS2) * np.sin(omega * times[:, None] + phase[:, None])
    modes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    return (speed @ modes).reshape(2, -1, 2, 3) / np.sqrt(MASSES)[:, None], modes


@pytest.mark.parametrize("window", ["gaussian", "hann", "blackman"])
def test_every_mode_counts_one_and_all_of_them_3n(velocities, window):
    analysis = Analysis(window, 1500.0)
    spectrum = power(velocities[0], SYMBOLS, MASSES, 2.0, 300.0, analysis)
    expected = sum(line_shape(window, 1500.0, spectrum.wavenumber - nu) for nu in WAVENUMBERS)
    assert_close(spectrum.density, expected, 1e-2)
    for nu in WAVENUMBERS:
        assert spectrum.integral(nu - 90, nu + 90) == pytest.approx(1.0, rel=0.02)
    assert spectrum.integral(0, 4000) == pytest.approx(6.0, rel=5e-3)
    assert np.isfinite(spectrum.error).all()


def test_elements_have_their_shares_and_make_the_whole(velocities):
    series, modes = velocities
    spectrum = power(series, SYMBOLS, MASSES, 2.0, 300.0, Analysis(depth=1500.0))
    assert list(spectrum.elements) == ["H", "O"]
    assert_close(sum(spectrum.elements.values()), spectrum.density, 1e-12)
    share = (modes[:, :3] ** 2).sum(axis=1)  # of oxygen in each mode
    for nu, of_oxygen in zip(WAVENUMBERS, share, strict=True):
        inside = np.abs(spectrum.wavenumber - nu) < 90
        got = trapezoid(spectrum.elements["O"][inside], spectrum.wavenumber[inside])
        assert got == pytest.approx(of_oxygen, abs=0.02)


def test_temperature_scales_out(velocities):
    cold = power(velocities[0], SYMBOLS, MASSES, 2.0, 300.0)
    hot = power(np.sqrt(3.0) * velocities[0], SYMBOLS, MASSES, 2.0, 900.0)
    assert_close(hot.density, cold.density, 1e-10)


def test_weighted_velocities_keep_isotopes(rng):
    v = rng.normal(size=(5, 3, 3))
    parts = mass_weighted(v, ["H", "O", "H"], np.array([1.0, 16.0, 2.0]))
    assert list(parts) == ["H", "O"]
    assert parts["H"] == pytest.approx(v[:, [0, 2]] * np.sqrt([1.0, 2.0])[:, None])
    assert parts["O"] == pytest.approx(4.0 * v[:, [1]])


def test_broken_input_is_refused(velocities):
    with pytest.raises(PaiNNFastError, match=r"not a series of velocities.*\[S, T, 3, 3\]"):
        power(velocities[0], ["O", "H", "H"], np.ones(3), 2.0, 300.0)
    with pytest.raises(PaiNNFastError, match=r"exceeds the Nyquist limit of the frames.*velocities_every"):
        power(velocities[0], SYMBOLS, MASSES, 5.0, 300.0)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, water_on_springs):
    """Thermal water on springs, of 2 beads, with velocities."""
    settings = MDSettings(
        fragments="off",  # springs are no bonds
        ensemble="rpmd", beads=2, trajectories=128, duration="400 fs", equilibration="150 fs", tau="30 fs",
        velocities_every="2 fs", output=str(tmp_path_factory.mktemp("power") / "run"),
    )  # fmt: skip
    return Trajectory(md.run(settings, force_field=water_on_springs.force_field, atoms=water_on_springs.atoms))


def test_dynamics_of_ring_polymers_has_3n_less_the_centre_of_mass(recorded):
    """Centroids; statistics of 128 trajectories of 6 moving degrees of freedom."""
    result = analyse(recorded, SpectrumSettings(depth="300 fs", duration="400 fs", highest="5500 cm-1"))
    assert result.infrared is None
    assert result.power.integral(0, 5500) == pytest.approx(6.0, rel=0.1)
    assert list(result.power.elements) == ["H", "O"]


def test_verb_on_a_trajectory_with_velocities_alone(recorded, tmp_path):
    settings = SpectrumSettings(trajectory=str(recorded.path), depth="300 fs", output=str(tmp_path / "out"))
    result = run(settings)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "peaks.csv", "power.csv", "settings.toml", "spectrum.png", "spectrum.svg",
    ]  # fmt: skip
    lines = (tmp_path / "out" / "power.csv").read_text().splitlines()
    header = next(line for line in lines if not line.startswith("#")).split(",")
    assert header == [
        "wavenumber / cm-1", "power spectrum / (modes per cm-1)", "standard error / (modes per cm-1)",
        "H / (modes per cm-1)", "O / (modes per cm-1)",
    ]  # fmt: skip
    assert float(lines[-1].split(",")[1]) == pytest.approx(result.power.density[-1], rel=1e-6)
    picture = (tmp_path / "out" / "spectrum.svg").read_text()
    assert "power spectrum" in picture
    assert "infrared" not in picture
