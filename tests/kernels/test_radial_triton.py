"""Radial functions on a GPU, or in Triton's interpreter: values and two derivatives equal autograd of the reference."""

import math
from dataclasses import replace

import pytest
import torch
from radial_functions import DEVICE, functions

from painn_fast.kernels.radial.reference import Radial, cutoff_function, filter_basis, radial_basis
from painn_fast.testing import assert_close

triton = pytest.importorskip("triton")
tl = triton.language

from painn_fast.kernels.radial.triton import constants, edge_geometry, radial_values, sine_cosine  # noqa: E402

pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")


@triton.jit
def _sine_cosine_kernel(p_d, p_sine, p_cosine, RATE: tl.constexpr):
    i = tl.program_id(0) * 64 + tl.arange(0, 64)
    sine, cosine = sine_cosine(tl.load(p_d + i), RATE)
    tl.store(p_sine + i, sine)
    tl.store(p_cosine + i, cosine)


def test_sine_and_cosine_of_a_float_are_exact_to_its_rounding():
    rate = math.pi / 5.0
    d = torch.linspace(0.0, 5.0, 4096, device=DEVICE)
    sine, cosine = torch.empty_like(d), torch.empty_like(d)
    _sine_cosine_kernel[64,](d, sine, cosine, rate)
    assert (sine.double() - (rate * d.double()).sin()).abs().max() < 3e-7
    assert (cosine.double() - (rate * d.double()).cos()).abs().max() < 3e-7


@triton.jit
def _radial_kernel(p_r, p_first, p_widths, p_values, C: tl.constexpr):
    K: tl.constexpr = C.count
    e = tl.program_id(0)
    d, inverse, _, _, _ = edge_geometry(p_r, e)
    psi, g, fc = radial_values(d, inverse, p_first, p_widths, C, 2)
    p = p_values + e * (3 * K + 3)
    for k in tl.static_range(K):
        tl.store(p + k, g[0] * psi[0][k])
        tl.store(p + K + 1 + k, g[1] * psi[0][k] + g[0] * psi[1][k])
        tl.store(p + 2 * K + 2 + k, g[2] * psi[0][k] + 2.0 * g[1] * psi[1][k] + g[0] * psi[2][k])
    tl.store(p + K, fc[0])
    tl.store(p + 2 * K + 1, fc[1])
    tl.store(p + 3 * K + 2, fc[2])


@pytest.mark.parametrize("cutoff", ["cosine", "mollifier", "switch"])
@pytest.mark.parametrize("basis", ["sinc", "sines", "gaussian", "gaussians"])
def test_radial_functions_and_two_derivatives_equal_autograd_of_the_reference(basis, cutoff):
    radial = functions(basis, cutoff, reach=5.0)
    assert constants(radial, torch.float64).basis == basis
    d = torch.tensor([0.31, 0.799, 0.801, 2.7, 4.6], dtype=torch.float64, device=DEVICE).requires_grad_()
    columns = torch.cat([radial_basis(d, radial), torch.ones_like(d)[:, None]], 1)
    value = columns * cutoff_function(d, radial)[:, None]
    slope, bend = torch.empty_like(value), torch.empty_like(value)
    for k in range(value.shape[1]):
        (first,) = torch.autograd.grad(value[:, k].sum(), d, create_graph=True)
        slope[:, k] = first.detach()
        bend[:, k] = torch.autograd.grad(first.sum(), d, retain_graph=True)[0]
    got = torch.empty(5, 3 * value.shape[1], dtype=torch.float64, device=DEVICE)
    r = torch.stack([0.6 * d, torch.zeros_like(d), -0.8 * d], 1).detach()
    _radial_kernel[5,](r, radial.first, radial.widths, got, constants(radial, torch.float64))
    assert_close(got.cpu(), torch.cat([value.detach(), slope, bend], 1).cpu(), 1e-12)


@pytest.mark.parametrize("cutoff", ["cosine", "mollifier", "switch"])
def test_radial_functions_of_floats_are_finite_up_to_the_cutoff_and_vanish_there(cutoff):
    for reach in (1.7, 2.1, 3.3, 4.7, 5.0):
        radial = functions("gaussian", cutoff, reach=reach)
        radial = replace(radial, first=radial.first.float(), widths=radial.widths.float())
        d = torch.full((4,), reach, dtype=torch.float32, device=DEVICE)
        for k in range(4):
            d[: k + 1] = torch.nextafter(d[: k + 1], torch.zeros_like(d[: k + 1]))
        d[3] = radial.switch_on
        values = torch.empty(4, 15, device=DEVICE)
        r = torch.stack([torch.zeros_like(d), d, torch.zeros_like(d)], 1)
        _radial_kernel[4,](r, radial.first, radial.widths, values, constants(radial, torch.float32))
        assert values.isfinite().all(), (reach, values)
        assert values[:3, :5].abs().max() < 1e-6
        assert values[3, 4] > 0.05


def test_unknown_functions_are_refused():
    with pytest.raises(ValueError, match=r"radial basis 'bump': expected sinc \| gaussian"):
        constants(replace(functions(), basis="bump"), torch.float32)
    with pytest.raises(ValueError, match=r"cut-off function 'step': expected cosine \| mollifier \| switch"):
        constants(replace(functions(), cutoff_function="step"), torch.float32)


def test_frequencies_that_change_in_place_are_read_again():
    radial = functions()
    before = constants(radial, torch.float64)
    assert constants(radial, torch.float64) is before
    radial.first[0] *= 1.5
    assert (before.basis, constants(radial, torch.float64).basis) == ("sinc", "sines")


@pytest.mark.parametrize("unit", [0.1, 1.0, 1.9, 100.0])  # of length, in Å: a cut-off of 5 Å and others
@pytest.mark.parametrize("basis", ["sinc", "gaussian"])
@pytest.mark.parametrize(("function", "on"), [("cosine", 0.0), ("mollifier", 0.0), ("switch", 4.8)])
def test_radial_functions_times_their_scale_are_numbers_of_float16(unit, basis, function, on):
    cutoff, count = 5.0 / unit, 31
    k = torch.arange(1, count + 1, dtype=torch.float64)
    first = k * math.pi / cutoff if basis == "sinc" else (k - 1) * cutoff / (count - 1)
    radial = Radial(basis, first, torch.full_like(first, cutoff / (count - 1)), function, cutoff, on / unit)
    d = torch.linspace(1e-3 * cutoff, cutoff, 2001, dtype=torch.float64)[:-1].requires_grad_()
    values = filter_basis(d, radial)
    slopes = [torch.autograd.grad(column.sum(), d, retain_graph=True)[0] for column in values.T]
    scale = constants(radial, torch.float32).scale
    largest = scale * max(float(values.detach().abs().max()), *(float(slope.abs().max()) for slope in slopes))
    assert math.log2(scale) % 1 == 0
    assert 2.0**10 < largest < 2.0**15
