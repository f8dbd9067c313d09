"""Processes that label structures, each on one thread; the structures of one that dies go to another."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from types import TracebackType
from typing import Any, Self

import ase
import numpy as np

from painn_fast.errors import PaiNNFastError, one_line
from painn_fast.label.methods import How, Method

Entry = dict[str, Any]
"""Labels of a structure as plain lists, or {"failed": why}."""
Task = tuple[int, ase.Atoms | list[ase.Atoms], bool]
"""Number of a structure or of a list, which is labelled as one, and whether polarizabilities are wanted."""
IN_PROCESS = "model:"
"""Models of ours run in this process, which has their engine compiled and loaded."""
ATTEMPTS = 3
"""Deaths of a process on one structure, after which the structure is taken for their cause."""


class Workers:
    """Processes for one method.

    Args:
        how: the method.
        count: processes.
    """

    def __init__(self, how: How, count: int) -> None:
        self.how, self.count = how, count
        self._pool: ProcessPoolExecutor | None = None
        self._here: Method | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _results_here(self, tasks: Iterator[Task]) -> Iterator[tuple[int, Any]]:
        if self._here is None:
            self._here = self.how.make()
        for number, atoms, with_polarizability in tasks:
            yield number, labels_of(self._here, atoms, with_polarizability)

    def results(self, tasks: Iterator[Task]) -> Iterator[tuple[int, Any]]:
        """An entry or a list of them, in the order in which they are finished; a free process takes the next task.

        Raises:
            PaiNNFastError: if a process dies three times on one structure.
        """
        if self.how.method.startswith(IN_PROCESS):
            yield from self._results_here(tasks)
            return
        running: dict[Future[Any], Task] = {}
        deaths: dict[int, int] = {}
        again: list[Task] = []

        def submit() -> None:
            for task in again[:1] or tasks:
                again[:] = again[1:]
                running[self._submit(task)] = task
                return

        for _ in range(self.count):
            submit()
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                try:
                    entry = future.result()
                except BrokenProcessPool:
                    self._count_death(task, deaths)
                    again.append(task)
                else:
                    yield task[0], entry
                submit()

    def all(self, structures: Sequence[ase.Atoms], *, with_polarizability: bool = False) -> list[Entry]:
        """Labels of structures in their order; each process is sent its share at once.

        Raises:
            PaiNNFastError: as `results`.
        """
        shares = [share.tolist() for share in np.array_split(np.arange(len(structures)), self.count) if len(share)]
        tasks = ((k, [structures[j] for j in share], with_polarizability) for k, share in enumerate(shares))
        shared = dict(self.results(tasks))
        return [entry for k in range(len(shares)) for entry in shared[k]]

    def _submit(self, task: Task) -> Future[Any]:
        with one_thread():  # processes start with the tasks
            with suppress(BrokenProcessPool):
                if self._pool is not None:
                    return self._pool.submit(_one, *task[1:])
            self._pool = ProcessPoolExecutor(self.count, get_context("spawn"), _begin, (self.how,))
            return self._pool.submit(_one, *task[1:])

    def _count_death(self, task: Task, deaths: dict[int, int]) -> None:
        number = task[0]
        deaths[number] = deaths.get(number, 0) + 1
        if deaths[number] == ATTEMPTS:
            raise PaiNNFastError(
                "processes that label die", where=f"structure {number} or one beside it", got=f"{ATTEMPTS} times",
                fix="is memory enough?",
            )  # fmt: skip


@contextmanager
def one_thread() -> Iterator[None]:
    """Processes that start meanwhile have one thread each."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


_method: Method | None = None


def _begin(how: How) -> None:
    global _method  # noqa: PLW0603  one method for the life of a worker process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _method = how.make()


def _end_with_parent() -> None:
    """A parent that is killed closes no queue: its processes would wait for tasks for good."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _one(atoms: ase.Atoms | list[ase.Atoms], with_polarizability: bool) -> Entry | list[Entry]:
    return labels_of(_method, atoms, with_polarizability)  # type: ignore[arg-type]


def labels_of(method: Method, atoms: ase.Atoms | list[ase.Atoms], with_polarizability: bool) -> Entry | list[Entry]:
    """Labels of a structure, or of each of a list."""
    if isinstance(atoms, list):
        return [entry_of(method, one, with_polarizability) for one in atoms]
    return entry_of(method, atoms, with_polarizability)


def entry_of(method: Method, atoms: ase.Atoms, with_polarizability: bool) -> Entry:
    """Labels of a structure by a method, or why it has none."""
    try:
        labels = {name: np.asarray(value, dtype=float) for name, value in method(atoms, with_polarizability).items()}
    except Exception as error:  # a calculator may fail in any way, and label the next structure all the same
        return {"failed": one_line(str(error) or type(error).__name__)}
    for name, value in labels.items():
        if not np.isfinite(value).all():
            return {"failed": f"{name} is not finite"}
    return {name: value.tolist() for name, value in labels.items()}
