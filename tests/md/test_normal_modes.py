"""Normal modes of the free ring polymer."""

import numpy as np
import pytest
import torch

from painn_fast.md.normal_modes import mode_frequencies, normal_mode_matrix, ring_frequency
from painn_fast.units import HBAR, KB

BEADS = [1, 2, 3, 4, 7, 16, 31, 64, 129]


@pytest.mark.parametrize("P", BEADS)
def test_matrix_is_orthogonal(P):
    C = normal_mode_matrix(P)
    assert float((C @ C.T - torch.eye(P)).abs().max()) < 1e-14
    assert float((C.T @ C - torch.eye(P)).abs().max()) < 1e-14


@pytest.mark.parametrize("P", BEADS)
def test_matrix_equals_the_fourier_form(P):
    x = np.random.default_rng(0).normal(size=P)
    spectrum = np.fft.rfft(x, norm="ortho")
    expected = np.zeros(P)
    for k in range(P // 2 + 1):
        alone = k == 0 or 2 * k == P
        expected[k] = spectrum[k].real * (1.0 if alone else 2**0.5)
        if not alone:
            expected[P - k] = spectrum[k].imag * 2**0.5
    np.testing.assert_allclose(normal_mode_matrix(P).numpy() @ x, expected, atol=1e-13)


@pytest.mark.parametrize("P", BEADS)
def test_modes_diagonalise_the_springs(P):
    C = normal_mode_matrix(P).numpy()
    temperature = torch.tensor([300.0], dtype=torch.float64)
    one = np.eye(P)
    springs = 2 * one - np.roll(one, 1, axis=0) - np.roll(one, -1, axis=0)  # (x_j - x_{j+1})^2 summed
    omega = mode_frequencies(P, temperature)[0].numpy()
    expected = np.diag((omega / float(ring_frequency(P, temperature))) ** 2)
    np.testing.assert_allclose(C @ springs @ C.T, expected, atol=1e-12)


def test_one_bead_has_the_unit_matrix_and_no_frequency():
    assert torch.equal(normal_mode_matrix(1), torch.ones(1, 1, dtype=torch.float64))
    assert float(mode_frequencies(1, torch.tensor([300.0]))[0, 0]) == 0.0


def test_springs_have_the_frequency_of_the_temperature():
    temperature = torch.tensor([100.0, 300.0], dtype=torch.float64)
    expected = [16 * KB * T / HBAR for T in (100.0, 300.0)]
    np.testing.assert_allclose(ring_frequency(16, temperature).numpy(), expected, rtol=1e-14)
