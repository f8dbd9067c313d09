"""A driver for Triton: kernels are specialised and compiled as for an H200, and their PTX is executed."""

import os

import numpy as np
import torch
import triton.runtime.driver
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler, driver

from emulator.machine import Machine
from emulator.memory import POISON, bytes_of
from emulator.translate import translated


class HazardError(AssertionError):
    """A launch that works by chance."""


class Emulator(driver.CudaDriver):
    """All launches while it is active, on tensors of the CPU.

    Args:
        executions: what each launch did.
        edit: a change of the PTX before it is executed, for tests of the emulator.
        strict: a hazard ends a launch with an error.
    """

    def __init__(self):
        self.utils, self.launcher_cls = _Utils(self), self._launcher
        self.get_device_capability = lambda device=0: (9, 0)
        self.get_current_device = lambda: 0
        self.set_current_device = lambda device: None
        self.get_current_stream = lambda device=0: 0
        self.texts, self.executions = [], []
        self.edit, self.strict = None, True

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_active_torch_device(self):
        return torch.device("cpu")

    def _launcher(self, source, metadata):
        kinds = list(source.signature.values())

        def launch(x, y, z, stream, function, packed, launch_metadata, enter, leave, *arguments):
            used = [
                (n, a) for n, a, kind in zip(source.fn.arg_names, arguments, kinds, strict=True) if kind != "constexpr"
            ]
            self._execute(function, (x, y, z), metadata.shared, used)

        return launch

    def _execute(self, function, grid, shared, arguments):
        text = self.texts[function] if self.edit is None else self.edit(self.texts[function])
        program, functions = translated(text)
        tensors = {name: value for name, value in arguments if isinstance(value, torch.Tensor)}
        with np.errstate(all="ignore"):
            machine = Machine(program, grid, shared, {}, tensors)
            values = [machine.memory.address(v) if isinstance(v, torch.Tensor) else v for _, v in arguments]
            values += [0] * (len(program.parameters) - len(values))  # memory of Triton's own, not used here
            for (name, kind), value in zip(program.parameters.items(), values, strict=True):
                machine.parameters[name] = _number(kind, value)
            result = machine.run(functions)
        machine.memory.give_back()
        self.executions.append(result)
        if self.strict and result.hazards:
            raise HazardError(f"{result.name}, grid {grid}:\n" + "\n".join(map(str, result.hazards)))


class _Utils:
    def __init__(self, emulator):
        self.emulator = emulator

    def load_binary(self, name, binary, shared, device):
        """Module, function, registers, spills and most threads."""
        self.emulator.texts.append(binary.decode())
        return 0, len(self.emulator.texts) - 1, 0, 0, 1024

    def get_device_properties(self, device):
        return {"max_shared_mem": 232448, "max_num_regs": 65536, "multiprocessor_count": 132, "warpSize": 32}

    def unload_module(self, module):
        pass

    def set_printf_fifo_size(self, size):
        pass


def _number(kind, value):
    dtype = {"f32": np.float32, "f64": np.float64}.get(kind)
    if dtype:
        return dtype(value).view(f"u{int(kind[1:]) // 8}")
    bits = int(kind[1:])
    return np.array(int(value) % 2**bits, f"u{bits // 8}")[()]


_hash_of_binaries = compiler.CUDABackend.hash


def _hash(backend):
    """Not that of compilers that end with machine code."""
    return f"{_hash_of_binaries(backend)}-ptx"


def activate():
    """Make Triton use an emulator from now on; its compiler ends with PTX. Returns the emulator."""
    if os.environ.get("TRITON_INTERPRET"):
        raise RuntimeError("kernels of this process are interpreted")
    compiler.CUDABackend.make_cubin = lambda self, src, metadata, options, capability: src.encode()
    compiler.CUDABackend.hash = _hash  # part of the name in the cache, which other processes share
    emulator = Emulator()
    triton.runtime.driver.set_active(emulator)
    return emulator


class Poisoned(TorchDispatchMode):
    """Tensors of `torch.empty` and its like hold what no kernel may read."""

    EMPTY = {torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.new_empty, torch.ops.aten.empty_strided,
             torch.ops.aten.new_empty_strided}  # fmt: skip

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        out = function(*arguments, **(keywords or {}))
        if function.overloadpacket in self.EMPTY:
            poison(out)
        return out


def poison(tensor):
    """Fill the storage of a tensor."""
    memory = bytes_of(tensor.untyped_storage())
    words = memory[: len(memory) // 4 * 4].view(np.uint32)
    words[:] = POISON
    return tensor
