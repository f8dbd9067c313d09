"""Tune the kernels for the GPU that is here: `python -m painn_fast.kernels.tools.tuning`."""

from __future__ import annotations

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import torch

from painn_fast.kernels.launch import FOLDER, VARIABLE, file_name, multiprocessors


def main(arguments: list[str] | None = None) -> int:
    """Print what was won and write the file of this GPU; 1 if there is nothing to tune, or a launch is never right."""
    parser = argparse.ArgumentParser(prog="python -m painn_fast.kernels.tools.tuning", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the file; default: that of the package")
    parser.add_argument("--seconds", type=float, default=60.0, help="for everything; default: 60")
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available() or find_spec("triton") is None:
        print("nothing to tune: torch finds no CUDA device, or triton is not installed", file=sys.stderr)
        return 1
    from painn_fast.kernels.tools.tuning.layers import layer_subjects
    from painn_fast.kernels.tools.tuning.subjects import SIZES, subjects
    from painn_fast.kernels.tools.tuning.tuner import Outcome, table, time_on_gpu, tune, write

    start, device = time.monotonic(), torch.device("cuda", torch.cuda.current_device())
    listed = layer_subjects(device, multiprocessors(device)) + subjects(SIZES, device)
    left = given.seconds - (time.monotonic() - start)

    def keep(outcomes: list[Outcome]) -> None:
        print(table(outcomes[-1:]), flush=True)
        write(outcomes, device, given.out)

    try:
        outcomes = tune(listed, device, time_on_gpu, left, lambda line: print(line, file=sys.stderr), keep)
    except OSError as error:
        print(f"nothing written: {error}; --out names another folder", file=sys.stderr)
        return 1
    print(table(outcomes))
    missed = [subject.name for subject in listed[len(outcomes) :]]
    if missed:
        print(f"no time for {', '.join(missed)}: --seconds {2 * given.seconds:.0f} may do")
    if outcomes:
        path = given.out / file_name(torch.cuda.get_device_name(device))
        print(f"wrote {path}" + ("" if given.out == FOLDER else f"; {VARIABLE}={given.out} makes it count"))
    wrong = [outcome.name for outcome in outcomes if outcome.after is None]
    if wrong:
        print(f"right with no numbers, left as they were: {', '.join(wrong)}", file=sys.stderr)
    return int(bool(wrong) or not outcomes)


if __name__ == "__main__":
    sys.exit(main())
