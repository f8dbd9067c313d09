"""An ensemble: the same training from several seeds, side by side in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from painn_fast.errors import PaiNNFastError
from painn_fast.io import load
from painn_fast.nn import Potential
from painn_fast.runtime.interrupt import Interrupt
from painn_fast.runtime.progress import StatusLine
from painn_fast.runtime.ranks import rank_and_world_size
from painn_fast.train.data import Dataset
from painn_fast.train.evaluation import errors, format_errors, predict
from painn_fast.train.loop import read_data, run
from painn_fast.train.model import output_file
from painn_fast.train.report import write_json
from painn_fast.train.settings import TrainSettings

LOG, STOPPED = "log.txt", "stopped after epoch"
POLL_EVERY = 0.5
"""Seconds between checks of the members."""


def run_members(
    settings: TrainSettings,
    members: int,
    *,
    data_folder: str | Path = ".",
    resume: bool = False,
    start_from: Sequence[str | Path] = (),
) -> list[Path]:
    """Train models that differ by their seed, `settings.seed` and those after it; side by side, as far as threads go.

    Args:
        settings: of the first; each has the folder member-<k> in the output folder, and its share of the threads.
        members: how many.
        data_folder: where the data files are.
        resume: go on with members that have a checkpoint; those that are finished stay as they are.
        start_from: a model for each member to start from, instead of that of the settings.

    Returns:
        The models. Beside their folders, errors.json has the errors of their mean on the test structures.

    Raises:
        PaiNNFastError: for fewer than two members, under `torchrun`, and for any error that stopped a member.

    Example:
        >>> from painn_fast.train import load_config, run_members
        >>> settings = load_config("md17-ethanol")
        >>> models = run_members(settings, 4, data_folder="data")  # doctest: +SKIP
        >>> run_members(settings, 1)
        Traceback (most recent call last):
        painn_fast.errors.PaiNNFastError: an ensemble needs two members or more; got: 1
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
    each = each_member(settings, members, max(1, threads // at_a_time), start_from)
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
                time.sleep(POLL_EVERY)
                if interrupt.signal:
                    waiting.clear()
                    _stop(running.values())
                for k in [k for k, process in running.items() if process.poll() is not None]:
                    _stop([running[k]])
                    failed += [k] if running.pop(k).returncode else []
                    status.keep(f"member {k}: {_last_line(each[k], ended=not failed.count(k))}")
                if running:
                    status.update(" | ".join(f"member {k}: {_last_line(each[k])}" for k in running))
        if interrupt.signal:
            raise PaiNNFastError("interrupted; everything is saved", where=output, fix="go on with --resume")
        if failed:
            k = min(failed)
            log = Path(each[k].output) / LOG
            raise PaiNNFastError(
                f"member {k} stopped", where=log, got=_last_line(each[k]), fix="then go on with --resume"
            )
        paths = [output_file(one) for one in each]
        _report(paths, read_data(settings, data_folder)["test"], settings, status)
    return paths


def each_member(
    settings: TrainSettings, members: int, threads: int, start_from: Sequence[str | Path] = ()
) -> list[TrainSettings]:
    """Settings of each member, which has its own seed, folder and, if they are given, model to start from."""
    return [
        settings.model_copy(
            update={
                "seed": settings.seed + k,
                "output": str(Path(settings.output) / f"member-{k}"),
                "threads": threads,
                **({"start_from": str(start_from[k])} if start_from else {}),
            }
        )
        for k in range(members)
    ]


def _start(settings: TrainSettings, data_folder: str | Path, *, resume: bool) -> subprocess.Popen[str]:
    """A process that trains one member, with its output in a file."""
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
    """Ask them to save and end, by closing their standard input."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def _stopped_at_the_end(running: dict[int, subprocess.Popen[str]]) -> Iterator[None]:
    """Stop all processes when the block ends, also by an error."""
    try:
        yield
    finally:
        _stop(running.values())
        for process in running.values():
            process.wait()


def _last_line(settings: TrainSettings, *, ended: bool = False) -> str:
    """Last line of a member's log; of one that has `ended`, that before the table of its errors."""
    with (Path(settings.output) / LOG).open("rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - 2000))
        lines = log.read().decode(errors="replace").splitlines()
    before_table = [line for line in lines if ended and line.startswith(STOPPED)]
    return (before_table or lines or ["starting"])[-1]


def _report(paths: list[Path], test: Dataset, settings: TrainSettings, status: StatusLine) -> None:
    """Errors of the mean of the members, and of each."""
    if not len(test):
        return
    models: list[Potential] = [load(path) for path in paths]
    each = [predict(model, test) for model in models]
    mean = {name: np.mean([predicted[name] for predicted in each], axis=0) for name in each[0]}
    tables = {"test": errors(mean, test, models[0], settings.report_units)}
    for k, predicted in enumerate(each):
        tables[f"test, member {k}"] = errors(predicted, test, models[0], settings.report_units)
    write_json(tables, Path(settings.output) / "errors.json")
    for name, table in tables.items():
        status.keep(f"MAE, {'mean of all, test' if name == 'test' else name}: {format_errors(table)}")


def member() -> None:
    """Main function of a member's process: the task is a line of standard input, whose end is the signal to stop."""
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
