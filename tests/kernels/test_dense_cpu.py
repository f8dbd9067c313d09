"""Matrix products and activations inside compiled code: right for every shape, and a row the same in any company."""

import numpy as np
import pytest
import torch

from painn_fast.kernels.dense.cpu import (
    BLOCK,
    activation,
    activation_adjoint,
    add_matmul,
    add_outer,
    matmul,
    outer,
    pack,
    pack_transposed,
)
from painn_fast.kernels.simd import LANES
from painn_fast.testing import TOLERANCE, assert_close

DTYPES = {np.float64: torch.float64, np.float32: torch.float32}


def numbers(*shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 6, 7, 13])
def test_product_equals_numpy(rows, columns, dtype):
    a, b = numbers(rows, 37, dtype=dtype), numbers(37, columns * LANES, dtype=dtype, seed=1)
    bias, out = numbers(columns * LANES, dtype=dtype, seed=2), np.full((rows, columns * LANES), np.nan, dtype)
    matmul(a, pack(b), bias, out)
    if rows:
        assert_close(out, a.astype(float) @ b.astype(float) + bias, TOLERANCE[DTYPES[dtype]])
    again = np.tile(bias, (rows, 1))
    add_matmul(a, pack(b), again)
    assert np.array_equal(again, out)


def test_only_the_beginning_of_long_rows_counts():
    a, b = numbers(7, 40, dtype=np.float64), numbers(21, LANES, dtype=np.float64, seed=1)
    out = np.empty((7, LANES))
    matmul(a, pack(b), np.zeros(LANES), out)
    assert_close(out, a[:, :21] @ b, 1e-13)


def test_a_row_does_not_depend_on_the_others():
    a, b = numbers(29, 128, dtype=np.float32), numbers(128, 384, dtype=np.float32, seed=1)
    bias, panels = numbers(384, dtype=np.float32, seed=2), pack(b)
    whole = np.empty((29, 384), np.float32)
    matmul(a, panels, bias, whole)
    for first, last in [(0, 1), (3, 5), (7, 10), (11, 29)]:
        part = np.empty((last - first, 384), np.float32)
        matmul(a[first:last].copy(), panels, bias, part)
        assert np.array_equal(part, whole[first:last])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 3, 4])
def test_outer_products_add_up(columns, dtype):
    a, b = numbers(11, 21, dtype=dtype), numbers(11, (columns + 1) * LANES, dtype=dtype, seed=1)
    before = numbers(21, columns * LANES, dtype=dtype, seed=2)
    out = before.copy()
    add_outer(a, b, LANES, 9, out)
    assert_close(out, before + a[:9].T.astype(float) @ b[:9, LANES:].astype(float), TOLERANCE[DTYPES[dtype]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 9, BLOCK + 5])
def test_an_outer_product_takes_the_place_of_what_was_there(rows, dtype):
    a, b = numbers(rows, 21, dtype=dtype), numbers(rows, 3 * LANES, dtype=dtype, seed=1)
    out = np.full((21, 3 * LANES), np.nan, dtype)
    outer(a, b, out)
    assert_close(out, a.T.astype(float) @ b.astype(float), TOLERANCE[DTYPES[dtype]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 4, 6])
def test_a_transpose_is_packed_as_such(columns, dtype):
    matrix = numbers(columns * LANES, 3 * LANES, dtype=dtype)
    expected = pack(np.ascontiguousarray(matrix.T))
    panels = np.full_like(expected, np.nan)
    pack_transposed(matrix, panels)
    assert np.array_equal(panels, expected)


def exact(softplus, h):
    """The activation and its derivative at h, in float64."""
    h = torch.from_numpy(h).double().requires_grad_()
    value = torch.logaddexp(h, torch.zeros_like(h)) - np.log(2.0) if softplus else torch.nn.functional.silu(h)
    return value.detach().numpy(), torch.autograd.grad(value.sum(), h)[0].numpy()


@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_and_their_adjoints_equal_torch_everywhere(dtype, softplus):
    h = np.concatenate([np.linspace(-120, 120, 4 * LANES - 3), [0.0, -1e-8, 1e-8]]).astype(dtype).reshape(2, -1)
    g, out = numbers(*h.shape, dtype=dtype), np.empty_like(h)
    activation(softplus, h, out)
    value, slope = exact(softplus, h)
    assert np.abs(out - value).max() < TOLERANCE[DTYPES[dtype]]
    expected = g.astype(float) * slope
    activation_adjoint(softplus, h, g)
    assert_close(g, expected, TOLERANCE[DTYPES[dtype]])


@pytest.mark.parametrize("softplus", [False, True])
def test_what_is_not_a_number_stays_so(softplus):
    h, out = np.full((1, LANES), np.nan), np.zeros((1, LANES))
    activation(softplus, h, out)
    assert np.isnan(out).all()
