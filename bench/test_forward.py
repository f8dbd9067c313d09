"""Energies alone, of a graph made before: `pytest bench/test_forward.py`."""

import pytest

from painn_fast.bench.cases import CASES


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if "forward" in case.modes])
def test_forward(measure, case, side):
    measure(case, "forward", side)
