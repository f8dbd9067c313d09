"""Te-PIGS: forces on centroids, the correction learned from them, and the spectrum of the sum."""

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule

import painn_fast as pf
from painn_fast import md
from painn_fast.errors import PaiNNFastError
from painn_fast.io.structures import read_structures
from painn_fast.md import ForceField, MDSettings, ModelForces, Trajectory
from painn_fast.spectra import SpectrumSettings, run
from painn_fast.spectra.te_pigs import force_differences
from painn_fast.testing import assert_close

SHORT = {
    "model": "ethanol", "method": "te-pigs", "trajectories": 2, "beads": 2, "equilibration": "2 fs",
    "duration": "60 fs", "depth": "50 fs", "sampling_duration": "20 fs", "sampling_every": "0.5 fs",
    "sampling_time_step": "0.5 fs",
}  # fmt: skip


class Springs(ForceField):
    """Each atom on a spring: the mean force over the beads is that at the centroid."""

    def __call__(self, positions):
        return 5.0 * positions.square().sum((1, 2)), -10.0 * positions


def test_centroids_are_means_over_beads_of_positions_and_forces(tmp_path):
    every = {f"{name}_every": "1 fs" for name in ("positions", "centroids")}
    values = {"model": "ethanol", "ensemble": "pile-l", "beads": 4, "trajectories": 2, "start": "free", **every}
    values |= {"duration": "3 fs", "equilibration": "2 fs", "output": str(tmp_path)}
    trajectory = Trajectory(md.run(MDSettings.parse(values)))
    beads = trajectory.positions  # [T, S, P, N, 3]
    centroids = trajectory.centroids
    assert_close(centroids["positions"], beads.mean(axis=2), 1e-14)
    field = ModelForces(pf.load("ethanol"), molecule("CH3CH2OH"))
    forces = field(torch.from_numpy(beads.reshape(-1, 9, 3)))[1].reshape(beads.shape).mean(dim=2)
    assert_close(centroids["forces"], forces.numpy(), 1e-4)
    frames = force_differences(trajectory, field)
    assert len(frames) == 8
    at_centroid = field(torch.from_numpy(frames[3].positions[None]))[1][0].numpy()
    assert_close(frames[3].get_forces(), centroids["forces"].reshape(-1, 9, 3)[3] - at_centroid, 1e-4)


def test_springs_need_no_correction(tmp_path):
    atoms = molecule("H2O")
    values = {"ensemble": "pile-l", "beads": 8, "temperature": "600 K", "start": "free", "duration": "20 fs"}
    values |= {"centroids_every": "2 fs", "positions_every": "2 fs", "output": str(tmp_path), "fragments": "off"}
    trajectory = Trajectory(md.run(MDSettings.parse(values), force_field=Springs(), atoms=atoms))
    frames = force_differences(trajectory, Springs())
    assert max(abs(frame.get_forces()).max() for frame in frames) < 1e-12
    assert np.ptp(trajectory.centroids["forces"], axis=0).max() > 0.01


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("te-pigs")
    run(SpectrumSettings.parse({**SHORT, "output": str(folder)}))
    return folder


def test_the_correction_lies_beside_the_spectrum_and_dynamics_ran_on_the_sum(finished, tmp_path):
    correction = finished / "te-pigs" / "training" / "te-pigs.safetensors"
    frames = read_structures(finished / "te-pigs" / "centroids.xyz")
    assert len(frames) == 2 * 41
    path_integrals = Trajectory(finished / "te-pigs" / "path-integrals")
    assert (path_integrals.temperature, path_integrals.beads) == (550.0, 2)
    dynamics = Trajectory(finished / "dynamics")
    assert (dynamics.temperature, dynamics.beads) == (300.0, 1)
    assert dynamics.header["model_sha256"].count(" + ") == 1
    assert "classical Langevin (tau 0.2 ps) + te-pigs" in (finished / "infrared.csv").read_text()
    ase.io.write(tmp_path / "one.xyz", frames[0])
    values = {"model": "ethanol", "add": [str(correction)], "structure": str(tmp_path / "one.xyz")}
    path = md.run(
        MDSettings.parse({**values, "duration": "0.5 fs", "energies_every": "0.5 fs", "output": str(tmp_path / "sum")})
    )
    parts = [pf.evaluate(model, [frames[0]])["energy"][0] for model in ("ethanol", str(correction))]
    assert Trajectory(path).energies["potential"][0, 0] == pytest.approx(sum(parts), abs=2e-3)


def test_it_goes_on_where_it_was_interrupted(finished, tmp_path, monkeypatch):
    """After the sampling and after the training; the result is that of a run without interruption."""
    from painn_fast.spectra import te_pigs

    def stop(*_, **__):
        raise PaiNNFastError("stopped")

    settings = SpectrumSettings.parse({**SHORT, "output": str(tmp_path)})
    with monkeypatch.context() as patch:
        patch.setattr(te_pigs.train, "run", stop)
        with pytest.raises(PaiNNFastError, match="stopped"):
            run(settings)
    with pytest.raises(PaiNNFastError, match="holds a spectrum already"):
        run(settings)
    run(settings, resume=True)
    for name in ("dipole", "polarizability"):
        assert np.array_equal(
            Trajectory(tmp_path / "dynamics").read(name), Trajectory(finished / "dynamics").read(name)
        )


def test_a_correction_can_be_used_again(finished, tmp_path):
    correction = str(finished / "te-pigs" / "training" / "te-pigs.safetensors")
    run(SpectrumSettings.parse({**SHORT, "correction": correction, "output": str(tmp_path)}))
    assert not (tmp_path / "te-pigs").exists()
    assert np.array_equal(Trajectory(tmp_path / "dynamics").dipole, Trajectory(finished / "dynamics").dipole)


def test_settings_of_te_pigs():
    settings = SpectrumSettings(model="ethanol", method="te-pigs")
    assert (settings.beads, settings.sampling().beads, settings.dynamics().beads) == (10, 10, 1)
    assert (settings.trajectories, settings.time_step) == (36, 1.0)
    production = settings.dynamics()
    assert (production.ensemble, production.tau, production.equilibration_tau) == ("langevin", 200.0, 50.0)
    assert production.remove_com_motion == ("translation",)
    still = SpectrumSettings(model="ethanol", method="te-pigs", remove_rotation=True)
    assert still.dynamics().remove_com_motion == ("translation", "rotation")
    assert (settings.sampling().tau, settings.sampling().equilibration_tau) == (50.0, None)
    assert SpectrumSettings(model="ethanol", method="te-pigs", langevin_tau="0 fs").dynamics().ensemble == "nve"
    many = SpectrumSettings(model="ethanol", method="te-pigs", trajectories=64)
    assert (many.sampling().trajectories, many.sampling().time_step, many.sampling().equilibration) == (12, 1.0, 100.0)
    both = SpectrumSettings(model="ethanol", method="t-rpmd,te-pigs")
    assert (both.of("t-rpmd").beads, both.of("te-pigs").beads) == (16, 10)
    assert (both.of("t-rpmd").trajectories, both.of("te-pigs").trajectories) == (12, 36)
    assert (both.of("t-rpmd").time_step, both.of("te-pigs").time_step) == (0.5, 1.0)
    asked = SpectrumSettings(model="ethanol", method="t-rpmd,te-pigs", trajectories=6, time_step="0.25 fs", beads=4)
    for one in map(asked.of, asked.methods):
        assert (one.trajectories, one.time_step, one.beads) == (6, 0.25, 4)
    assert both.of("te-pigs").dynamics().add == ("ethanol-spectrum/te-pigs/te-pigs/training/te-pigs.safetensors",)
    assert both.of("t-rpmd").dynamics().add == ()
    with pytest.raises(PaiNNFastError, match="positions_every is not a multiple"):
        SpectrumSettings(model="ethanol", method="te-pigs", sampling_every="0.7 fs")
