"""The bundled ethanol model conserves energy: in float32, as it runs, and in float64, as well as a step allows."""

import numpy as np
import pytest

from painn_fast.io import bundled
from painn_fast.md import MDSettings, Trajectory, run

pytestmark = pytest.mark.skipif("ethanol" not in bundled(), reason="no bundled model")


def energies(folder, **changes):
    """Times [T] ps and total energies per atom [T, S] meV of NVE at 300 K."""
    values = {"model": "ethanol", "output": str(folder), "ensemble": "nve", "temperature": "300 K", "tau": "50 fs"}
    run(MDSettings.parse({**values, "time_step": "0.5 fs", "energies_every": "2 fs", **changes}))
    trajectory = Trajectory(folder)
    assert trajectory.alive.all()
    kelvin = trajectory.energies["temperature"].mean()
    assert 150 < kelvin < 450, f"{kelvin} K is no test at 300 K"
    total = trajectory.energies["conserved"]
    np.testing.assert_allclose(total, trajectory.energies["kinetic"] + trajectory.energies["potential"], rtol=1e-12)
    return trajectory.times("energies") / 1000, total / len(trajectory.system.masses) * 1000


def test_energy_has_no_slope_over_half_a_picosecond(tmp_path):
    """Over so short a time energy that wanders between stretches and the rest, dt^2 of it, looks like a slope."""
    picoseconds, total = energies(tmp_path, trajectories=4, equilibration="0.1 ps", duration="0.5 ps")
    slope = np.polyfit(picoseconds, total, 1)[0]
    assert total.std(0).max() < 0.5, f"fluctuation {total.std(0)} meV/atom"
    assert abs(slope.mean()) < 0.2, f"slopes {slope} meV/atom/ps"


def test_fluctuation_of_the_energy_scales_as_the_square_of_the_time_step(tmp_path):
    """From the same start, so that both see the same motion."""
    same = {"dtype": "float64", "trajectories": 2, "equilibration": "0 fs", "duration": "100 fs", "seed": 1}
    steps = {"time_step": "0.5 fs", "energies_every": "0.5 fs"}, {"time_step": "0.25 fs", "energies_every": "0.5 fs"}
    long, short = (energies(tmp_path / str(k), **same, **step)[1].std(0) for k, step in enumerate(steps))
    np.testing.assert_allclose(long / short, 4.0, rtol=0.05, err_msg=f"{long} and {short} meV/atom")


@pytest.mark.slow
def test_energy_in_float64_has_no_slope(tmp_path):
    """With a step so short that energy wandering between motions does not hide it."""
    times = {"time_step": "0.1 fs", "equilibration": "0.1 ps", "duration": "3 ps"}
    picoseconds, total = energies(tmp_path, dtype="float64", trajectories=4, seed=1, **times)
    slope = np.polyfit(picoseconds, total, 1)[0] / 1000
    print(f"slopes {slope} eV/atom/ps")  # shown by -rP
    assert np.abs(slope).max() < 1e-6, f"slopes {slope} eV/atom/ps"


@pytest.mark.slow
def test_energy_has_no_slope_over_ten_picoseconds(tmp_path):
    picoseconds, total = energies(tmp_path, trajectories=8, equilibration="1 ps", duration="10 ps")
    slope = np.polyfit(picoseconds, total, 1)[0]
    assert abs(slope.mean()) < 1e-2, f"slopes {slope}, mean {slope.mean()} meV/atom/ps"
    assert np.abs(slope).max() < 4e-2, f"slopes {slope} meV/atom/ps"
