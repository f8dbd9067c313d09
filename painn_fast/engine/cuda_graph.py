"""CUDA graphs: many launches that the processor starts at once; streams that take turns at the same memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

WARM_UP = 2
"""Calls before a capture: kernels are compiled and libraries set up by then."""


def captured(
    run: Callable[[], None], device: torch.device, warm_up: Callable[[], object] | None = None
) -> Callable[[], None]:
    """`run` as one CUDA graph, to be called; on other devices `run` itself.

    Args:
        run: launches on tensors that stay where they are, without waiting for the device.
        device: of the tensors.
        warm_up: is called before, instead of `run`, where each call of that counts.
    """
    if device.type != "cuda":
        return run
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                (warm_up or run)()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            run()
    replay: Callable[[], None] = graph.replay
    return replay


class StreamOrder:
    """Lets streams take turns at memory that they share: a lock orders threads, but not what these have launched.

    Args:
        device: of the memory, which the current stream has made.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._last = self._current()

    def enter(self, memory: Iterable[Tensor]) -> None:
        """The current stream comes after the last one that was here."""
        stream = self._current()
        if stream is not None and self._last is not None and stream != self._last:
            stream.wait_stream(self._last)
            for tensor in memory:
                tensor.record_stream(stream)  # it is not given to others before this stream is done
        self._last = stream

    def _current(self) -> torch.cuda.Stream | None:
        return torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None
