"""Code that may crash, hang or take all memory, run in a child process."""

import json
import os
import resource
import select
import signal
import time
import warnings
from pathlib import Path

from painn_fast.errors import LONGEST, PaiNNFastError

MEMORY = 2 * 2**30
"""Bytes that a case may take beyond what the process has."""
SECONDS = 10.0


def outcomes(cases, work):
    """What becomes of each case: ("value", text), ("error", line), or what must not be: "raw", "long", "crash", "hang".

    Args:
        cases: passed to `work` one after another, by their position in the list.
        work: returns a text; runs in a child process with limited memory.
    """
    results = {}
    while len(results) < len(cases):
        first = len(results)
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer Pythons warn of threads, which wait for work here
            child = os.fork()
        if child == 0:
            os.close(reader)
            _child(cases, first, work, writer)
        os.close(writer)
        _listen(reader, child, first, results)
        os.close(reader)
    return [results[k] for k in range(len(cases))]


def _listen(reader, child, first, results):
    text, deadline, current = b"", time.monotonic() + SECONDS, first
    while True:
        ready = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            results[current] = ("hang", f"more than {SECONDS} s")
            return
        data = os.read(reader, 65536)
        if not data:
            break
        text += data
        *lines, text = text.split(b"\n")
        for line in lines:
            results[current] = tuple(json.loads(line))
            current, deadline = current + 1, time.monotonic() + SECONDS
    status = os.waitpid(child, 0)[1]
    if status:
        results[current] = ("crash", f"status {status}")


def _child(cases, first, work, writer):
    status = 1
    try:
        warnings.simplefilter("ignore")
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        for case in cases[first:]:
            os.write(writer, json.dumps(_outcome(case, work)).encode() + b"\n")
        status = 0
    finally:
        os._exit(status)


def _outcome(case, work):
    try:
        return "value", str(work(case))
    except PaiNNFastError as error:
        line = str(error)
        return ("error" if len(line) <= LONGEST and "\n" not in line else "long"), line[:300]
    except BaseException as error:
        return "raw", f"{type(error).__name__}: {error}"[:300]
