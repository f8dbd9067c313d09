"""Gaussian noise from a counter."""

import numpy as np
import pytest
import torch
from scipy import stats

from painn_fast.kernels.random import cpu, normal, reference

KNOWN_ANSWERS = [  # Random123, tests/kat_vectors, philox4x32 10
    ("00000000 00000000 00000000 00000000 00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
SOME = torch.tensor([0, 5, 2**32 - 1])


@pytest.mark.parametrize(("given", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(given, expected):
    words = [int(word, 16) for word in given.split()]
    result = reference.philox([torch.tensor([word]) for word in words[:4]], (words[4], words[5]))
    assert " ".join(f"{int(word):08x}" for word in result) == expected


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
@pytest.mark.parametrize("step", [0, 12345, 2**32 + 17, 2**48 - 1])
@pytest.mark.parametrize("count", [1, 8, 5001])
def test_numba_equals_the_reference_bit_for_bit(seed, step, count):
    for stream in (0, 65535):
        expected = reference.normal(seed, SOME, step, count, stream)
        assert torch.equal(cpu.normal(seed, SOME, step, count, stream), expected)


def test_a_trajectory_has_the_same_noise_whatever_the_batch_and_the_count():
    together = normal(3, torch.arange(50), 9, 301)
    assert torch.equal(normal(3, torch.tensor([31]), 9, 301)[0], together[31])
    assert torch.equal(normal(3, torch.tensor([31, 4]), 9, 17)[1], together[4, :17])


def test_every_key_changes_every_number():
    base = normal(3, torch.tensor([1]), 9, 1000)
    others = [
        normal(4, torch.tensor([1]), 9, 1000),
        normal(3 + 2**32, torch.tensor([1]), 9, 1000),
        normal(3, torch.tensor([2]), 9, 1000),
        normal(3, torch.tensor([1]), 10, 1000),
        normal(3, torch.tensor([1]), 9 + 2**32, 1000),
        normal(3, torch.tensor([1]), 9, 1000, stream=1),
    ]
    for other in others:
        assert not (base == other).any()
        assert abs(np.corrcoef(base[0], other[0])[0, 1]) < 0.15


def test_noise_is_standard_normal_and_uncorrelated():
    x = torch.cat([normal(11, torch.arange(100), step, 1000) for step in range(10)])  # 10^6 numbers
    n = x.numel()
    for moment, expected, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        got = float((x**moment).mean())
        assert abs(got - expected) < 4.5 * (variance / n) ** 0.5, f"moment {moment}: {got}, expected {expected}"
    assert stats.kstest(x.flatten().numpy(), "norm").pvalue > 1e-4
    neighbours = float((x[:, 1:] * x[:, :-1]).mean())  # the two of a Box-Muller pair among them
    squares = float(((x[:, 1:] ** 2 - 1) * (x[:, :-1] ** 2 - 1)).mean())
    assert abs(neighbours) < 4.5 / n**0.5
    assert abs(squares) < 4.5 * 2.0 / n**0.5


def test_written_out_functions_are_accurate_to_the_last_bits():
    u = torch.rand(100_000, dtype=torch.float64) + 2.0**-53
    wide = u * torch.exp(torch.linspace(-30, 4, len(u), dtype=torch.float64))
    assert float((reference.log(u) / u.log() - 1).abs().max()) < 4e-16
    assert float((reference.sqrt(wide) / wide.sqrt() - 1).abs().max()) < 4e-16
    cosine, sine = reference.cos_sin_turns(u)
    assert float((cosine - torch.cos(2 * np.pi * u)).abs().max()) < 1e-15
    assert float((sine - torch.sin(2 * np.pi * u)).abs().max()) < 1e-15


def test_extreme_words_give_finite_numbers():
    ends = torch.tensor([2.0**-53, 1.0 - 2.0**-53], dtype=torch.float64)
    radius = reference.sqrt(-2.0 * reference.log(ends))
    assert torch.isfinite(radius).all()
    assert float(radius[0]) == pytest.approx((2 * 53 * np.log(2)) ** 0.5)
    assert 0 < float(radius[1]) < 2e-8
