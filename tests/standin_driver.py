"""A Triton driver that stands for an NVIDIA H200: kernels are specialised as there, and launches are noted, not made.

To be installed before the first launch, in a process without TRITON_INTERPRET; tensors are on the CPU.
"""

from dataclasses import dataclass, field

import torch
import triton.compiler
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.driver import CudaDriver
from triton.runtime.driver import driver

H200 = {"max_shared_mem": 232448, "max_num_regs": 65536, "multiprocessor_count": 132, "warpSize": 32}


class Utils:
    """What Triton asks of the driver's library."""

    def get_device_properties(self, device):
        return H200

    def load_binary(self, name, binary, shared, device):
        """Module, function, registers, spills and threads that a program may have."""
        return 0, 0, 0, 0, 1024


class Driver(CudaDriver):
    """Without the initialisation of the one for CUDA, which needs its library."""

    def __init__(self, launcher):
        self.utils, self.launcher_cls = Utils(), launcher

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_active_torch_device(self):
        return torch.device("cpu")

    def get_device_capability(self, device=0):
        return 9, 0

    def get_current_device(self):
        return 0

    def set_current_device(self, device):
        pass

    def get_current_stream(self, device=None):
        return 0


@dataclass
class Standin:
    """Notes what is compiled and launched.

    Args:
        compiles: False is fast and only notes which versions of which kernels a GPU would need.
    """

    compiles: bool = True
    compiled: list[str] = field(default_factory=list)
    launched: list[str] = field(default_factory=list)

    def install(self):
        ours = Driver(self._launcher)
        driver.set_active(ours)
        driver._default = ours
        compile_kernel = triton.compiler.compile

        def noted(source, *args, **options):
            self.compiled.append(source.fn.__name__)
            return compile_kernel(source, *args, **options) if self.compiles else _Kernel(source, self.launched)

        triton.compiler.compile = noted
        return self

    def _launcher(self, source, metadata):
        return lambda *_: self.launched.append(source.fn.__name__)


@dataclass
class _Kernel:
    """One that was not compiled."""

    source: object
    launched: list[str]
    function: int = 0
    packed_metadata: tuple = ()

    def launch_metadata(self, grid, stream, *args):
        return None

    def run(self, *_):
        self.launched.append(self.source.fn.__name__)
