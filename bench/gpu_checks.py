"""Checks and times of the GPU engine, for `gpu.py`: a line of JSON each, in a file that grows.

`python bench/gpu_checks.py --out FOLDER first | compile | targets | linked | once --case qm9-50`
`... agreement --precision tf32 --atoms many`
"""

# ruff: noqa: E402 - the time of the imports counts

from __future__ import annotations

import time

START = time.perf_counter()

import argparse
import copy
import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from painn_fast.bench.cases import CASES, paper_model
from painn_fast.bench.problem import Problem, disagreement
from painn_fast.bench.sides import Fused
from painn_fast.engine.cuda_graph import captured
from painn_fast.engine.gpu import GpuEngine
from painn_fast.graph import AtomicBatch, batch_atoms
from painn_fast.nn import Potential, PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential

LIMITS = {"ieee": 1e-4, "tf32x3": 1e-4, "tf32": 2e-2, "bf16": 2e-1}
"""Of the largest energy or force of a batch, by precision: far above rounding, far below a mistake."""
AGREEMENT = {"few": ("ethanol-1",), "many": ("qm9-50", "aspirin-32", "water-216")}
"""By the division of launches."""
INPUTS = {"numbers", "row_ptr", "receiver", "sender", "mirror", "shift", "atom_ptr", "positions", "s_first"}
"""Memory that an evaluation does not write."""


class Journal:
    """Lines of JSON in a file and on the terminal, each as soon as it is known."""

    def __init__(self, path: Path) -> None:
        self.path, self.bad = path, False
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, *, good: bool = True, **facts: object) -> None:
        self.bad |= not good
        line = json.dumps({"name": name, "good": good, **facts, "at": round(time.perf_counter() - START, 2)})
        with self.path.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(line, flush=True)

    def attempt(self, name: str, check: Callable[[], dict[str, object]]) -> None:
        """Add what a check gives, or how it fails; the next goes on."""
        begin = time.perf_counter()
        try:
            facts = check()
        except Exception as error:
            facts = {"good": False, "error": f"{type(error).__name__}: {error}"[:2000]}
        self.add(name, **{"good": True, **facts, "seconds": round(time.perf_counter() - begin, 2)})


def model(device: str) -> Potential:
    """The paper's; a small one in the interpreter on a CPU, which is slow."""
    if device != "cpu":
        return paper_model(device)
    small = RepresentationConfig(n_features=16, n_layers=2, n_rbf=4)
    return random_potential(PotentialConfig(representation=small)).float().eval()


def made(potential: Potential, precision: str = "ieee", node: str = "auto") -> GpuEngine:
    """An engine that does not check itself: that is done here."""
    engine = GpuEngine(potential, precision, node)
    engine.checked = True
    return engine


def graph_of(potential: Potential, case: str) -> AtomicBatch:
    batch = batch_atoms(CASES[case].structures(), potential.cutoff, neighbors="list").to(potential.device)
    batch.mirror  # noqa: B018  part of the graph
    return batch


def exact(potential: Potential, batch: AtomicBatch, names: tuple[str, ...]) -> dict[str, Tensor]:
    """The reference in float64, on the CPU."""
    double = copy.deepcopy(potential).double().cpu()
    with torch.no_grad(), double.reference():
        return {name: value.double() for name, value in double(batch.to("cpu"), names).items()}


def deviation(got: dict[str, Tensor], right: dict[str, Tensor]) -> dict[str, float]:
    return disagreement({name: value.detach().cpu().double() for name, value in got.items()}, right)


def first(device: str, journal: Journal) -> None:
    """Energies of one molecule, then its forces: does anything run at all, and is it right?"""
    potential = model(device)
    batch = graph_of(potential, "ethanol-1")
    right = exact(potential, batch, ("energy", "forces"))
    journal.add("reference in float64")
    engine = made(potential)
    work = engine.workspace(batch)
    for names in (("energy",), ("energy", "forces")):
        got = engine(work, batch.positions, names)
        errors = deviation(got, {name: right[name] for name in names})
        journal.add(f"ethanol-1 {', '.join(names)}", good=max(errors.values()) <= LIMITS["ieee"], errors=errors)


def agreement(device: str, precision: str, atoms: str, journal: Journal) -> None:
    """Against float64; bit for bit as plain launches, and in memory that held NaN."""
    potential = model(device)
    for case in AGREEMENT[atoms]:
        batch = graph_of(potential, case)
        stress = ("stress",) if bool(batch.pbc.all()) else ()
        right = exact(potential, batch, ("energy", "forces", *stress))
        for node in ("fused", "blas"):
            if (precision, node) != ("tf32x3", "blas"):
                engine = made(potential, precision, node)
                journal.attempt(f"{case} {precision} {node}", lambda: agrees(engine, batch, right))  # noqa: B023


def agrees(engine: GpuEngine, batch: AtomicBatch, right: dict[str, Tensor]) -> dict[str, object]:
    """Errors, and which of two ways to the same numbers gave other bits."""
    work, x, names = engine.workspace(batch), batch.positions, ("energy", "forces")
    got = engine(work, x, names)
    ways = {"plain launches": engine.launches(work, x)()}
    poison(engine)
    ways["memory that held NaN"] = engine(work, x, names)
    other = [way for way, values in ways.items() if not all(torch.equal(values[name], got[name]) for name in names)]
    errors = deviation(got, {name: right[name] for name in names})
    if "stress" in right:
        errors |= deviation(engine(work, x, ("stress",)), {"stress": right["stress"]})
    limit = LIMITS[engine.precision]
    return {"good": max(errors.values()) <= limit and not other, "errors": errors, "limit": limit, "other bits": other}


def poison(engine: GpuEngine) -> None:
    """NaN in all memory that an evaluation is to write before it reads it."""
    for plan in engine._plans.values():
        for field in fields(plan.memory):
            value = getattr(plan.memory, field.name)
            if field.name == "x":
                value = value[1:]  # that of the first layer is an input too
            if field.name not in INPUTS:
                for tensor in value if isinstance(value, list) else [value]:
                    tensor.fill_(torch.nan)


def targets(device: str, journal: Journal) -> None:
    """What the engine, dynamics and training are to reach: the numbers of the README, without other programs."""
    potential = model(device)
    for case, names in (("qm9-50", ("energy",)), ("qm9-50", ("energy", "forces")), ("ethanol-1", ("energy", "forces")),
                        ("ethanol-64", ("energy", "forces")), ("ethanol-1024", ("energy", "forces"))):  # fmt: skip
        title = f"{case} {' and '.join('energies' if name == 'energy' else name for name in names)}"
        journal.attempt(title, lambda: evaluation(potential, case, names, device))  # noqa: B023
        if device == "cpu":
            return
    for copies in (1, 1024):
        journal.attempt(f"ethanol-{copies} step", lambda: dynamics(copies))  # noqa: B023
    journal.attempt("ethanol-10 training", lambda: training(potential))
    journal.attempt("ethanol-10 training, a graph", training_graph)
    journal.attempt("predicted", predicted)


def compile_targets(journal: Journal) -> None:
    """What `targets` measures beside evaluations, once."""
    journal.attempt("ethanol-1 step", lambda: dynamics(1, once_only=True))
    journal.attempt("ethanol-10 training", lambda: training(model("cuda"), once_only=True))


def linked(device: str, journal: Journal) -> None:
    """Launches that may begin while the one before ends, beside those that may not."""
    potential = model(device)
    for case in ("ethanol-1", "qm9-50", "ethanol-64"):
        journal.attempt(f"{case} linked", lambda: links(potential, case, device))  # noqa: B023
        if device == "cpu":
            return


def links(potential: Potential, case: str, device: str, moves: int = 20) -> dict[str, object]:
    """Milliseconds of both as graphs, and whether they give the same bits, at other positions in each replay."""
    from painn_fast.kernels.layer import triton as layer

    batch, ms, results = graph_of(potential, case), {}, []
    generator = torch.Generator().manual_seed(0)
    moved = [0.05 * torch.randn(batch.positions.shape, generator=generator, dtype=torch.float64) for _ in range(moves)]
    kept = layer.LINKED
    try:
        for layer.LINKED in (False, True):
            engine, x = made(potential), batch.positions.clone()
            run = engine.launches(engine.workspace(batch), x)
            replay, memory = captured(lambda: run() and None, x.device), run()  # noqa: B023
            results.append([])
            for move in moved:
                x.copy_(batch.positions + move.to(x.device))
                replay()
                results[-1].append(torch.cat([value.flatten() for value in memory.values()]))
            ms["linked" if layer.LINKED else "one by one"] = milliseconds(replay, device)
    finally:
        layer.LINKED = kept
    other = sum(not torch.equal(one, two) for one, two in zip(*results, strict=True))
    return {"good": other == 0, "possible": layer.can_be_linked(), "other bits": other, "of": moves, "ms": ms}


def predicted() -> dict[str, object]:
    """Milliseconds by the model of `kernels/tools`, where it knows this GPU, to be read beside those above."""
    from painn_fast.kernels.tools import model as performance

    name = torch.cuda.get_device_name()
    for known, gpu in performance.GPUS.items():
        if known in name:
            return {
                "ms": {case: round(1e3 * s, 4) for case, (s, _) in performance.predictions(gpu).items()},
                "gpu": known,
            }
    return {"gpu": name, "known": list(performance.GPUS)}


def evaluation(potential: Potential, case: str, names: tuple[str, ...], device: str) -> dict[str, object]:
    """Milliseconds of the engine as it is called, and of its launches as one graph."""
    batch, engine = graph_of(potential, case), made(potential)
    work, x = engine.workspace(batch), batch.positions
    times = {
        "call": milliseconds(lambda: engine(work, x, names), device),
        "call, finite=False": milliseconds(lambda: engine(work, x, names, finite=False), device),
    }
    if "forces" in names:
        run = engine.launches(work, x)
        times["graph"] = milliseconds(captured(lambda: run() and None, x.device), device)
        with potential.reference(), torch.no_grad():
            times["reference"] = milliseconds(lambda: potential(batch, names), device)
    atoms = batch.n_total
    return {"ms": times, "atoms": atoms, "edges": len(batch.sender), "M atoms/s": atoms / min(times.values()) / 1e3}


def dynamics(copies: int, *, once_only: bool = False) -> dict[str, object]:
    """Milliseconds of a step of Langevin dynamics of ethanol, as `md` runs it."""
    sys.path.insert(0, str(Path(__file__).parent))
    from test_dynamics import simulation

    potential = model("cuda")
    with torch.no_grad():  # forces so small that atoms fly on
        potential.heads["energy"].network[-1].weight.mul_(0.01)
    run = simulation(potential, CASES["ethanol-1"].structures()[0], copies, 1)
    if once_only:
        run.step()
        return {}
    ms = milliseconds(run.step, "cuda")
    return {"ms": ms, "exceeded": len(run.exceeded), "M atom-steps/s": 9 * copies / ms / 1e3}


def training(potential: Potential, *, once_only: bool = False) -> dict[str, object]:
    """Milliseconds of a step, its numbers held against float64 first."""
    problem = Problem(CASES["ethanol-10"], "training_step", potential)
    work = Fused().prepare(problem)
    errors = disagreement(work.read(work.call()), work.expected or problem.expected)
    ms = {} if once_only else {"ms": milliseconds(work.call, "cuda")}
    return {"good": max(errors.values()) <= 1e-3, "errors": errors, **ms}


def training_graph() -> dict[str, object]:
    """The same as one CUDA graph, a new batch each step; its parameters held against those of single operations."""
    import tempfile

    import numpy as np

    from painn_fast.train import TrainSettings
    from painn_fast.train.loop import Training, read_data

    structures, random = CASES["ethanol-10"].structures() * 10, np.random.default_rng(0)
    positions = np.stack([s.positions for s in structures]) + random.normal(scale=0.03, size=(100, 9, 3))
    labels = {"E": random.normal(size=100), "F": random.normal(size=positions.shape)}
    units = {"energy_unit": "eV", "length_unit": "Ang"}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "set.npz", R=positions, z=structures[0].numbers, **labels, **units)
        network = {"n_features": 128, "n_layers": 3}
        given = {"data": [{"file": "set.npz"}], "representation": network, "batch_size": 10, "device": "cuda"}
        settings = TrainSettings.parse(given)
        data = read_data(settings, folder)
    graph, plain = Training(settings, data), Training(settings, data)
    captures, plain._whole = graph._whole is not None, None
    for _ in range(4):
        rows = plain.next_rows()
        for each in (graph, plain):
            each.run_step(rows)
    error = float((graph.parameters.values - plain.parameters.values).norm() / plain.parameters.values.norm())
    both = {"graph": graph, "plain": plain}
    ms = {name: milliseconds(lambda each=each: each.run_step(rows), "cuda") for name, each in both.items()}
    sizes = len(graph._whole._runs) if graph._whole is not None else 0
    return {"good": captures and sizes > 0 and error <= 1e-4, "error": error, "sizes": sizes, "ms": ms}


def milliseconds(call: Callable[[], object], device: str, seconds: float = 0.3, samples: int = 7) -> float:
    """Median over samples of several calls each, the device waited for at the ends."""

    def sample(calls: int) -> float:
        wait(device)
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        wait(device)
        return (time.perf_counter() - begin) / calls

    sample(3 if device == "cuda" else 1)
    calls = max(1, min(2000, round(seconds / samples / sample(1))))
    return 1e3 * statistics.median(sample(calls) for _ in range(samples if device == "cuda" else 1))


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def once(device: str, case: str, precision: str, journal: Journal) -> None:
    """One evaluation by plain launches, for sanitizers and counters."""
    potential = model(device)
    batch, engine = graph_of(potential, case), made(potential, precision)
    results = engine.launches(engine.workspace(batch), batch.positions)()
    wait(device)
    finite = all(bool(torch.isfinite(value).all()) for value in results.values())
    journal.add(f"{case} {precision}", good=finite, energy=float(results["energy"][0]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--out", type=Path, required=True, help="folder")
    parser.add_argument("check", choices=("first", "agreement", "compile", "targets", "linked", "once"))
    parser.add_argument("--case", default="ethanol-1", choices=list(CASES))
    parser.add_argument("--precision", default="ieee", choices=list(LIMITS))
    parser.add_argument("--atoms", default="few", choices=list(AGREEMENT))
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("torch finds no CUDA device")
        return 1
    one = f"-{given.precision}-{given.atoms}" if given.check == "agreement" else ""
    journal = Journal(given.out / f"{given.check}{one}.jsonl")
    journal.add("imports", torch=torch.__version__)
    if given.check == "agreement":
        agreement(given.device, given.precision, given.atoms, journal)
    elif given.check == "compile":
        compile_targets(journal)
    elif given.check == "once":
        once(given.device, given.case, given.precision, journal)
    else:
        {"first": first, "targets": targets, "linked": linked}[given.check](given.device, journal)
    print("not as expected" if journal.bad else "all as expected", f"after {time.perf_counter() - START:.0f} s")
    return int(journal.bad)


if __name__ == "__main__":
    sys.exit(main())
