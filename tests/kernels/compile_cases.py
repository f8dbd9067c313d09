"""Compile the cases of some modules for four GPUs, none needed: a line "name, target, registers, spilled" for each."""

import os
import re
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGETS = [GPUTarget("cuda", capability, 32) for capability in (80, 90, 100)] + [GPUTarget("hip", "gfx942", 64)]
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def compiled(case, target):
    """Registers and spilled registers or bytes of a thread."""
    _, kernel, signature, constants, warps = case
    aligned = {(k,): [["tt.divisibility", 16]] for k, kind in enumerate(signature.values()) if kind.startswith("*")}
    source = ASTSource(kernel, signature, constants, aligned)
    asm = triton.compile(source, target=target, options={"num_warps": warps}).asm
    if target.backend == "hip":
        spills = re.findall(r"\.[vs]gpr_spill_count:\s+(\d+)", asm["amdgcn"])
        return re.search(r"\.vgpr_count:\s+(\d+)", asm["amdgcn"])[1], sum(map(int, spills))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(asm["cubin"])
        usage = subprocess.run([CUOBJDUMP, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    return re.search(r"REG:(\d+)", usage)[1], int(re.search(r"STACK:(\d+)", usage)[1])


if __name__ == "__main__":
    assert not os.environ.get("TRITON_INTERPRET")
    for name in sys.argv[1:]:
        for case in import_module(name).cases():
            for target in TARGETS:
                print(case[0], target.arch, *compiled(case, target), sep=", ")
