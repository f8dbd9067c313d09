"""A fresh process computes with full accuracy at once."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from painn_fast.kernels import mkl_warmup

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import torch
import painn_fast.kernels
torch.set_num_threads(2)
away = torch.linspace(0.05, 5.0, 1025, dtype=torch.float64)[:, None] - torch.linspace(0, 5, 20, dtype=torch.float64)
first, second = (torch.exp(-8.0 * away**2) for _ in range(2))
print(torch.equal(first, second))
"""


@pytest.mark.parametrize("processes", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_first_call_of_a_process_gives_what_the_second_gives(processes):
    """Without the package's own first calls some processes on two cores do not: many show it, two are a chance."""
    runs = [
        subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
        for _ in range(processes)
    ]
    assert Counter(runs) == {"True\n": processes}


def test_every_function_that_the_package_takes_from_torch_is_called(monkeypatch):
    called = set()
    for name in mkl_warmup.FUNCTIONS:
        monkeypatch.setattr(torch, name, lambda x, name=name: called.add((name, x.dtype, x.numel())))
    mkl_warmup.make()
    used = set()
    for path in [*(ROOT / "painn_fast").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r"\btorch\.(?:special\.)?([a-z0-9]+)\(", text))
        used |= set(re.findall(r"\.([a-z0-9]+)\(\)", text))
    elementwise = "acos acosh asin asinh atan atanh cos cosh erf erfc erfinv exp exp2 expm1 log log10 log1p log2 "
    elementwise += "sigmoid sin sinh sqrt tan tanh"
    needed = used & set(elementwise.split())
    assert {"exp", "sin", "sqrt"} <= needed
    assert {(name, dtype, 1) for name in needed for dtype in (torch.float32, torch.float64)} <= called
