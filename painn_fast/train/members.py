"""An ensemble: the same training from several seeds, side by side in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from painn_fast.errors import PaiNNFastError
from painn_fast.io import load
from painn_fast.nn import Potential
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.interrupt import Interrupt
from painn_fast.runtime.progress import StatusLine
from painn_fast.runtime.ranks import rank_and_world_size
from painn_fast.train.data import Dataset
from painn_fast.train.evaluation import errors, format_errors, predict
from painn_fast.train.loop import read_data, run
from painn_fast.train.model import output_file
from painn_fast.train.settings import TrainSettings

LOG = "log.txt"
LOOK_EVERY = 0.5
"""Seconds between looks at the members."""


def run_members(
    settings: TrainSettings, members: int, *, data_folder: str | Path = ".", resume: bool = False
) -> list[Path]:
    """Train models that differ by their seed, `settings.seed` and those after it; side by side, as far as threads go.

    Args:
        settings: of the first; each has the folder member-<k> in the output folder, and its share of the threads.
        members: how many.
        data_folder: where the data files are.
        resume: go on with what is there; members that are finished stay as they are.

    Returns:
        The models. Beside their folders, errors.json has the errors of their mean on the test structures.

    Raises:
        PaiNNFastError: for less than two members, under `torchrun`, and for whatever stopped a member.
    """
    if members < 2:
        raise PaiNNFastError("an ensemble needs two members or more", got=members)
    if rank_and_world_size()[1] > 1:
        raise PaiNNFastError(
            "members are trained by processes of their own", got="torchrun", fix="start without torchrun"
        )
    threads = settings.threads or torch.get_num_threads()
    at_a_time = min(members, threads) if settings.device == "cpu" else members
    output = Path(settings.output)
    each = [
        settings.model_copy(
            update={
                "seed": settings.seed + k,
                "output": str(output / f"member-{k}"),
                "threads": max(1, threads // at_a_time),
            }
        )
        for k in range(members)
    ]
    output.mkdir(parents=True, exist_ok=True)
    with StatusLine() as status, Interrupt() as interrupt:
        running: dict[int, subprocess.Popen[str]] = {}
        waiting = list(range(members))
        failed: list[int] = []
        with _stopped_at_the_end(running):
            while running or (waiting and not interrupt.signal):
                while waiting and len(running) < at_a_time:
                    k = waiting.pop(0)
                    running[k] = _start(each[k], data_folder, resume=resume)
                time.sleep(LOOK_EVERY)
                if interrupt.signal:
                    waiting.clear()
                    _stop(running.values())
                for k in [k for k, process in running.items() if process.poll() is not None]:
                    _stop([running[k]])
                    failed += [k] if running.pop(k).returncode else []
                    status.keep(f"member {k}: {_said(each[k])}")
                if running:
                    status.update(" | ".join(f"member {k}: {_said(each[k])}" for k in running))
        if interrupt.signal:
            raise PaiNNFastError("interrupted; everything is saved", where=output, fix="go on with --resume")
        if failed:
            k = min(failed)
            log = Path(each[k].output) / LOG
            raise PaiNNFastError(f"member {k} stopped", where=log, got=_said(each[k]), fix="then go on with --resume")
        paths = [output_file(one) for one in each]
        _report(paths, read_data(settings, data_folder)["test"], settings, status)
    return paths


def _start(settings: TrainSettings, data_folder: str | Path, *, resume: bool) -> subprocess.Popen[str]:
    """A process that trains one, and whose words go to a file."""
    folder = Path(settings.output)
    folder.mkdir(parents=True, exist_ok=True)
    task = {"settings": settings.model_dump(mode="json"), "data_folder": str(data_folder), "resume": resume}
    environment = os.environ | {"OMP_NUM_THREADS": str(settings.threads)}
    with (folder / LOG).open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from painn_fast.train.members import member; member()"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            text=True,
            env=environment,
            start_new_session=True,  # so that Ctrl-C comes to us alone
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(task) + "\n")
    process.stdin.flush()
    return process


def _stop(processes: Iterable[subprocess.Popen[str]]) -> None:
    """Ask them to save and end: the end of what they read is the sign."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def _stopped_at_the_end(running: dict[int, subprocess.Popen[str]]) -> Iterator[None]:
    """No process outlives this, whatever happens in it."""
    try:
        yield
    finally:
        _stop(running.values())
        for process in running.values():
            process.wait()


def _said(settings: TrainSettings) -> str:
    """Last line of a member's log."""
    with (Path(settings.output) / LOG).open("rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - 2000))
        lines = log.read().decode(errors="replace").splitlines()
    return lines[-1] if lines else "begins"


def _report(paths: list[Path], test: Dataset, settings: TrainSettings, status: StatusLine) -> None:
    """Errors of the mean of the members, and of each."""
    if not len(test):
        return
    models: list[Potential] = [load(path) for path in paths]
    each = [predict(model, test) for model in models]
    mean = {name: np.mean([predicted[name] for predicted in each], axis=0) for name in each[0]}
    tables = {"test": errors(mean, test.labels, models[0], settings.report_units)}
    for k, predicted in enumerate(each):
        tables[f"test, member {k}"] = errors(predicted, test.labels, models[0], settings.report_units)
    with atomic_write(Path(settings.output) / "errors.json") as temporary:
        temporary.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    for name, table in tables.items():
        status.keep(f"MAE, {'mean of all, test' if name == 'test' else name}: {format_errors(table)}")


def member() -> None:
    """What the process of a member does: the task is a line of standard input, whose end is the sign to stop."""
    task = json.loads(sys.stdin.readline())

    def watch() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    try:
        settings = TrainSettings.parse(task["settings"])
        run(settings, data_folder=task["data_folder"], resume=task["resume"])
    except PaiNNFastError as error:
        raise SystemExit(" ".join(str(error).split())) from None
