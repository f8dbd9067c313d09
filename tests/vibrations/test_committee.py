"""Lines of several models: means, and standard deviations between them."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.vibrations import committee, harmonic


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
