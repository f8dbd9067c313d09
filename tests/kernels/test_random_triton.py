"""Gaussian noise on a GPU, or in the interpreter: the same bits as the reference."""

import math
import os
import struct
import subprocess
import sys

import pytest
import torch

from painn_fast.kernels.random import cpu, normal, reference, triton

DEVICE = os.environ["KERNELS_ON"]
SOME = torch.tensor([0, 5, 2**32 - 1])


@pytest.mark.parametrize(
    ("seed", "step", "count", "stream"),
    [
        (0, 0, 1, 0),
        (1, 1, 2, 1),
        (7, 12345, 27, 2),
        (2**31 + 5, 16, 16, 65535),
        (2**64 - 1, 2**48 - 1, 1001, 65535),
        (2**63, 2**32 + 17, 601, 0),
    ],
)
def test_equals_the_reference_bit_for_bit(seed, step, count, stream):
    expected = reference.normal(seed, SOME, step, count, stream)
    assert torch.equal(triton.normal(seed, SOME.to(DEVICE), step, count, stream).cpu(), expected)


def test_many_numbers_equal_the_reference_bit_for_bit():
    many = torch.arange(100, 108)
    got = triton.normal(3, many.to(DEVICE), 9, 2001).cpu()
    assert torch.equal(got, reference.normal(3, many, 9, 2001))


@pytest.mark.parametrize("step", [0, 2**32 + 17])
def test_the_step_may_lie_on_the_device(step):
    on_device = torch.tensor([step], device=DEVICE)
    expected = reference.normal(7, SOME, step, 28, 1)
    assert torch.equal(triton.normal(7, SOME.to(DEVICE), on_device, 28, 1).cpu(), expected)
    assert torch.equal(normal(7, SOME.to(DEVICE), on_device, 28, 1).cpu(), expected)


def test_strided_numbers_of_trajectories_and_none_at_all():
    spaced = torch.arange(12, device=DEVICE)[::3]
    assert torch.equal(triton.normal(1, spaced, 2, 7).cpu(), reference.normal(1, spaced.cpu(), 2, 7))
    assert triton.normal(1, spaced[:0], 2, 7).shape == (0, 7)
    assert triton.normal(1, spaced, 2, 0).shape == (4, 0)


PTX = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from painn_fast.kernels.random.triton import cases
_, kernel, signature, constants, warps = cases()[0]
options = {"num_warps": warps, "enable_fp_fusion": False}
print(triton.compile(ASTSource(kernel, signature, constants), GPUTarget("cuda", 90, 32), options).asm["ptx"])
"""


def test_what_a_gpu_runs_has_every_constant_in_double_precision_and_fuses_nothing():
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    run = subprocess.run([sys.executable, "-c", PTX], env=environment, capture_output=True, text=True, check=True)
    constants = (0.5**0.5, 0.41731, 0.59016, reference.LN2_HIGH, reference.LN2_LOW, 2.0 * math.pi)
    for value in (*constants, *reference.LOG, *reference.SIN, *reference.COS):
        either = [f"0d{struct.pack('>d', number).hex().upper()}" for number in (value, -value)]
        assert any(bits in run.stdout for bits in either), f"no constant {value}"
    assert "mul.rn.f64" in run.stdout
    assert "fma" not in run.stdout
    assert ".f32" not in run.stdout


def test_each_trajectory_may_have_a_seed():
    seeds = torch.arange(len(SOME)) * 2**35 + 3
    expected = torch.cat([reference.normal(int(s), t[None], 5, 21, 2) for s, t in zip(seeds, SOME, strict=True)])
    assert torch.equal(reference.normal(seeds, SOME, 5, 21, 2), expected)
    assert torch.equal(cpu.normal(seeds, SOME, 5, 21, 2), expected)
    assert torch.equal(triton.normal(seeds.to(DEVICE), SOME.to(DEVICE), 5, 21, 2).cpu(), expected)
