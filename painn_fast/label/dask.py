"""Labels by a Dask cluster, on other machines too; the structures of a worker that is lost go to others."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import ase

from painn_fast.errors import PaiNNFastError
from painn_fast.label.methods import How, Method
from painn_fast.label.workers import Entry, Task, Workers, labels_of

AHEAD = 2
"""Structures that are sent for each thread of the cluster, so that none waits for the next."""
TIMEOUT = "10s"
"""How long a scheduler may take to answer."""


class DaskWorkers(Workers):
    """Workers of a cluster instead of processes.

    They have painn-fast and the method installed; each thread of a worker labels one structure at a time, so that
    workers should have one thread each (dask worker, nthreads 1).

    Args:
        how: the method.
        address: of the scheduler, such as tcp://host:8786.

    Raises:
        PaiNNFastError: if distributed is not installed, nothing answers at the address, or there are no workers.
    """

    def __init__(self, how: How, address: str) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise PaiNNFastError("Dask is not installed", fix="pip install distributed") from None
        try:
            self._client = Client(address, timeout=TIMEOUT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise PaiNNFastError(
                "no Dask scheduler",
                where=address,
                got=str(error),
                fix="start one with `dask scheduler`, and its workers",
            ) from None
        threads = sum(self._client.nthreads().values())
        if not threads:
            raise PaiNNFastError("a Dask scheduler without workers", where=address, fix=f"dask worker {address}")
        super().__init__(how, threads)

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def results(self, tasks: Iterator[Task]) -> Iterator[tuple[int, Any]]:
        """As `Workers.results`.

        Raises:
            PaiNNFastError: if workers are lost again and again on one structure.
        """
        from distributed import KilledWorker, as_completed

        numbers: dict[str, int] = {}

        def submit() -> Any:
            for number, atoms, with_polarizability in tasks:
                future = self._client.submit(_one, self.how, atoms, with_polarizability, pure=False)
                numbers[future.key] = number
                return future
            return None

        first = [future for _ in range(AHEAD * self.count) if (future := submit()) is not None]
        running = as_completed(first, loop=self._client.loop)
        for future in running:
            number = numbers.pop(future.key)
            try:
                entry = future.result()
            except KilledWorker as error:
                raise PaiNNFastError("workers are lost", where=f"structure {number}", got=str(error)) from None
            yield number, entry
            following = submit()
            if following is not None:
                running.add(following)


def _one(how: How, atoms: ase.Atoms | list[ase.Atoms], with_polarizability: bool) -> Entry | list[Entry]:
    return labels_of(_method(how), atoms, with_polarizability)


@functools.cache
def _method(how: How) -> Method:
    """Made once in each worker."""
    return how.make()
