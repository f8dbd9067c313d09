"""Billions of floating-point operations a second of the products in compiled code, beside torch, on one thread.

    python bench/products.py
    env $(.ci/instruction-set avx2) MKL_ENABLE_INSTRUCTIONS=AVX2 python bench/products.py
    env $(.ci/instruction-set sse) MKL_ENABLE_INSTRUCTIONS=SSE4_2 python bench/products.py

The products are those of 144 atoms, F = 128, in float32: alone, their numbers in the caches, then all of three layers
in turn, as the engine has them. CPU time, the shortest of 15 in which both sides take turns.
"""

import math
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from painn_fast.kernels.dense.cpu import add_outer, matmul, pack
from painn_fast.kernels.simd import LANES

ATOMS, F, LAYERS = 144, 128, 3
FORWARD = [(ATOMS, F, F), (ATOMS, F, 3 * F), (3 * ATOMS, F, 2 * F), (ATOMS, 2 * F, F), (ATOMS, F, 3 * F)]
SHAPES = FORWARD + [(rows, n_out, n_in) for rows, n_in, n_out in FORWARD]
"""(rows, K, C), those of the backward pass too."""
NAMES = ("matmul", "add_outer", "torch")
TOLERANCE = 1e-5
REPEATS = 10
"""Of a product alone."""


def product(rows: int, depth: int, columns: int) -> tuple[Callable[[], None], ...]:
    """x W as `matmul`, the gradient of W as `add_outer`, x W as torch; held against NumPy in float64."""
    random = np.random.default_rng(0)
    x, W = (random.normal(size=shape).astype(np.float32) for shape in ((rows, depth), (depth, columns)))
    y, gW, zero = np.zeros((rows, columns), np.float32), np.zeros_like(W), np.zeros(columns, np.float32)
    ours, outer = partial(matmul, x, pack(W), zero, y), partial(add_outer, x, y, 0, rows, gW)
    result = torch.from_numpy(np.zeros_like(y))
    theirs = partial(torch.mm, torch.from_numpy(x), torch.from_numpy(W), out=result)
    right = x.astype(float) @ W.astype(float)
    for call in (ours, outer, theirs):
        call()
    for got, expected in ((y, right), (result.numpy(), right), (gW, x.T.astype(float) @ right)):
        np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE * abs(expected).max())
    return ours, outer, theirs


def seconds(sides: list[list[Callable[[], None]]]) -> list[float]:
    """Shortest CPU time of all calls of each side."""
    best = [math.inf] * len(sides)
    for _ in range(15):
        for k, calls in enumerate(sides):
            start = time.thread_time()
            for call in calls:
                call()
            best[k] = min(best[k], time.thread_time() - start)
    return best


def report(label: str, products: list[tuple[Callable[[], None], ...]], flops: int) -> None:
    """A line of the table."""
    rates = [1e-9 * flops / t for t in seconds([list(calls) for calls in zip(*products, strict=True)])]
    print(f"{label:>18}", *(f"{rate:10.0f}" for rate in rates))


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"GFLOP/s, vectors of {LANES}\n{'rows, K, C':>18}", *(f"{name:>10}" for name in NAMES))
    for shape in dict.fromkeys(SHAPES):
        report("{}, {}, {}".format(*shape), [product(*shape)] * REPEATS, 2 * math.prod(shape) * REPEATS)
    shapes = SHAPES * LAYERS
    report("all in turn", [product(*shape) for shape in shapes], sum(2 * math.prod(shape) for shape in shapes))


if __name__ == "__main__":
    main()
