"""Mean forces on centroids with a control variate, beside plain means over the beads."""

import ase
import numpy as np
import pytest
import torch

from painn_fast import md
from painn_fast.md import ForceField, MDSettings, Trajectory
from painn_fast.spectra.mean_force import mean_forces

TEMPERATURE = 600.0


class Morse(ForceField):
    """A bond like that of O-H: 4.6 eV deep, steepness 2.3 / Å, length 0.97 Å."""

    def __call__(self, positions):
        x = positions.detach().requires_grad_()
        stretch = (x[:, 1] - x[:, 0]).norm(dim=1) - 0.97
        energy = 4.6 * (1.0 - torch.exp(-2.3 * stretch)) ** 2
        (slope,) = torch.autograd.grad(energy.sum(), x)
        return energy.detach(), -slope


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Beads [n, P, 2, 3], forces on them, forces at the centroids, masses."""
    atoms = ase.Atoms("OH", positions=[[0, 0, 0], [0.97, 0, 0]])
    values = {"ensemble": "pile-l", "beads": 8, "trajectories": 32, "temperature": f"{TEMPERATURE} K", "tau": "20 fs"}
    values |= {"time_step": "1 fs", "equilibration": "100 fs", "duration": "400 fs", "positions_every": "8 fs"}
    values |= {"output": str(tmp_path_factory.mktemp("morse")), "fragments": "off"}
    beads = Trajectory(md.run(MDSettings.parse(values), force_field=Morse(), atoms=atoms)).positions
    beads = beads.reshape(-1, 8, 2, 3)
    forces = Morse()(torch.from_numpy(beads.reshape(-1, 2, 3)))[1].numpy().reshape(beads.shape)
    return beads, forces, Morse()(torch.from_numpy(beads.mean(axis=1)))[1].numpy(), atoms.get_masses()


def bond(beads, forces):
    """Length of the centroid's bond [n] and the force along it."""
    axis = beads.mean(axis=1)[:, 1] - beads.mean(axis=1)[:, 0]
    length = np.linalg.norm(axis, axis=1)
    return length, 0.5 * ((forces[:, 1] - forces[:, 0]) * axis).sum(1) / length


def fitted(length, force):
    """Coefficients of a parabola about 0.97 Å, their standard errors, and the scatter about it."""
    coefficients, covariance = np.polyfit(length - 0.97, force, 2, cov=True)
    scatter = (force - np.polyval(coefficients, length - 0.97)).std()
    return coefficients, np.sqrt(np.diag(covariance)), scatter


def test_a_third_of_the_scatter_and_the_same_mean(frames):
    beads, forces, at_centroid, masses = frames
    reduced = mean_forces(beads, forces, masses, [(0, 1)], TEMPERATURE, at_centroid)
    plain, error, scatter = fitted(*bond(beads, forces.mean(axis=1) - at_centroid))
    better, its_error, its_scatter = fitted(*bond(beads, reduced - at_centroid))
    assert its_scatter < 0.4 * scatter
    assert (abs(better - plain) < 4 * error).all()
    assert (its_error < 0.4 * error).all()
    assert abs(better[1]) > 20 * its_error[1], "too noisy to tell"


def test_the_variates_have_no_mean_at_any_length_of_the_bond(frames):
    """What is subtracted averages to nothing in each quarter of the frames by length of the bond."""
    beads, forces, at_centroid, masses = frames
    reduced = mean_forces(beads, forces, masses, [(0, 1)], TEMPERATURE, at_centroid)
    length, noise = bond(beads, forces.mean(axis=1) - reduced)
    assert noise.std() > 0.1
    for part in np.array_split(noise[np.argsort(length)], 4):
        assert abs(part.mean()) < 4 * part.std() / np.sqrt(len(part))


def test_no_force_on_the_whole_and_none_without_pairs(frames):
    beads, forces, at_centroid, masses = frames
    reduced = mean_forces(beads, forces, masses, [(0, 1)], TEMPERATURE, at_centroid)
    assert abs(reduced.sum(axis=1)).max() < 1e-12
    alone = mean_forces(beads, forces, masses, [], TEMPERATURE, at_centroid)
    assert np.array_equal(alone, forces.mean(axis=1))


def test_few_frames_and_single_beads_are_left_as_they_are(frames):
    beads, forces, at_centroid, masses = frames
    few = mean_forces(beads[:50], forces[:50], masses, [(0, 1)], TEMPERATURE, at_centroid[:50])
    assert np.array_equal(few, forces[:50].mean(axis=1))
    single = mean_forces(beads[:, :1], forces[:, :1], masses, [(0, 1)], TEMPERATURE, at_centroid)
    assert np.array_equal(single, forces[:, 0])
