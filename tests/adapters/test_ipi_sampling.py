"""i-PI's PIMD on our forces and our own PILE-L sample one distribution: ethanol, 8 beads, 300 K, BAOAB at 0.5 fs.

i-PI's default, OBABO, has another error of the time step, which the long test sees: for harmonic ethanol its
centroid-virial kinetic energy is 9.5 meV larger.
"""

import numpy as np
import pytest

from painn_fast.adapters.ipi_client import Address
from painn_fast.md import MDSettings, Trajectory, run

BEADS = 8
NAMES = ("potential", "kinetic_virial")
LEAST_BLOCKS = 16


@pytest.fixture
def ipi(start, serve, port):
    """Potential and centroid-virial kinetic energy of i-PI's trajectory by socket [T, 2] eV, every 0.5 fs."""

    def sample(steps: int, tau: float) -> np.ndarray:
        forcefield = f"<ffsocket name='painn' mode='inet'><address>localhost</address><port>{port}</port></ffsocket>"
        other = start(forcefield, beads=BEADS, steps=steps, tau=tau)
        client = serve(Address(port=port), BEADS, patience=5.0)
        other.finish()
        assert client.batches[BEADS] >= 0.99 * client.batches.total()  # a machine that stalls may split one
        return other.energies

    return sample


def ours(folder, trajectories: int, steps: int, tau: float) -> np.ndarray:
    """The same of our trajectories [S, T, 2] eV; they start as i-PI's does."""
    values = {"model": "ethanol", "ensemble": "pile-l", "beads": BEADS, "temperature": "300 K", "output": str(folder)}
    values |= {"trajectories": trajectories, "tau": f"{tau} fs", "time_step": "0.5 fs", "energies_every": "0.5 fs"}
    run(MDSettings.parse({**values, "duration": f"{0.5 * steps} fs", "start": "collapsed"}))
    energies = Trajectory(folder).energies
    return np.stack([energies[name].T for name in NAMES], axis=-1)


def mean_and_error(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error of series [S, T, 2]: the largest error of means over blocks of 1, 2, 4, ... records."""
    errors, length = [], 1
    while series.shape[0] * (series.shape[1] // length) >= LEAST_BLOCKS:
        count = series.shape[1] // length
        blocks = series[:, : count * length].reshape(-1, length, 2).mean(axis=1)
        errors.append(blocks.std(axis=0, ddof=1) / len(blocks) ** 0.5)
        length *= 2
    return series.mean(axis=(0, 1)), np.max(errors, axis=0)


def test_errors_are_those_of_correlated_numbers():
    rng = np.random.default_rng(0)
    decay, (trajectories, records) = 0.95, (4, 40000)
    noise = rng.normal(size=(records, trajectories, 2)) * (1 - decay**2) ** 0.5
    series = [rng.normal(size=(trajectories, 2))]
    for kick in noise:
        series.append(decay * series[-1] + kick)
    _, error = mean_and_error(np.array(series).swapaxes(0, 1))
    exact = ((1 + decay) / (1 - decay) / (trajectories * records)) ** 0.5
    assert np.all((0.8 * exact < error) & (error < 2.0 * exact)), f"{error}, exact {exact}"


def test_a_short_trajectory_of_ipi_is_like_ours(ipi, tmp_path):
    """Its means differ from ours by no more than those of our own trajectories do."""
    steps, skip, trajectories, tau = 240, 60, 10, 20.0
    theirs = ipi(steps, tau)[skip:].mean(axis=0)
    means = ours(tmp_path / "ours", trajectories, steps, tau)[:, skip:].mean(axis=1)
    error = means.std(axis=0, ddof=1) * (1 + 1 / trajectories) ** 0.5
    away = (theirs - means.mean(axis=0)) / error
    assert np.abs(away).max() < 4.0, f"i-PI {theirs} eV, ours {means.mean(axis=0)} eV, {away} standard errors away"


@pytest.mark.slow
def test_ipi_and_our_pile_l_agree_within_three_standard_errors(ipi, tmp_path):
    tau, skip = 100.0, 2000  # 1 ps
    theirs, their_error = mean_and_error(ipi(skip + 40000, tau)[None, skip:])
    own, own_error = mean_and_error(ours(tmp_path / "ours", 16, skip + 4000, tau)[:, skip:])
    away = (theirs - own) / np.hypot(their_error, own_error)
    for k, name in enumerate(NAMES):
        print(
            f"{name}: i-PI {theirs[k]:.4f} ± {their_error[k]:.4f} eV, ours {own[k]:.4f} ± {own_error[k]:.4f} eV, "
            f"{away[k]:+.2f} standard errors"
        )
    assert np.abs(away).max() < 3.0, away
