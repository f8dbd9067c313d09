"""Registers, spills and instructions of every GPU kernel: `python -m painn_fast.kernels.tools.static_report`.

It compiles and needs no GPU.

A module `painn_fast.kernels.<operation>.triton*` names its hot kernels in a function `cases()`, or `cases(lanes)` if
their launch depends on the lanes of a warp: a list of (name, jit kernel, {argument: type}, {constexpr argument: value},
warps), where a type is Triton's, "*fp32" or "i32", or "constexpr"; behind it there may be {option of the compiler:
value}. Each is compiled for every target; a spill in any of them ends the report with status 1.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import painn_fast.kernels

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TOOLS = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin")


@dataclass(frozen=True)
class Compiled:
    """Bytes and registers are those of a thread, shared memory of a program; the loop is over edges."""

    name: str
    target: str
    warps: int
    registers: int
    spilled: int
    shared: int
    instructions: int
    loop: int
    loop_fma: int
    loop_loads: list[int]  # of 16, 8 and 4 or fewer bytes a thread


def all_cases(lanes: int) -> list[tuple[Any, ...]]:
    """The cases of every operation, in the order of their modules."""
    found = pkgutil.walk_packages(painn_fast.kernels.__path__, "painn_fast.kernels.")
    names = sorted(module.name for module in found if module.name.rpartition(".")[2].startswith("triton"))
    makers = [getattr(importlib.import_module(name), "cases", None) for name in names]
    return [case for make in makers if make for case in (make(lanes) if _wants_lanes(make) else make())]


def _wants_lanes(make: Callable[..., Any]) -> bool:
    return bool(inspect.signature(make).parameters)


def compiled(case: tuple[Any, ...], target: str) -> Compiled:
    """Compile one case."""
    made, registers, spilled, text, labels = compile_case(case, target)
    name, warps = case[0], case[4]
    loop = text[slice(*_loop(text, labels))]
    loads = [sum(bool(re.match(size, line)) for line in loop) for size in LOADS]
    shared = made.metadata.shared
    return Compiled(name, target, warps, registers, spilled, shared, len(text), len(loop), _fma(loop), loads)


def compile_case(case: tuple[Any, ...], target: str) -> tuple[Any, int, int, list[str], dict[str, int]]:
    """The kernel, registers, spilled bytes, instructions, and positions of labels among them.

    Pointers are taken for aligned to 16 bytes, as torch allocates them.
    """
    _, kernel, signature, constants, warps, *more = case
    aligned = {(k,): [["tt.divisibility", 16]] for k, kind in enumerate(signature.values()) if kind.startswith("*")}
    source = ASTSource(kernel, signature, constants, aligned)
    made = triton.compile(source, target=TARGETS[target], options={"num_warps": warps, **(more[0] if more else {})})
    return made, *(_amd if target.startswith("gfx") else _nvidia)(made.asm)


LOADS = (
    r"LDG\.E\.128|global_load_dwordx4",
    r"LDG\.E\.64|global_load_dwordx2",
    r"LDG\.E(?!\.64|\.128)|global_load_dword(?!x)",
)


def _nvidia(asm: dict[str, Any]) -> tuple[int, int, list[str], dict[str, int]]:
    """Registers, bytes of stack, instructions without predicates, and positions of labels."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(asm["cubin"])
        file.flush()
        usage = _output("cuobjdump", "-res-usage", file.name)
        listing = _output("nvdisasm", "-c", file.name)
    registers, stack = (_number(rf"{key}:(\d+)", usage) for key in ("REG", "STACK"))
    instruction = r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?\s*(.*?)\s*;"
    return registers, stack, *_instructions(listing, r"(\.L\w+):", instruction)


def _amd(asm: dict[str, Any]) -> tuple[int, int, list[str], dict[str, int]]:
    """The same of the assembler text; a spilled register is 4 bytes."""
    source = asm["amdgcn"]
    keys = ("vgpr_count", "vgpr_spill_count", "sgpr_spill_count")
    registers, *spilled = (_number(rf"\.{key}:\s+(\d+)", source) for key in keys)
    listing = source[: source.index("s_endpgm")]
    return registers, 4 * sum(spilled), *_instructions(listing, r"(\.LBB\w+):", r"\t([a-z]\w+(?:\s.*)?)")


def _instructions(listing: str, label: str, instruction: str) -> tuple[list[str], dict[str, int]]:
    """Lines of instructions, and the number of the instruction after each label."""
    text: list[str] = []
    labels = {}
    for line in listing.splitlines():
        if match := re.match(label, line):
            labels[match[1]] = len(text)
        elif match := re.match(instruction, line):
            text.append(match[1].replace("\t", " "))
    return text, labels


def loops(text: list[str], labels: dict[str, int]) -> list[tuple[int, int]]:
    """From a label to behind the branch back to it."""
    found = []
    for end, line in enumerate(text):
        branch = re.match(r"(?:BRA|s_c?branch).*?(\.L\w+)", line)
        if branch and labels.get(branch[1], end) < end:
            found.append((labels[branch[1]], end + 1))
    return found


def _loop(text: list[str], labels: dict[str, int]) -> tuple[int, int]:
    """The smallest loop that holds half of all multiply-adds."""
    enough = [loop for loop in loops(text, labels) if 2 * _fma(text[slice(*loop)]) >= _fma(text)]
    return min(enough, key=lambda loop: loop[1] - loop[0], default=(0, 0))


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"no {pattern!r} in what the compiler wrote: {text[:200]!r}")
    return int(match[1])


def _fma(text: list[str]) -> int:
    return sum(bool(re.match(r"[FD]FMA|v_(pk_)?fma", line)) for line in text)


def _output(tool: str, *arguments: str) -> str:
    return subprocess.run([os.path.join(TOOLS, tool), *arguments], capture_output=True, text=True, check=True).stdout


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if anything spills."""
    parser = argparse.ArgumentParser(prog="python -m painn_fast.kernels.tools.static_report", description=__doc__)
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one; may be given again")
    parser.add_argument("--only", default="", metavar="TEXT", help="only kernels whose name contains it")
    options = parser.parse_args(arguments)
    heads = "kernel, target, warps, registers, spilled B, shared B, instructions, in the loop, FMA, loads 16/8/4 B"
    print("|", heads.replace(", ", " | "), "|")
    print("|", "---|" * 10, sep="")
    spilled = []
    for target in options.target or TARGETS:
        for case in all_cases(TARGETS[target].warp_size):
            if options.only not in case[0]:
                continue
            c = compiled(case, target)
            loads = "/".join(map(str, c.loop_loads))
            numbers = (c.warps, c.registers, c.spilled, c.shared, c.instructions, c.loop, c.loop_fma, loads)
            print("|", " | ".join(map(str, (c.name, c.target, *numbers))), "|", flush=True)
            spilled += [f"{c.name} spills {c.spilled} bytes a thread on {c.target}"] * (c.spilled > 0)
    print("\n".join(spilled), file=sys.stderr)
    return 1 if spilled else 0


if __name__ == "__main__":
    sys.exit(main())
