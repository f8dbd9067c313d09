"""The processes that work together, as `torchrun` starts them; no effect in a single process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class Ranks:
    """This process among `world` of them; each has the whole data set and takes every `world`-th row of a batch.

    Args:
        rank: number of this process, from 0.
        world: number of processes.
    """

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world

    @property
    def first(self) -> bool:
        """Whether this is the process that validates, prints and writes."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes; the same bits in each."""
        if self.world > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)

    def total(self, value: float) -> float:
        """Sum of a number over all processes."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        box: list[Any] = [None] * self.world
        dist.all_gather_object(box, value)
        return float(sum(box))

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.world > 1:
            import torch.distributed as dist

            dist.barrier()

    def broadcast_from_rank_0(self, value: Any) -> Any:
        """The value of the first process, in all of them."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def rank_and_world_size() -> tuple[int, int]:
    """Number of this process and number of processes, from the environment of `torchrun`; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def ranks(device: str, patience: timedelta | None = None) -> Iterator[tuple[Ranks, str]]:
    """The group that `torchrun` asks for in the environment, and the device of this process; gloo or NCCL.

    Args:
        device: such as "cpu" or "cuda", which becomes a device of this process's own.
        patience: how long one waits for another; None is torch's half hour.
    """
    world = rank_and_world_size()[1]
    if world == 1:
        yield Ranks(), device
        return
    import torch.distributed as dist

    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        import torch

        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=patience)
    try:
        yield Ranks(dist.get_rank(), world), device
    finally:
        dist.destroy_process_group()
