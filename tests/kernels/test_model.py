"""The model of performance counts what code executes and what the engine launches, and responds as a GPU would."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("triton")

from painn_fast.bench.cases import CASES
from painn_fast.engine.gpu import FUSED_UP_TO
from painn_fast.graph import batch_atoms
from painn_fast.kernels.tools import model

H200, A100 = model.GPUS["H200"], model.GPUS["A100"]
WORK = model.Work(10_000, 6_000, 0, 50, 50_000, 4, 80, 16_384)


def time_of(launch_gpu=H200, programs=100, **changed):
    return model.seconds(model.Launch("some", replace(WORK, **changed), programs), launch_gpu)


def test_twice_the_instructions_take_twice_the_time_but_for_the_launch():
    fixed = model.LAUNCH + model.START / H200.clock
    once, twice = time_of(), time_of(instructions=20_000, barriers=100)
    assert twice - fixed == pytest.approx(2 * (once - fixed))


def test_barriers_bytes_and_products_take_time_where_they_are_what_is_waited_for():
    assert time_of(barriers=500) - time_of() == pytest.approx(450 * model.BARRIER / H200.clock)
    assert time_of(loaded=10e6) > 10 * time_of()
    assert time_of(products=1e5) > 10 * time_of()


def test_programs_are_free_until_every_multiprocessor_has_one():
    assert time_of(programs=132) == time_of(programs=1)
    assert time_of(programs=40 * 132) > 5 * time_of(programs=132)
    alone = replace(WORK, warps=1)
    full = [model.seconds(model.Launch("some", w, 8 * 132), H200) for w in (alone, replace(alone, shared=200_000))]
    assert full[1] > 4 * full[0]  # programs that do not fit beside each other wait for each other


def test_each_launch_costs():
    launch = model.Launch("copy")
    assert model.total([launch] * 3, H200) == pytest.approx(3 * model.total([launch], H200))
    assert model.total([launch], H200) >= model.LAUNCH


def test_a_slower_device_takes_longer_and_memory_counts_beyond_the_cache():
    assert time_of(A100) > time_of()
    large = model.Launch("copy", moved=1e9)
    times = [model.total([large], model.GPUS[name]) for name in ("H200", "H100", "A100")]
    assert times == sorted(times)
    assert times[0] == pytest.approx(1e9 / H200.memory, rel=0.1)


def test_the_engine_chooses_its_nodes_as_the_model_does():
    assert model.FUSED_UP_TO == FUSED_UP_TO


@pytest.mark.parametrize("name", ["qm9-50", "ethanol-1", "ethanol-10", "ethanol-64"])
def test_sizes_are_those_of_the_cases(name):
    batch = batch_atoms(CASES[name].structures(), 5.0)
    assert model.SIZES[name] == model.Size(batch.n_total, len(batch.sender), batch.n_molecules)


COMPILED = """
import json
from painn_fast.kernels.node import triton as nodes
from painn_fast.kernels.tools import model

gpu, shapes = model.GPUS["H200"], {s: nodes.shape_of("ieee", s) for s in (9, 933)}
work = [
    (shape.rows, shape.warps, w.fma, w.instructions, w.barriers)
    for shape in shapes.values()
    for w in (model.node_work(which, "ieee", shape, "sm_90", False) for which in ("node_fwd", "node_bwd"))
]
edges = [model.kernel_work("message_fwd F=128", "sm_90", (n, 1)).instructions for n in (10, 11)]
names = [each.name for each in model.evaluation(model.SIZES["ethanol-1"], gpu, forces=True)]
layers = [
    (shape.rows, shape.warps, w.products, model.layer_work(which, "ieee", shape, "sm_90", "", 0, True).fma)
    for shape in shapes.values()
    for which in ("layer_fwd", "layer_bwd")
    for w in [model.layer_work(which, "ieee", shape, "sm_90", "", 8, True)]
]
print(json.dumps([work, edges, names, layers]))
"""


def in_a_process(*command):
    """Where kernels are compiled, not interpreted."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    run = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.slow
def test_counts_of_compiled_code_are_those_of_the_equations_and_launches_those_of_the_engine():
    work, (few, more), names, layers = in_a_process("-c", COMPILED)
    for rows, warps, fma, instructions, barriers in work:
        exact = rows * 15 * 128**2 / (32 * warps)  # README.md of the node: 30 F^2 flops an atom
        assert exact <= fma <= 1.05 * exact
        assert fma < instructions < 4 * fma
        assert barriers > 10
    assert 200 < more - few < 260  # instructions an edge, README.md of the message
    for (rows, warps, products, alone), filters in zip(layers, (1, 2, 1, 2), strict=True):
        tiles = max(
            1, 2 * rows * filters / 16
        )  # of two edges a row, of 16 rows and 8 columns; 32 functions, 3 products
        assert products == 8 / 2 * tiles * 3 * (128 / 8) * (32 / 16) * 3 / warps
        assert alone > rows * 15 * 128**2 / (32 * warps)
    got = in_a_process(str(Path(__file__).with_name("jit_path.py")), "engine ieee fused")["captures"][1]["launched"]
    assert [f"{name}_kernel" for name in names] == got
