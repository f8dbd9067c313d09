"""The emulator notices faults that are planted in the PTX of kernels that are right."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from emulator.subjects import between_messages, operation
from painn_fast.kernels.readout.triton import cases


def noticed(emulator, edit, run):
    """Kinds of hazards of launches of changed PTX; an error of the check that they are right counts as "wrong"."""
    emulator.edit, emulator.strict = edit, False
    first, kinds = len(emulator.executions), Counter()
    try:
        run()
    except AssertionError:
        kinds["wrong"] += 1
    finally:
        emulator.edit, emulator.strict = None, True
    for execution in emulator.executions[first:]:
        kinds.update(hazard.kind for hazard in execution.hazards)
    return kinds


def replaced(kernel, pattern, replacement, number):
    """Change the PTX of a kernel where a pattern matches for the k-th time."""

    def edit(text):
        if f".entry {kernel}(" not in text:
            return text
        match = list(re.finditer(pattern, text))[number]
        return text[: match.start()] + match.expand(replacement) + text[match.end() :]

    return edit


def node(precision="tf32x3"):
    between_messages(precision, None)


def update():
    operation("update", torch.float32, 4096, "sinc")


@pytest.fixture
def emulator(request):
    return request.config.emulator


def test_unchanged_kernels_have_no_hazard(emulator):
    assert not noticed(emulator, lambda text: text, node)
    assert not noticed(emulator, lambda text: text, update)


def barriers(text):
    """Numbers of the barriers between a store to shared memory and a load: others may be more than are needed."""
    pattern = r"\b(bar\.sync|st\.shared|stmatrix|ld\.shared|ldmatrix|cp\.async)\b"
    order = [match[1] for match in re.finditer(pattern, text)]
    before, after = ("st.shared", "stmatrix"), ("ld.shared", "ldmatrix")
    numbers = [k for k, name in enumerate(order) if name == "bar.sync"]
    return [n for n, k in enumerate(numbers) if order[k - 1] in before and order[k + 1 : k + 2][0] in after]


@pytest.mark.parametrize("kernel", ["node_fwd_kernel", pytest.param("node_bwd_kernel", marks=pytest.mark.slow)])
def test_a_barrier_that_is_missing_is_a_race(emulator, kernel, request):
    node()
    text = next(text for text in reversed(emulator.texts) if f".entry {kernel}(" in text)
    numbers = barriers(text)
    assert len(numbers) > 10
    chosen = numbers if "not" not in request.config.getoption("-m") else numbers[len(numbers) // 2 :][:1]
    missed = [
        k
        for k in chosen
        if not noticed(emulator, replaced(kernel, r"bar\.sync\s+0;", "", k), node)["race within a program"]
    ]
    assert not missed, f"of {chosen}"


def test_a_copy_that_is_read_before_its_end_is_noticed(emulator):
    edit = replaced("node_fwd_kernel", r"cp\.async\.wait_group\s+(\d+);", "", 0)
    assert noticed(emulator, edit, lambda: node("ieee"))["read of what nothing has written"]


def test_a_mask_that_is_too_wide_is_out_of_bounds(emulator):
    edit = replaced("norm_fwd_kernel", r"setp\.lt\.s64", "setp.le.s64", 0)
    assert noticed(emulator, edit, update)["access out of bounds"]


def test_a_mask_that_is_too_narrow_leaves_memory_that_nothing_has_written(emulator):
    edit = replaced("node_fwd_kernel", r"setp\.lt\.s64(\s+%p\d+, %rd\d+, %rd)", r"setp.gt.s64\1", 0)
    assert noticed(emulator, edit, node).keys() & {"read of what nothing has written", "access out of bounds"}


def test_two_programs_that_write_one_row_are_a_race(emulator):
    edit = replaced("norm_fwd_kernel", r"mov\.u32(\s+%r\d+), %ctaid\.x;", r"mov.u32\1, 0;", 0)
    kinds = noticed(emulator, edit, update)
    assert kinds["race between programs"]
    assert kinds["wrong"]


def test_a_store_that_is_missing_is_noticed(emulator):
    edit = replaced("node_fwd_kernel", r"st\.shared\.[^;]*;", "", 0)
    assert noticed(emulator, edit, node)["read of what nothing has written"]


def test_a_wrong_constant_is_a_wrong_result(emulator):
    edit = replaced("norm_fwd_kernel", r"0f322BCC77", "0f3F800000", 0)  # 1 for the 1e-8 in the root
    assert noticed(emulator, edit, update) == {"wrong": 1}


def code():
    """Of a kernel, as a driver would load it."""
    _, kernel, signature, constants, warps, *_ = cases()[0]
    source = ASTSource(kernel, signature, constants)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps}).asm["cubin"]


def test_another_process_has_machine_code_and_this_one_ptx(emulator):
    """Of one kernel, in a cache that they share."""
    folder = str(Path(__file__).parents[1])
    script = f"import sys; sys.path.insert(0, {folder!r}); from emulator.test_controls import code; print(code()[:4])"
    assert b".entry" in code()
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == str(b"\x7fELF"), run.stderr
    assert b".entry" in code()
