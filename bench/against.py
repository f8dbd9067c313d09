"""Times of this version beside those of another, in turn: what a change for speed gained.

    git worktree add ../before HEAD~1
    python bench/against.py ../before ethanol-10:training_step qm9-100:training_energy --threads 2

Each version runs in a process of its own and waits while the other is timed. Both start from the same weights, must
give the numbers of the model in float64, and take turns, the first of a round too, so that a machine that slows down
slows down both. The ratio is the median of those within a round. Dependencies are those of this environment.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.util
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

THIS = Path(__file__).resolve().parents[1]
HEAD = ("case", "mode", "before / ms", "now / ms", "now / before", "quartiles", "now / floor")


def parse(argument: str) -> tuple[str, str]:
    """CASE:MODE of the benchmark."""
    case, _, mode = argument.partition(":")
    if not mode:
        raise argparse.ArgumentTypeError(f"CASE:MODE expected, such as ethanol-10:training_step; got: {argument}")
    return case, mode


class Checkout(importlib.abc.MetaPathFinder):
    """Finds painn_fast and its kernels in a folder, before those that are installed."""

    def __init__(self, folder: Path) -> None:
        self.packages = {"painn_fast": folder / "painn_fast", "painn_fast.kernels": folder / "kernels"}

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in self.packages:
            return None
        return importlib.util.spec_from_file_location(name, self.packages[name] / "__init__.py")


def worker(folder: Path, case: str, mode: str) -> None:
    """A version's side: prepares, then answers each line of standard input with the ms of a call and of the floor."""
    sys.meta_path.insert(0, Checkout(folder))
    import torch

    from painn_fast.bench.cases import MODES, choose, known, paper_model
    from painn_fast.bench.floor import floor
    from painn_fast.bench.measure import calls_per_sample, clock, interleaved
    from painn_fast.bench.problem import Problem, complaint, disagreement
    from painn_fast.bench.sides import Fused

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    known([mode], MODES, "mode")
    problem = Problem(choose([case])[0], mode, paper_model("cpu"))
    work, now = Fused().prepare(problem), clock(torch.device("cpu"))
    wrong = complaint(disagreement(work.read(work.call()), work.expected or problem.expected))
    if wrong is not None:
        sys.exit(f"wrong numbers: {wrong}")
    works = {"time": work.call, "floor": floor(problem)}
    interleaved(works, dict.fromkeys(works, 2), 1, now)  # memory and caches
    times, _ = interleaved(works, dict.fromkeys(works, 1), 1, now)
    calls = {name: calls_per_sample(seconds[0]) for name, seconds in times.items()}
    print("ready", flush=True)
    for _ in sys.stdin:
        times, _ = interleaved(works, calls, 1, now)
        print(*(1e3 * seconds[0] for seconds in times.values()), flush=True)


@contextmanager
def started(version: Path, case: str, mode: str, threads: int) -> Iterator[subprocess.Popen[str]]:
    """A worker of a version, ready.

    Raises:
        SystemExit: where it cannot run.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--worker", str(version), f"{case}:{mode}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            if process.stdout.readline() != "ready\n":
                sys.exit(f"{version} does not run {case}:{mode}: see the error above")
            yield process
        finally:
            process.terminate()


def sample(process: subprocess.Popen[str]) -> tuple[float, float]:
    """Milliseconds of a call and of the floor."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    time, floor = map(float, process.stdout.readline().split())
    return time, floor


def compare(before: Path, case: str, mode: str, rounds: int, threads: int) -> dict[str, str]:
    """A row of the table."""
    rows = []
    with started(before, case, mode, threads) as old, started(THIS, case, mode, threads) as new:
        for k in range(rounds):
            pair = [sample(process) for process in ((old, new) if k % 2 else (new, old))]
            rows.append(pair if k % 2 else pair[::-1])
    times = (statistics.median(pair[side][0] for pair in rows) for side in (0, 1))
    ratios = [new / old for (old, _), (new, _) in rows]
    over = statistics.median(time / floor for _, (time, floor) in rows)
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    values = (
        case,
        mode,
        *(f"{time:.2f}" for time in times),
        f"{middle:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{over:.2f}",
    )
    return dict(zip(HEAD, values, strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, metavar="FOLDER", help="a checkout of the other version")
    parser.add_argument("cases", nargs="+", type=parse, metavar="CASE:MODE", help="as painn-fast bench names them")
    parser.add_argument("--rounds", type=int, default=25, help="samples of 0.1 s or one call; default: 25")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all")
    given = parser.parse_args(arguments)
    before = given.before.resolve()
    if not (before / "painn_fast" / "__init__.py").is_file():
        parser.error(f"no checkout of painn-fast: {before}")
    if given.rounds < 2:
        parser.error(f"--rounds: 2 or more expected; got: {given.rounds}")
    from painn_fast.runtime.progress import aligned

    rows = [compare(before, case, mode, given.rounds, given.threads) for case, mode in given.cases]
    print(*aligned(rows), sep="\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(Path(sys.argv[2]), *parse(sys.argv[3]))
    else:
        main()
