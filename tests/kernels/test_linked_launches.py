"""Linked launches: a program touches no memory before all launches ahead of its own have ended."""

import ctypes
import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

from painn_fast.kernels.layer import triton as layer

SCRIPT = """
import json
import re
from painn_fast.kernels.layer.triton import case, layer_bwd_kernel, layer_fwd_kernel
from painn_fast.kernels.node.triton import shape_of
from painn_fast.kernels.tools.static_report import compile_case

for kernel, which in [(layer_fwd_kernel, "first"), (layer_fwd_kernel, "last"), (layer_bwd_kernel, "first")][-COUNT:]:
    for linked in (True, False):
        made, registers, spilled, text, _ = compile_case(
            case(kernel, 64, "ieee", shape_of("ieee", 1), which, linked=linked), "sm_90"
        )
        kinds = {"wait": "ACQBULK", "next": "PREEXIT", "memory": r"LDG|STG|LD\\b|ST\\b|ATOM|RED|UBLKCP",
                 "branch": "BRA|EXIT|RET|CALL|BSSY"}
        at = {name: [k for k, line in enumerate(text) if re.match(kind, line)] for name, kind in kinds.items()}
        ptx = made.asm["ptx"].split("{", 1)[1]
        print(json.dumps(at | {"spilled": spilled, "registers": registers, "waits": ptx.count("griddepcontrol.wait")}))
"""


@pytest.fixture(scope="module", params=[1, pytest.param(3, marks=pytest.mark.slow)])
def compiled(request):
    """Positions of instructions in the machine code of some kernels for sm_90, linked and not."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    script = f"COUNT = {request.param}\n{SCRIPT}"
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    return list(zip(lines[::2], lines[1::2], strict=True))


def test_every_program_waits_before_it_touches_memory_and_before_any_branch(compiled):
    for linked, _ in compiled:
        (wait,), (following,) = linked["wait"], linked["next"]
        assert linked["waits"] == 1
        assert wait < following
        assert wait < min(linked["memory"])
        assert wait < min(linked["branch"])


def test_other_launches_wait_for_nothing_and_links_cost_no_registers_that_spill(compiled):
    for linked, plain in compiled:
        assert plain["wait"] == plain["next"] == []
        assert len(plain["memory"]) == len(linked["memory"]) > 50
        assert linked["spilled"] == plain["spilled"] == 0


def test_the_version_is_that_of_the_driver(monkeypatch):
    class Driver:
        def __init__(self, name):
            assert name == "libcuda.so.1"

        def cuDriverGetVersion(self, pointer):
            pointer._obj.value = 12080

    monkeypatch.setattr(layer.ctypes, "CDLL", Driver)
    assert layer.driver_version() == 12080
    load = ctypes.PyDLL  # CDLL of another name
    monkeypatch.setattr(layer.ctypes, "CDLL", lambda name: load(f"no-such-folder/{name}"))
    assert layer.driver_version() == 0


def test_without_a_gpu_nothing_is_linked(monkeypatch):
    monkeypatch.setattr(layer.torch.cuda, "is_available", lambda: False)
    layer.can_be_linked.cache_clear()
    assert not layer.can_be_linked()
    layer.can_be_linked.cache_clear()


@pytest.mark.parametrize(("capability", "version", "possible"), [((9, 0), 12030, True), ((8, 0), 13000, False),
                                                                ((10, 0), 12020, False)])  # fmt: skip
def test_links_need_a_device_and_a_driver_that_have_them(monkeypatch, capability, version, possible):
    for name, value in {"is_available": True, "device_count": 1, "get_device_capability": capability}.items():
        monkeypatch.setattr(layer.torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(layer, "driver_version", lambda: version)
    layer.can_be_linked.cache_clear()
    assert layer.can_be_linked() == possible
    layer.can_be_linked.cache_clear()
