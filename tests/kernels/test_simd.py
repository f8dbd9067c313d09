"""Explicit vectors in compiled code."""

import numpy as np
import pytest
from numba import njit

from painn_fast.kernels.simd import LANES, exp, load, log1p, splat, sqrt, store, total


@njit
def apply(a, b, out):
    for c in range(0, a.shape[0], LANES):
        x, y = load(a, c), load(b, c)
        store(out, c, (x + y) * x - sqrt(y) / splat(2, x))


@njit
def exponentials(a, out):
    for c in range(0, a.shape[0], LANES):
        store(out, c, exp(load(a, c)))


@njit
def logarithms(a, out):
    for c in range(0, a.shape[0], LANES):
        store(out, c, log1p(load(a, c)))


@njit
def sums(a):
    result = splat(0, a)
    for c in range(0, a.shape[0], LANES):
        result = result + load(a, c)
    return total(result)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-15)])
def test_arithmetic_equals_numpy(dtype, tolerance):
    rng = np.random.default_rng(0)
    a, b = (np.abs(rng.normal(size=5 * LANES)).astype(dtype) for _ in range(2))
    out = np.empty_like(a)
    apply(a, b, out)
    x, y = a.astype(float), b.astype(float)
    assert np.allclose(out, (x + y) * x - np.sqrt(y) / 2, rtol=0, atol=10 * tolerance)
    assert sums(a) == pytest.approx(x.sum(), rel=10 * tolerance)
    assert sums(a) == sums(a.copy())


@pytest.mark.parametrize(("dtype", "tolerance", "end"), [(np.float32, 2e-7, 80), (np.float64, 5e-16, 700)])
def test_exponentials_are_right_to_the_last_bits(dtype, tolerance, end):
    a = np.linspace(-end, end, 100 * LANES).astype(dtype)
    out = np.empty_like(a)
    exponentials(a, out)
    assert np.abs(out / np.exp(a.astype(np.longdouble)) - 1).max() < tolerance
    special = np.resize(np.array([np.nan, -np.inf, np.inf, 0.0], dtype), LANES)
    out = np.empty_like(special)
    exponentials(special, out)
    assert np.isnan(out[0])
    assert 0 <= out[1] < 1e-37
    assert out[2] > 1e38
    assert out[3] == 1


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-7), (np.float64, 4e-16)])
def test_logarithms_of_one_and_a_fraction_are_right_to_the_last_bits(dtype, tolerance):
    a = np.concatenate([np.linspace(0.0, 1.0, 100 * LANES - 3), [1e-30, 1e-10, 1e-5]]).astype(dtype)
    out = np.empty_like(a)
    logarithms(a, out)
    exact = np.log1p(a.astype(np.longdouble))
    assert np.abs(out - exact).max() < tolerance
    assert np.abs(out[1:] / exact[1:] - 1).max() < 2 * tolerance
