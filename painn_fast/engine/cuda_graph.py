"""CUDA graphs: many launches that the processor starts at once."""

from __future__ import annotations

from collections.abc import Callable

import torch

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
