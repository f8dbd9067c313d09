"""No hot kernel spills, on any target, by compiling alone."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")


def report(*arguments, program=("-m", "painn_fast.kernels.tools.static_report")):
    """Kernels are compiled, not interpreted, in a process of their own."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, *program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def rows(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


SPILLED = {
    ("node_fwd F=64 ieee, 8 atoms", "sm_80"): 8,
    ("layer_bwd F=128 tf32x3", "sm_80"): 168,
    ("layer_bwd F=128 tf32x3, first", "sm_80"): 32,
    ("layer_bwd F=128 tf32x3, last", "sm_80"): 168,
    ("layer_bwd F=128 tf32", "sm_80"): 168,
    ("layer_bwd F=128 tf32, first", "sm_80"): 32,
    ("layer_bwd F=128 tf32, last", "sm_80"): 168,
    ("layer_bwd F=128 bf16", "sm_80"): 192,
    ("layer_bwd F=128 bf16, first", "sm_80"): 32,
    ("layer_bwd F=128 bf16, last", "sm_80"): 192,
    ("layer_fwd F=128 ieee, 4 atoms, last", "sm_100"): 8,
    ("layer_bwd F=128 ieee, 8 atoms", "sm_100"): 16,
    ("layer_bwd F=128 ieee, 8 atoms, last", "sm_100"): 8,
    ("layer_bwd F=128 tf32x3", "sm_100"): 24,
    ("layer_bwd F=128 tf32x3, last", "sm_100"): 24,
    ("layer_bwd F=128 tf32", "sm_100"): 24,
    ("layer_bwd F=128 tf32, last", "sm_100"): 24,
    ("layer_bwd F=128 bf16", "sm_100"): 16,
    ("layer_bwd F=128 bf16, last", "sm_100"): 16,
    ("layer_fwd F=128 ieee, 4 atoms, last", "gfx942"): 148,
}
"""Bytes a thread of the exceptions that node/README.md and layer/README.md list."""


@pytest.mark.slow  # minutes of compilation; test_triton_compiles.py has the kernels at fewer sizes
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_no_hot_kernel_spills(target):
    result = report("--target", target)
    known = any(where == target for _, where in SPILLED)
    assert result.returncode == int(known), result.stderr
    table = rows(result.stdout)
    names = {row[0] for row in table}
    assert {"message_fwd F=128", "message_force_bwd F=128", "message_bwd F=128", "node_bwd F=128 tf32"} <= names
    for row in table:
        name, where, _, registers, spilled, _, instructions, loop, fma = row[:9]
        assert (where, int(spilled)) == (target, SPILLED.get((name, target), 0)), name
        assert 0 < int(registers) <= 512, name
        assert int(fma) <= int(loop) <= int(instructions), name


SPILLING = """
import sys
import triton, triton.language as tl
from painn_fast.kernels.tools import static_report

@triton.jit
def kernel(p, n, ROWS: tl.constexpr):
    f = tl.arange(0, 256)
    rows = ()
    for k in tl.static_range(ROWS):
        rows += (tl.load(p + k * 256 + f),)
    total = tl.zeros((256,), tl.float32)
    for e in range(n):
        for k in tl.static_range(ROWS):
            total += rows[k] * tl.load(p + e + k)
    tl.store(p + f, total)

case = "greedy", kernel, {"p": "*fp32", "n": "i32", "ROWS": "constexpr"}, {"ROWS": 160}, 1
static_report.all_cases = lambda lanes: [case]
sys.exit(static_report.main(["--target", "sm_90", "--target", "gfx942"]))
"""


def test_a_kernel_that_spills_ends_the_report_with_status_1(tmp_path):
    file = tmp_path / "spilling.py"
    file.write_text(SPILLING)
    result = report(program=[str(file)])
    assert result.returncode == 1, result.stderr
    assert "greedy spills" in result.stderr
    table = rows(result.stdout)
    assert [row[1] for row in table] == ["sm_90", "gfx942"]
    for row in table:
        assert int(row[4]) > 0
        assert int(row[8]) >= 100  # the loop was found


IN_FLOAT64 = """
import sys
from painn_fast.kernels.tools import static_report

def doubled(case):
    name, kernel, signature, constants, warps = case
    return name, kernel, {a: t.replace("fp32", "fp64") for a, t in signature.items()}, constants, 2 * warps

listed = [doubled(case) for case in static_report.all_cases(32) if case[0].startswith("message") and "F=128" in case[0]]
static_report.all_cases = lambda lanes: listed
static_report.main(["--target", "sm_90"])
print(len(listed), file=sys.stderr)
"""


@pytest.mark.slow
def test_every_message_kernel_compiles_in_float64(tmp_path):
    file = tmp_path / "double.py"
    file.write_text(IN_FLOAT64)
    result = report(program=[str(file)])
    assert result.returncode == 0, result.stderr
    assert len(rows(result.stdout)) == int(result.stderr.split()[-1]) > 10
