"""How dynamics starts: momenta of ring polymers are those of the temperature P T."""

import numpy as np
import pytest
import torch
from ase import Atoms
from force_fields import Free

from painn_fast.errors import PaiNNFastError
from painn_fast.md import MDSettings, Trajectory, initial, run
from painn_fast.md.state import System
from painn_fast.units import AMU_A2_PER_FS2, KB

ATOMS = Atoms("OHC", positions=[[0, 0, 0], [1, 0, 0], [0, 2, 0]])
S = 400
TEMPERATURES = torch.tensor([100.0, 300.0] * (S // 2), dtype=torch.float64)


def momenta(P, seed=11):
    """[S, P, N, 3] amu Å/fs."""
    system = System.from_atoms(ATOMS)
    return initial.maxwell_boltzmann(system, P, TEMPERATURES, seed=seed, trajectory=torch.arange(S))


def assert_of_temperature(p, P):
    """<p^2/m> = P kB T for each degree of freedom, within four standard errors: of all, of each atom, at each T."""
    masses = torch.tensor(ATOMS.get_masses())[:, None]
    ratio = (p**2 / masses * AMU_A2_PER_FS2 / (P * KB * TEMPERATURES[:, None, None, None])).numpy()  # chi^2, mean 1
    parts = {"all": ratio, "even": ratio[::2], "odd": ratio[1::2]}
    parts |= {f"atom {k}": ratio[:, :, k] for k in range(3)} | {f"axis {k}": ratio[..., k] for k in range(3)}
    parts |= {f"bead {k}": ratio[:, k] for k in range(P)}
    for name, part in parts.items():
        error = np.sqrt(2.0 / part.size)
        assert abs(part.mean() - 1.0) < 4 * error, f"{name}: {part.mean():.4f}, expected 1 within {4 * error:.4f}"


@pytest.mark.parametrize("P", [1, 4, 16])
def test_momenta_at_the_start_have_p_times_the_temperature(P):
    p = momenta(P)
    assert p.shape == (S, P, 3, 3)
    assert_of_temperature(p, P)
    assert torch.equal(p, momenta(P))
    assert not torch.equal(p, momenta(P, seed=12))


@pytest.mark.parametrize("P", [4, 16])
def test_momenta_without_the_factor_p_are_noticed(P):
    with pytest.raises(AssertionError, match="expected 1"):
        assert_of_temperature(momenta(P) / P**0.5, P)


@pytest.mark.parametrize("P", [1, 4, 16])
def test_beads_are_independent_and_the_mean_is_nought(P):
    p = (momenta(P) / torch.sqrt(torch.tensor(ATOMS.get_masses()))[:, None]).flatten(2)  # [S, P, 9]
    p = p / torch.sqrt(P * KB * TEMPERATURES / AMU_A2_PER_FS2)[:, None, None]
    assert abs(float(p.mean())) < 4 / p.numel() ** 0.5
    for bead in range(1, P):
        assert abs(float((p[:, 0] * p[:, bead]).mean())) < 4 / (S * 9) ** 0.5


@pytest.mark.parametrize("beads", [1, 4, 16])
def test_a_run_of_free_particles_begins_with_that_kinetic_energy(tmp_path, beads):
    """The first frame of a run, all but the three momenta of the whole that are taken away."""
    values = {"output": str(tmp_path), "ensemble": "rpmd", "beads": beads, "trajectories": 200, "seed": 4}
    run(
        MDSettings.parse({**values, "velocities_every": "0.5 fs", "duration": "0.5 fs"}),
        force_field=Free(),
        atoms=ATOMS,
    )
    v = Trajectory(tmp_path).velocities[0]  # [S, P, N, 3]
    twice = (v**2 * ATOMS.get_masses()[:, None]).sum((1, 2, 3)) * AMU_A2_PER_FS2 / (beads * KB * 300.0)
    degrees = 9 * beads - 3
    assert twice.mean() == pytest.approx(degrees, abs=4 * np.sqrt(2 * degrees / len(twice)))


@pytest.mark.parametrize("mass", [0.0, -1.0, np.nan, np.inf, 1e30])
def test_absurd_masses_are_named(mass):
    atoms = ATOMS.copy()
    atoms.set_masses([16.0, mass, 12.0])
    with pytest.raises(PaiNNFastError, match=r"masses must be positive and finite; where: atom 1; got: .* amu"):
        System.from_atoms(atoms)
