"""Compiled code for fewer instructions than the processor has: right numbers, on any machine."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SETS = runpy.run_path(str(Path(__file__).resolve().parents[2] / ".ci" / "instruction-set"))
NUMBERS = """
import numpy as np
from painn_fast.kernels.dense.cpu import LANES, add_outer, matmul, pack
from painn_fast.kernels.message.pairs_cpu import message_fwd

def whole(*shape):
    return np.random.default_rng(shape[0]).integers(-8, 9, shape).astype(np.float32)

a, b, bias, out = whole(145, 40), whole(40, 160), whole(160), np.empty((145, 160), np.float32)
matmul(a, pack(b), bias, out)
assert np.array_equal(out, a @ b + bias)
outer = whole(40, 160)
expected = outer + a[:130].T @ out[:130]
add_outer(a, out, 0, 130, outer)
assert np.array_equal(outer, expected)

f, one = 32, np.ones(1, np.int64)  # a filter that is the same at all distances; along x
x, v, s, to = whole(2, 3 * f), whole(2, 3 * f) + 1, whole(2, f), whole(2, 3 * f)
table = np.empty((7, 3 * f), np.float32)
w, direction = whole(3 * f), np.array([[1, 0, 0]], np.float32)
table[:] = w
of_s, along, of_v = np.split((x * w)[::-1], 3, axis=1)
expected_s, expected_v = s + of_s, to.reshape(2, 3, f) + v.reshape(2, 3, f)[::-1] * of_v[:, None]
expected_v[:, 0] += along * [[1], [-1]]
message_fwd(x, v, table, 0 * one, one, direction, one, np.zeros(1, np.float32), True, s, to)
np.testing.assert_allclose(s, expected_s, rtol=0, atol=1e-4)
np.testing.assert_allclose(to.reshape(2, 3, f), expected_v, rtol=0, atol=1e-3)
print(LANES)
"""


@pytest.mark.parametrize("name", SETS["CPU"])
def test_numbers_with_fewer_instructions(name):
    variables = dict(line.split("=", 1) for line in SETS["environment"](name))
    command = [sys.executable, "-c", NUMBERS]
    got = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert got.returncode == 0, got.stderr
    assert int(got.stdout) <= {"avx2": 8, "sse": 4}[name]
