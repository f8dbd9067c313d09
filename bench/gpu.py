"""All that needs a CUDA GPU, on a machine that is lent for minutes: `python bench/gpu.py ARCHIVE.zip`.

Stages run one after another, the most valuable first, each in processes of its own with a time limit: one that fails,
hangs or crashes ends alone. After each of them, and every few seconds while one runs, all results so far are in the
archive. A second call goes on with what the first did not finish: in the same checkout, or on another machine with the
archive of the first, `--before ARCHIVE.zip`. README.md lists what to bring.

This file and `gpu_stages.py` need the standard library of Python alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from gpu_stages import ROOT, Stage, stages

WORK = ROOT / "build" / "gpu"
"""Installed wheels, compiled kernels and results; git ignores it."""
NOTHING_COLLECTED = 5
"""pytest's exit code."""
PACK_EVERY = 10.0
"""Seconds."""
LARGEST_FILE = 2**20
"""Bytes of a file in the archive; of a longer one its beginning and its end."""
FINISHED = ("ok", "failed")
"""What another call need not repeat; it may have what a skipped stage lacked."""
RESERVE = 5.0
"""Seconds at the end of a call for the archive."""


@dataclass
class Outcome:
    """How a stage ended: ok, failed, skipped, out of time (its own), or unfinished when the call ended."""

    state: str
    seconds: float
    message: str


class Record:
    """Outcomes in a folder of results, and the archive of that folder."""

    def __init__(self, folder: Path, archive: Path) -> None:
        self.folder, self.archive = folder, archive
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "outcomes.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        self.outcomes = {name: Outcome(**outcome) for name, outcome in known.items()}

    def add(self, name: str, outcome: Outcome) -> None:
        self.outcomes[name] = outcome
        text = json.dumps({name: asdict(outcome) for name, outcome in self.outcomes.items()}, indent=2)
        _replace(self.folder / "outcomes.json", lambda part: part.write_text(text + "\n"))
        (self.folder / "summary.txt").write_text(self.summary())
        self.pack()

    def summary(self) -> str:
        """A line a stage."""
        return "".join(self.line(name) + "\n" for name in self.outcomes)

    def line(self, name: str) -> str:
        outcome = self.outcomes[name]
        return f"{name:<14} {outcome.state:<12} {outcome.seconds:6.1f} s  {outcome.message}"

    def pack(self) -> None:
        """The archive as a whole: at any moment there is a complete one."""
        self.archive.parent.mkdir(parents=True, exist_ok=True)
        _replace(self.archive, self._write)

    def _write(self, part: Path) -> None:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(self.folder.rglob("*")):
                if path.is_file():
                    data = path.read_bytes()
                    if len(data) > LARGEST_FILE:
                        half = LARGEST_FILE // 2
                        data = data[:half] + b"\n[... left out ...]\n" + data[-half:]
                    file.writestr(str(path.relative_to(self.folder)), data)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    part = path.with_name(path.name + ".part")
    write(part)
    os.replace(part, path)


def run(stage: Stage, record: Record, left: float, environment: dict[str, str]) -> Outcome:
    """Run the processes of a stage side by side, within its seconds and those that are left."""
    if stage.missing:
        return Outcome("skipped", 0.0, stage.missing)
    if left < stage.least:
        return Outcome("unfinished", 0.0, "no time left")
    read = [str(path) for pattern in stage.reads for path in sorted(record.folder.glob(pattern))]
    if stage.reads and not read:
        return Outcome("skipped", 0.0, f"no {' or '.join(stage.reads)} among the results")
    limit, start = min(stage.seconds, left), time.monotonic()
    logs = [record.folder / f"{stage.name}{f'-{k}' if k else ''}.log" for k in range(len(stage.commands))]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command, log in zip(stage.commands, logs, strict=True):
            with log.open("ab") as file:
                running.append(
                    subprocess.Popen(
                        [*command, *read], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                        start_new_session=True, env=os.environ | environment | stage.environment,
                    )
                )  # fmt: skip
        packed = start
        while any(process.poll() is None for process in running) and time.monotonic() - start < limit:
            time.sleep(0.1)
            if time.monotonic() - packed > PACK_EVERY:
                record.pack()
                packed = time.monotonic()
    except OSError as error:
        return Outcome("failed", time.monotonic() - start, str(error))
    finally:
        late = [process for process in running if process.poll() is None]
        _end(running, late)
    seconds = time.monotonic() - start
    ends = ["" if process in late else ended_by(process.returncode) for process in running]
    message = " | ".join(last_line(log) + end for log, end in zip(logs, ends, strict=True))
    if late:
        return Outcome("out of time" if limit == stage.seconds else "unfinished", seconds, message)
    codes = {process.returncode for process in running}
    good = {0, NOTHING_COLLECTED} if stage.pytest else {0}
    return Outcome("ok" if codes <= good else "failed", seconds, message)


def _end(processes: Sequence[subprocess.Popen[bytes]], late: Sequence[subprocess.Popen[bytes]]) -> None:
    """Those that are late write where they are (see `gpu_setup.STACKS`); whatever any of them started dies with it."""
    for pid in _listening([process.pid for process in late], signal.SIGUSR1):
        _send(os.kill, pid, signal.SIGUSR1)
    _wait(late, 1.0)
    for process in processes:
        _send(os.killpg, process.pid, signal.SIGKILL)
    _wait(late, 5.0)


def _send(how: Callable[[int, int], None], to: int, number: int) -> None:
    with suppress(ProcessLookupError):
        how(to, number)


def _wait(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    end = time.monotonic() + seconds
    while any(process.poll() is None for process in processes) and time.monotonic() < end:
        time.sleep(0.05)


def _listening(groups: Sequence[int], number: int) -> list[int]:
    """Processes of groups that handle a signal. It would end others, compilers too, whose failure others report."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*") if groups else ():
        with suppress(OSError):  # of one that has ended
            caught = re.search(r"SigCgt:\s*(\w+)", (folder / "status").read_text())
            if caught and int(caught[1], 16) >> (number - 1) & 1 and os.getpgid(int(folder.name)) in groups:
                found.append(int(folder.name))
    return found


def ended_by(code: int) -> str:
    """The signal, of a process that was ended by one."""
    return f"; ended by signal {-code}" if code < 0 else ""


def last_line(log: Path) -> str:
    """What a process wrote last; of one that was stopped what it wrote before, and where it was."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()] or ["no output"]
    stacks = [k for k, line in enumerate(lines) if line.endswith("(most recent call first):")]
    current = [k for k in stacks if lines[k].startswith("Current thread") and k + 1 < len(lines)]
    if not current:
        return lines[-1][:140]
    before = lines[stacks[0] - 1] if stacks[0] else "no output"
    return f"{before[:140]}; stopped in {lines[current[-1] + 1]}"


def to_do(listed: Sequence[Stage], record: Record, again: Sequence[str]) -> list[Stage]:
    """The stages of this call: first those that no call has begun or ended, then those that ran out of their time."""
    state = {name: outcome.state for name, outcome in record.outcomes.items()}
    wanted = [s for s in listed if s.always or s.name in again or state.get(s.name) not in FINISHED]
    return sorted(wanted, key=lambda stage: not stage.always and state.get(stage.name) == "out of time")


def environment(work: Path, device: str) -> dict[str, str]:
    """Of all stages."""
    return {
        "PYTHONPATH": str(work / "site"),
        "PYTHONSAFEPATH": "1",  # the folder that Python is started in is no package
        "PYTHONUNBUFFERED": "1",
        "TRITON_CACHE_DIR": str(work / "triton"),
        "NUMBA_CACHE_DIR": str(work / "numba"),
        "PAINN_FAST_TUNING": str(work / "results" / "tuned"),
    } | ({"TRITON_INTERPRET": "1"} if device == "cpu" else {})


def read_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="the .zip of results, which grows")
    parser.add_argument("--minutes", type=float, default=7.0, help="for this call; default: 7")
    parser.add_argument("--wheels", type=Path, default=ROOT / "wheels", help="folder; default: wheels/ of the checkout")
    parser.add_argument("--before", type=Path, help="archive of an earlier call on another machine")
    parser.add_argument("--again", nargs="+", default=[], metavar="STAGE", help="stages to repeat")
    parser.add_argument("--only", nargs="+", default=[], metavar="STAGE", help="no others, but setup")
    parser.add_argument("--commit", help="of the checkout, where git is not at hand")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu to try this script itself")
    parser.add_argument("--work", type=Path, default=WORK, help="default: build/gpu")
    given = parser.parse_args(words)
    if given.archive.suffix != ".zip":
        parser.error(f"the archive is a .zip; got: {given.archive}")
    known = [stage.name for stage in stages(given.device, given.work, given.wheels, given.commit)]
    if unknown := {*given.again, *given.only} - set(known):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}; expected: {', '.join(known)}")
    return given


def main(words: Sequence[str] | None = None, tell: Callable[[str], None] = print) -> int:
    """0: every stage of this call ended well; 1: some did not; the archive has all of it either way."""
    start = time.monotonic()
    given = read_arguments(words)
    results = given.work.resolve() / "results"
    if given.before and not (results / "outcomes.json").exists():
        with zipfile.ZipFile(given.before) as file:
            file.extractall(results)
    record = Record(results, given.archive.resolve())
    listed = stages(given.device, given.work.resolve(), given.wheels.resolve(), given.commit)
    chosen = [s for s in to_do(listed, record, given.again) if s.always or not given.only or s.name in given.only]
    variables, bad = environment(given.work.resolve(), given.device), False
    for stage in chosen:
        left = 60 * given.minutes - (time.monotonic() - start) - RESERVE
        if left < stage.least and stage.name in record.outcomes:
            continue  # how it ended before is known
        outcome = run(stage, record, left, variables)
        record.add(stage.name, outcome)
        bad |= outcome.state not in ("ok", "skipped")
        tell(f"{time.monotonic() - start:5.0f} s  {record.line(stage.name)}")
    tell(f"everything is in {record.archive}")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
