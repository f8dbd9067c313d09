"""The benchmark: every side through every case, correct or without a time."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from painn_fast.bench.cases import MODES, PROPERTIES, choose, known, paper_model
from painn_fast.bench.floor import floor
from painn_fast.bench.measure import calls_per_sample, clock, interleaved, peak_memory
from painn_fast.bench.peers import Accelerated, DimeNet, PySCF, SchNetPack
from painn_fast.bench.problem import Problem, Work, complaint, disagreement
from painn_fast.bench.results import Report, Result, new_report, write_report
from painn_fast.bench.sides import Compiled, Fused, Reference, Side
from painn_fast.errors import PaiNNFastError, one_line

SIDES: tuple[type[Side], ...] = (Fused, Reference, Compiled, SchNetPack, Accelerated, DimeNet, PySCF)
ROUNDS = 15
MAX_ATOMS = {"cpu": 4_000, "cuda": 100_000}
FLOOR = "floor"
LONGEST_REASON = 300
"""Characters; compilers tell whole stories."""


@dataclass
class _Runner:
    """A side that has passed for one problem."""

    side: Side
    work: Work
    errors: dict[str, float]
    first_call: float
    seconds: float
    memory: int | None


def run(
    cases: Iterable[str] = (),
    *,
    sides: Iterable[str] = (),
    modes: Iterable[str] = (),
    device: str = "cpu",
    rounds: int = ROUNDS,
    max_atoms: int | None = None,
    out: str | Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure.

    Args:
        cases: names; none for all.
        sides: names out of fused, reference, compile, schnetpack, accelerate, dimenet, pyscf; none for all.
        modes: names out of `MODES`; none for those of each case.
        device: cpu or cuda.
        rounds: samples of each side.
        max_atoms: larger cases are left out; None for `MAX_ATOMS` of the device.
        out: JSON file, written anew after every case and mode.
        tell: takes a line of progress.

    Raises:
        PaiNNFastError: for an unknown name, or a device that does not exist.
    """
    place = _device(device)
    by_name = {side.name: side for side in SIDES}
    wanted = [by_name[name]() for name in known(sides, list(by_name), "side") or by_name]
    only = known(modes, MODES, "mode")
    chosen = list(cases)
    limit = MAX_ATOMS[place.type] if max_atoms is None else max_atoms
    potential = paper_model(str(place))
    report = new_report(place, potential.config.representation.model_dump(mode="json"))
    for case in choose(chosen):
        for mode in [mode for mode in only or case.modes if chosen or mode in case.modes]:
            if case.atoms > limit:
                tell(f"{case.name}: left out, {case.atoms} atoms, --max-atoms is {limit}")
                break
            tell(f"{case.name}, {mode}: reference in float64")
            model = paper_model(str(place), mode) if mode == PROPERTIES else potential
            results = _measure(Problem(case, mode, model), wanted, rounds, tell)
            report = report.model_copy(update={"results": (*report.results, *results)})
            if out is not None:
                write_report(report, out)
            _clean(place)
    return report


def _measure(problem: Problem, sides: Sequence[Side], rounds: int, tell: Callable[[str], None]) -> list[Result]:
    """One case in one mode."""
    facts = {
        "case": problem.case.name,
        "mode": problem.mode,
        "structures": problem.batch.n_molecules,
        "atoms": problem.batch.n_total,
        "edges": len(problem.batch.receiver),
    }
    runners, failed = {}, {}
    for side in sides:
        tell(f"{problem.case.name}, {problem.mode}: {side.title}, first call")
        if side.once and side.supports(problem):
            failed[side.name] = _once(side, problem)
            continue
        outcome = _start(side, problem) if side.supports(problem) else None
        if isinstance(outcome, _Runner):
            runners[side.name] = outcome
        elif outcome is not None:
            failed[side.name] = outcome
    tell(f"{problem.case.name}, {problem.mode}: {rounds} rounds of {', '.join(runners) or 'nothing'}")
    times, last = _time(problem, runners, rounds)
    results = [Result.parse({**facts, "side": name, **outcome}) for name, outcome in failed.items()]
    for name, runner in runners.items():
        outcome = _outcome(runner, times[name], times[FLOOR], None if runner.work.steps else last[name], problem)
        results.append(Result.parse({**facts, "side": name, **outcome}))
    order = [side.name for side in sides]
    return sorted(results, key=lambda result: order.index(result.side))


def _start(side: Side, problem: Problem) -> _Runner | dict[str, Any]:
    """Set a side up and hold its first numbers against the reference; what kept it from running, if anything did."""
    now = clock(problem.potential.device)
    try:
        start = now()
        work = side.prepare(problem)
        result = work.call()
        first_call = now() - start
        errors = disagreement(work.read(result), work.expected or problem.expected)
        if (wrong := complaint(errors)) is not None:
            return {"status": "wrong", "reason": wrong, "errors": _finite(errors)}
        memory = peak_memory(lambda: side.prepare(problem).call, problem.potential.device)
        start = now()
        work.call()
        return _Runner(side, work, errors, first_call, now() - start, memory)
    except Exception as error:  # another program may fail in any way, and this one must go on
        _clean(problem.potential.device)
        return {"status": "not available", "reason": _reason(error)}


def _once(side: Side, problem: Problem) -> dict[str, Any]:
    """The keys of the result of a side that is called once; its numbers are those of no model, and only finite."""
    try:
        work = side.prepare(problem)
        start = time.process_time()
        result = work.call()
        seconds = time.process_time() - start
        numbers = work.read(result)
        if (wrong := complaint(disagreement(numbers, numbers))) is not None:
            return {"status": "wrong", "reason": wrong}
    except Exception as error:  # as in `_start`
        return {"status": "not available", "reason": _reason(error)}
    return {"status": "ok", "times": (seconds,), "calls": 1, "median": seconds}


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"no module {error.name}"
    text = str(error) if isinstance(error, PaiNNFastError) else f"{type(error).__name__}: {error}"
    return one_line(text)[:LONGEST_REASON]


def _time(problem: Problem, runners: dict[str, _Runner], rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    now, works = clock(problem.potential.device), {name: runner.work.call for name, runner in runners.items()}
    calls = {name: calls_per_sample(runner.seconds) for name, runner in runners.items()}
    works[FLOOR] = floor(problem)
    works[FLOOR]()
    start = now()
    works[FLOOR]()
    calls[FLOOR] = calls_per_sample(now() - start)
    return interleaved(works, calls, rounds, now)


def _outcome(
    runner: _Runner, times: list[float], floor_times: list[float], last: Any, problem: Problem
) -> dict[str, Any]:
    """The keys of a result; a side whose numbers have changed on the way has no time either."""
    errors = runner.errors
    if last is not None:
        errors = disagreement(runner.work.read(last), runner.work.expected or problem.expected)
        if (wrong := complaint(errors)) is not None:
            return {"status": "wrong", "reason": f"after many calls: {wrong}", "errors": _finite(errors)}
    return {"status": "ok", "errors": _finite(errors), "times": times, "calls": calls_per_sample(runner.seconds)} | {
        "median": statistics.median(times),
        "iqr": float(np.subtract(*np.percentile(times, (75, 25)))) if len(times) > 1 else None,
        "first_call": runner.first_call,
        "memory": runner.memory,
        "floor": statistics.median(floor_times),
    }


def _finite(errors: dict[str, float]) -> dict[str, float | None]:
    return {name: error if math.isfinite(error) else None for name, error in errors.items()}


def _clean(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in MAX_ATOMS:
        raise PaiNNFastError("no such device for the benchmark", got=repr(name), expected=" | ".join(MAX_ATOMS))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise PaiNNFastError("torch finds no CUDA device", got=name, fix="use --device cpu")
    return device
