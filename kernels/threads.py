"""The number of threads that operations on a CPU take, ours or those of torch."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

_local = threading.local()
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def count() -> int:
    """Threads for one of our operations: torch's number, unless `ours` has taken them."""
    taken: int | None = getattr(_local, "ours", None)
    return torch.get_num_threads() if taken is None else taken


@contextmanager
def ours() -> Iterator[None]:
    """Inside of it, torch's operations run on one thread and ours on all that torch had.

    After each parallel operation torch's threads wait for the next by spinning, for milliseconds, on the cores that
    ours need then. A training step does nearly all its work in our operations: 10 ethanol on two cores take 18 ms in
    here, 26 ms outside. Both numbers belong to the thread that calls, as torch's does.
    """
    if getattr(_local, "ours", None) is not None:
        yield
        return
    keep_memory()
    torchs = torch.get_num_threads()
    if torchs > 1:
        torch.set_num_threads(1)
    _local.ours = torchs
    try:
        yield
    finally:
        _local.ours = None
        if torchs > 1:
            torch.set_num_threads(torchs)


def ours_in_backward(results: Iterable[Tensor]) -> None:
    """As `ours` in a pass of autograd, from these results of a training step to its end, and in the optimizer after it.

    Both are called by a loop that is not ours, and would leave torch's threads spinning in our next operations: 10
    ethanol on two cores take 37 ms of CPU time a step without this, 22 ms with it.
    """
    _watch_optimizers()
    for result in results:
        if result.grad_fn is not None:
            result.grad_fn.register_prehook(_begin_in_pass)


def _begin_in_pass(*_: Any) -> None:
    _local.optimizer_is_next = True
    if getattr(_local, "ours", None) is None:
        region = ours()
        region.__enter__()
        # a pass that fails drops the callback, the last reference to the region, which ends with it
        Variable._execution_engine.queue_callback(partial(_end, region))


@lru_cache(maxsize=1)
def _watch_optimizers() -> None:
    register_optimizer_step_pre_hook(_before_optimizer)
    register_optimizer_step_post_hook(_after_optimizer)


def _before_optimizer(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Begin after the backward pass, which may be in the closure and fail there."""
    closure = kwargs.get("closure")
    if closure is None:
        if len(args) == 1:  # the optimizer, and no closure
            _begin_in_optimizer()
        return None

    def then_begin() -> Any:
        value = closure()
        _begin_in_optimizer()
        return value

    return args, {**kwargs, "closure": then_begin}


def _begin_in_optimizer() -> None:
    if _local.__dict__.pop("optimizer_is_next", False) and getattr(_local, "ours", None) is None:
        _local.optimizer = ours()
        _local.optimizer.__enter__()


def _after_optimizer(*_: Any) -> None:
    region = _local.__dict__.pop("optimizer", None)
    if region is not None:
        _end(region)


def _end(region: AbstractContextManager[None]) -> None:
    region.__exit__(None, None, None)


@lru_cache(maxsize=1)
def keep_memory() -> None:
    """Have glibc keep memory that is freed for what is allocated next, instead of giving it back to the system.

    What a step allocates the next one needs again, and pages that come fresh from the system cost a sixth of the time
    of a step.
    """
    with suppress(OSError, AttributeError, TypeError):  # not glibc; TypeError on Windows
        mallopt = ctypes.CDLL(None).mallopt
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(parameter, 2**30)


def run(work: Callable[..., Any], parts: Sequence[Any]) -> None:
    """work(part, its number) for all parts; each thread, this one too, takes the next part when it has done one."""
    numbered = iter(list(enumerate(parts)))  # one step of a list's iterator is atomic

    def take() -> None:
        for k, part in numbered:
            work(part, k)

    others = [_pool(count() - 1).submit(take) for _ in range(min(count(), len(parts)) - 1)]
    try:
        take()
    finally:
        for other in others:
            other.result()


def beside(work: Callable[[], Any]) -> Callable[[], Any]:
    """Begin work() on one other of our threads, at once if there is none; the function returned waits for its end."""
    if count() == 1:
        work()
        return lambda: None

    def alone() -> None:
        _local.ours = 1
        try:
            work()
        finally:
            _local.ours = None

    return _pool(count() - 1).submit(alone).result


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "painn")
