"""Full accuracy of torch's elementwise functions on a CPU from their first call on.

torch hands exp, sin, sqrt and others to MKL's vector library, from each of its threads. MKL up to 2024.2, which torch's
wheels hold, looks for the right code in the first call of each function. When several threads make that call at once,
one of them may get code of low accuracy for its part of it, with half the digits of float64. A table of filters made
then, and all energies from it, differ between two runs of a program.
See https://github.com/pytorch/pytorch/issues/188792.
"""

from __future__ import annotations

import torch

FUNCTIONS = (
    "acos", "asin", "atan", "cos", "cosh", "erf", "erfc", "erfinv", "exp", "expm1", "log", "log10", "log1p", "log2",
    "sigmoid", "sin", "sinh", "sqrt", "tan", "tanh",
)  # fmt: skip


def make() -> None:
    """Call each function for one number, which one thread does; a tenth of a millisecond."""
    for dtype in (torch.float32, torch.float64):
        half = torch.full((1,), 0.5, dtype=dtype)
        for name in FUNCTIONS:
            getattr(torch, name)(half)
