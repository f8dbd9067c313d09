"""Hessians and derivatives of properties: central differences on the engine, and the analytic ones."""

import sys

import ase
import numpy as np
import pytest
import torch
from ase.build import molecule
from force_fields import Morse
from warned import warns

from painn_fast import PaiNNFastError, load
from painn_fast.io.find import MODELS
from painn_fast.io.structures import read_structures
from painn_fast.spectra import harmonic, hessian, relax, roughness
from painn_fast.testing import assert_close, with_epsilon
from painn_fast.vibrations import derivatives as module
from painn_fast.vibrations.derivatives import derivatives, differences
from painn_fast.vibrations.harmonic import normal_modes


@pytest.fixture(scope="module")
def single(ethanol_model):
    """The smooth model in float32, for the engine."""
    config, state = ethanol_model.config, ethanol_model.state_dict()
    model = type(ethanol_model)(config)
    model.load_state_dict(state)
    return model.eval()


def morse_hessian(positions, field):
    """By autograd twice, of the closed form in `painn_fast.testing`."""
    x = torch.tensor(positions)

    def energy(flat):
        return field(flat.view(1, -1, 3))[0].sum()

    return torch.autograd.functional.hessian(energy, x.flatten()).numpy()


def test_differences_of_a_known_surface_converge_with_the_fourth_power_of_the_step():
    """Morse bonds between three atoms, and a dipole of sines: half the step, a sixteenth of the error."""
    field, atoms = Morse(4.5, 2.0, 1.1), ase.Atoms("OCS", [[0.0, 0.1, 0.0], [1.15, 0.0, 0.2], [0.4, 1.3, -0.3]])
    calls = []

    def compute(structures):
        calls.append(len(structures))
        x = torch.tensor(np.array([one.positions for one in structures]))
        return {"forces": field(x)[1].numpy(), "dipole": np.sin(3 * x.numpy()).sum(1)}

    expected = morse_hessian(atoms.positions, field)
    steps = (0.04, 0.02, 0.01)
    found = [differences(compute, atoms, step) for step in steps]
    off = [np.abs(-one["forces"].reshape(9, 9) - expected).max() for one in found]
    assert np.log2(off[0] / off[1]) == pytest.approx(4, abs=0.2)
    assert np.log2(off[1] / off[2]) == pytest.approx(4, abs=0.2)
    assert off[2] < 1e-4 * np.abs(expected).max()
    slope = np.einsum("nx,xi->nxi", 3 * np.cos(3 * atoms.positions), np.eye(3))
    assert_close(found[2]["dipole"], slope, 1e-6, "of a dipole")
    assert calls == [36] * 3, "all displacements in one call"


def test_analytic_and_differences_agree_on_a_smooth_surface(ethanol_model, ethanol_modes):
    minimum = ethanol_modes.atoms
    found, exact = (derivatives(ethanol_model, minimum, method) for method in ("differences", "analytic"))
    assert_close(found.hessian, exact.hessian, 2e-3, "hessian")
    assert_close(found.dipole, exact.dipole, 1e-2, "dipole")
    assert_close(found.polarizability, exact.polarizability, 1e-2, "polarizability")
    assert found.dipole.shape == (3, 9, 3)
    assert found.polarizability.shape == (3, 3, 9, 3)
    assert_close(hessian(ethanol_model, minimum, "analytic"), exact.hessian, 0, "the public function")
    assert_close(hessian(ethanol_model, minimum), found.hessian, 1e-12, "the public function")
    assert (found.hessian == found.hessian.T).all()


def test_float32_forces_of_the_engine_are_enough(single, ethanol_model, ethanol_modes, monkeypatch):
    """All 108 displaced structures are one batch; rounding moves no line by 0.1 cm-1."""
    sizes = []
    original = module.evaluate

    def count(model, structures, *args, **options):
        sizes.append((len(structures), options.get("atoms_per_batch", 0) >= 9 * len(structures)))
        return original(model, structures, *args, **options)

    monkeypatch.setattr(module, "evaluate", count)
    lines = harmonic(single, ethanol_modes.atoms, relaxed=True)
    assert (108, True) in sizes
    assert lines.wavenumber == pytest.approx(ethanol_modes.wavenumber, abs=0.1)
    assert_close(lines.intensity, ethanol_modes.intensity, 1e-3)
    assert_close(lines.activity, ethanol_modes.activity, 1e-3)
    assert single.dtype == torch.float32


def test_the_analytic_spectrum_is_an_option(ethanol_model, ethanol_modes):
    lines = harmonic(ethanol_model, ethanol_modes.atoms, relaxed=True, method="analytic")
    exact = normal_modes(ethanol_modes.atoms, hessian(ethanol_model, ethanol_modes.atoms, "analytic"))[0]
    assert lines.method == "analytic"
    assert ethanol_modes.method == "differences"
    assert_close(lines.wavenumber, exact, 1e-9)
    assert lines.roughness.largest == pytest.approx(ethanol_modes.roughness.largest, abs=1e-6)
    off = np.abs(lines.wavenumber - ethanol_modes.wavenumber)
    assert ethanol_modes.roughness.largest == pytest.approx(off.max())
    assert ethanol_modes.roughness.mean == pytest.approx(off.mean())
    assert 0 < ethanol_modes.roughness.largest < 2
    with pytest.raises(PaiNNFastError, match=r"unknown kind of Hessian.*numeric.*differences \| analytic"):
        harmonic(ethanol_model, ethanol_modes.atoms, method="numeric")
    with pytest.raises(PaiNNFastError, match="unknown kind of Hessian"):
        hessian(ethanol_model, ethanol_modes.atoms, "numeric")


def test_a_surface_with_a_cusp_at_its_minimum_is_warned_of(ethanol_model, ethanol):
    """The same weights with an epsilon of 1e-8; the words tell the number, what it means and what mends it."""
    rough = with_epsilon(ethanol_model, 1e-8)
    with warns(r"rough at its minimum.*up to \d+\.\d cm-1 apart.*larger representation\.eps"):
        lines = harmonic(rough, ethanol)
    assert lines.roughness.largest > 10
    assert not lines.roughness.smooth
    assert roughness(rough, lines.atoms, relaxed=True).largest == pytest.approx(lines.roughness.largest)
    assert roughness(with_epsilon(ethanol_model, 1e-3), ethanol).smooth  # without a warning, which would be an error


def test_lines_do_not_jump_within_a_thousandth_of_an_angstrom(ethanol_model, ethanol_modes, rng):
    """Anharmonicity moves a C-H stretch by some cm-1 for 1 mÅ, the other way for -1 mÅ: the mean stays."""
    for _ in range(2):
        shift = rng.normal(size=(9, 3))
        shift *= 1e-3 / np.linalg.norm(shift, axis=1).max()
        lines = []
        for sign in (1, -1):
            moved = ethanol_modes.atoms.copy()
            moved.positions += sign * shift
            lines.append(normal_modes(moved, hessian(ethanol_model, moved))[0])
        assert np.abs(lines[0] - lines[1]).max() < 25
        assert 0.5 * (lines[0] + lines[1]) == pytest.approx(ethanol_modes.wavenumber, abs=1.0)


def test_lines_do_not_depend_on_where_a_relaxation_began(ethanol_model, ethanol_modes, rng):
    for _ in range(2):
        start = ethanol_modes.atoms.copy()
        start.positions += 0.05 * rng.normal(size=start.positions.shape)
        assert harmonic(ethanol_model, start).wavenumber == pytest.approx(ethanol_modes.wavenumber, abs=0.3)


def test_soft_torsions_relax_in_few_newton_steps(monkeypatch):
    """Aspirin has a mode at 27 cm-1; one Hessian by differences is enough on a smooth surface."""
    asked = []
    relaxing = sys.modules["painn_fast.vibrations.relax"]
    original = relaxing.hessian
    monkeypatch.setattr(relaxing, "hessian", lambda *args: asked.append(args[2]) or original(*args))
    start = read_structures(MODELS / "aspirin.xyz")[0]
    start.positions += 0.02 * np.random.default_rng(0).normal(size=start.positions.shape)
    relax(load("aspirin", dtype=torch.float64), start)
    assert len(asked) <= 2
    assert asked[0] == "differences"


def test_periodic_structures_have_a_hessian_and_no_harmonic_spectrum(ethanol_model, ethanol):
    crystal = ethanol.copy()
    crystal.set_cell([12, 12, 12])
    crystal.pbc = True
    assert hessian(ethanol_model, crystal).shape == (27, 27)
    for analysis in (harmonic, roughness):
        with pytest.raises(PaiNNFastError, match="molecules in vacuum"):
            analysis(ethanol_model, crystal, relaxed=True)
    with pytest.raises(PaiNNFastError, match="element"):
        hessian(ethanol_model, molecule("SiH4"))
