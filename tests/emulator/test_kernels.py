"""Every Triton kernel, as it is compiled for an H200, equals its specification, without a hazard."""

import pytest

from emulator.subjects import subjects

SUBJECTS = subjects()


@pytest.mark.parametrize(
    "name", [name if each.quick else pytest.param(name, marks=pytest.mark.slow) for name, each in SUBJECTS.items()]
)
def test_a_kernel_equals_its_specification_without_a_hazard(name, request):
    emulator = request.config.emulator
    first = len(emulator.executions)
    SUBJECTS[name].check()
    launched = emulator.executions[first:]
    assert {launch.name for launch in launched} == SUBJECTS[name].kernels
    assert all(sum(launch.instructions.values()) > 0 for launch in launched)
    assert sum(launch.traffic["global"]["stored"] for launch in launched) > 0
