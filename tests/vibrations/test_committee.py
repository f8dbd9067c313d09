"""Lines of several models: means, and standard deviations between them."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.vibrations import anharmonic, committee, committee_anharmonic, harmonic


@pytest.fixture(scope="module")
def lines():
    return harmonic(pf.load("ethanol"), molecule("CH3CH2OH"))


def turned(lines, order, shift, mirror=False):
    """The same molecule by another model: turned in space, modes in another order, lines shifted."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn) * (-1 if mirror else 1)
    atoms = lines.atoms.copy()
    atoms.positions = atoms.positions @ turn + [1.0, 2.0, 3.0]
    signs = np.random.default_rng(1).choice([-1.0, 1.0], len(order))
    return replace(
        lines, atoms=atoms, wavenumber=lines.wavenumber[order] + shift,
        modes=signs[:, None, None] * lines.modes[order] @ turn,
        intensity=lines.intensity[order] * 1.5, isotropic=lines.isotropic[order], anisotropic=lines.anisotropic[order],
    )  # fmt: skip


@pytest.mark.parametrize("mirror", [False, True])
def test_modes_are_matched_by_overlap(lines, mirror):
    order = np.arange(21)
    order[[12, 13]] = 13, 12
    both = committee([lines, turned(lines, order, 6.0, mirror)])
    np.testing.assert_allclose(both.lines.wavenumber, lines.wavenumber + 3.0, atol=1e-6)
    np.testing.assert_allclose(both.wavenumber_error, 6.0 / np.sqrt(2.0), atol=1e-6)
    np.testing.assert_allclose(both.lines.intensity, 1.25 * lines.intensity)
    np.testing.assert_allclose(both.intensity_error, 0.5 * lines.intensity / np.sqrt(2.0))
    np.testing.assert_allclose(both.activity_error, 0.0, atol=1e-9)
    assert both.members == 2


def test_other_minima_are_refused(lines):
    moved = lines.atoms.copy()
    moved.positions[3] += [0.0, 1.5, 1.5]
    with pytest.raises(PaiNNFastError, match="different minima"):
        committee([lines, replace(lines, atoms=moved)])
    with pytest.raises(PaiNNFastError, match="different molecules"):
        committee([lines, replace(lines, atoms=molecule("CH3OH"))])
    with pytest.raises(PaiNNFastError, match="two models or more"):
        committee([lines])


@pytest.fixture(scope="module")
def beyond(lines):
    return anharmonic(pf.load("ethanol"), lines.atoms, lines=lines)


def test_anharmonic_states_are_matched_by_their_modes(lines, beyond):
    """The other model exchanges modes 12 and 13, its lines come in another order, and one state leads no line."""
    order = np.arange(21)
    order[[12, 13]] = 13, 12
    states = tuple(tuple({12: 13, 13: 12}.get(k, k) for k in state) for state in beyond.states)
    rows = np.random.default_rng(0).permutation(len(states))
    lost = states.index((20, 20))
    kept = rows[rows != lost]
    other = replace(
        beyond, harmonic=turned(lines, order, 6.0), states=tuple(states[i] for i in kept),
        wavenumber=beyond.wavenumber[kept] + 4.0, intensity=3.0 * beyond.intensity[kept],
        activity=beyond.activity[kept], share=beyond.share[kept], zero_point=beyond.zero_point + 2.0,
    )  # fmt: skip
    both = committee_anharmonic([beyond, other])
    rest = np.arange(len(states)) != lost
    np.testing.assert_allclose(both.lines.wavenumber[rest], beyond.wavenumber[rest] + 2.0)
    np.testing.assert_allclose(both.wavenumber_error[rest], 4.0 / np.sqrt(2.0))
    np.testing.assert_allclose(both.lines.intensity[rest], 2.0 * beyond.intensity[rest])
    np.testing.assert_allclose(both.intensity_error[rest], np.sqrt(2.0) * beyond.intensity[rest])
    np.testing.assert_allclose(both.activity_error[rest], 0.0, atol=1e-9)
    assert both.lines.wavenumber[lost] == beyond.wavenumber[lost]
    assert np.isnan(both.wavenumber_error[lost])
    assert both.lines.zero_point == pytest.approx(beyond.zero_point + 1.0)
    assert both.zero_point_error == pytest.approx(np.sqrt(2.0))
    errors = both.errors("wavenumber")
    assert errors["1"] == pytest.approx(6.0 / np.sqrt(2.0))  # of a torsion, which stays harmonic
    assert errors["13"] == pytest.approx(4.0 / np.sqrt(2.0))


def test_anharmonic_lines_without_dipole_or_of_one_model(beyond):
    dark = replace(beyond, intensity=None)
    assert committee_anharmonic([dark, beyond]).intensity_error is None
    assert committee_anharmonic([dark, beyond]).errors("intensity") == {}
    with pytest.raises(PaiNNFastError, match="two models or more"):
        committee_anharmonic([beyond])
