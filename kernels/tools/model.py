"""Predicted times on GPUs, from compiled code: `python -m painn_fast.kernels.tools.model`.

Nothing runs, no GPU is needed.

Kernels are compiled as `static_report` does it. What a warp executes follows from the loops of the machine code and how
often each runs; `seconds` makes a time of that. README.md has the assumptions, of which none has been measured here.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from painn_fast.kernels.launch import default
from painn_fast.kernels.layer import triton as layers
from painn_fast.kernels.message.triton import rows_of
from painn_fast.kernels.node import triton as nodes
from painn_fast.kernels.tools.static_report import all_cases, compile_case, loops

LAYERS, F = 3, 128


@dataclass(frozen=True)
class Gpu:
    """A device.

    Args:
        target: that its code is compiled for.
        processors: multiprocessors, of four schedulers each.
        clock: Hz.
        memory: bytes/s.
        cache: bytes of L2.
        shared: bytes of a multiprocessor for its programs.
        product: clocks of a scheduler's tensor core for one mma instruction.
    """

    target: str
    processors: int
    clock: float
    memory: float
    cache: float
    shared: int
    product: float


GPUS = {
    "H200": Gpu("sm_90", 132, 1.98e9, 4.8e12, 50e6, 232448, 6.0),
    "H100": Gpu("sm_90", 132, 1.98e9, 3.35e12, 50e6, 232448, 6.0),
    "A100": Gpu("sm_80", 108, 1.41e9, 2.0e12, 40e6, 166912, 8.0),
}
LAUNCH = 1.5e-6
"""Seconds from the end of a kernel of a CUDA graph to the work of the next."""
START = 800
"""Clocks of the first loads of a program, which depend on each other."""
ALONE = 2.0
"""Clocks an instruction of a warp that has its scheduler for itself."""
BARRIER = 30.0
"""Clocks of a barrier, until the last warp is there and all go on."""
EFFICIENCY = 0.8
"""Of the issue of instructions where warps are many."""
L2 = 64.0
"""Bytes a clock that a multiprocessor gets from L2."""
BLAS = 0.7
"""Of the peak, in products of the BLAS whose tiles fill the device."""


@dataclass(frozen=True)
class Work:
    """What each warp of a program executes, and what the program occupies."""

    instructions: float
    fma: float
    products: float  # of tensor cores
    barriers: float
    loaded: float  # bytes, from global memory
    warps: int
    registers: int
    shared: int


@dataclass(frozen=True)
class Launch:
    """One kernel, or another operation on memory or of the BLAS, which has no `work`.

    Args:
        programs: of the kernel, or tiles of the product.
        moved: bytes that memory has to move where the whole does not fit into the L2.
        flops: of a product of the BLAS.
    """

    name: str
    work: Work | None = None
    programs: int = 1
    moved: float = 0.0
    flops: float = 0.0


def seconds(launch: Launch, gpu: Gpu, *, cached: bool = True) -> float:
    """Of one launch within a CUDA graph; `cached`: its memory is in the L2."""
    memory = 0.0 if cached else launch.moved / gpu.memory
    each = math.ceil(launch.programs / gpu.processors)
    if launch.work is None:
        peak = gpu.processors * 4 * 32 * 2 * gpu.clock
        full = each * gpu.processors / launch.programs  # the last round of tiles has room
        return LAUNCH + START / gpu.clock + max(memory, launch.flops * full / (BLAS * peak))
    w = launch.work
    resident = max(1, min(each, 65536 // (w.registers * 32 * w.warps), gpu.shared // (w.shared + 1024), 64 // w.warps))
    alone = w.instructions * ALONE + w.barriers * BARRIER
    clocks = max(
        math.ceil(each / resident) * alone,
        each * w.warps * w.instructions / (4 * EFFICIENCY),
        each * w.warps * w.products * gpu.product / 4,
        each * w.warps * w.loaded / L2,
    )
    return LAUNCH + max(memory, (START + clocks) / gpu.clock)


def executed(case: tuple[Any, ...], target: str, repeats: Sequence[tuple[float, float]] = ()) -> Work:
    """What a warp of a compiled case executes; `repeats` of its innermost loops with multiply-adds, and around them.

    Raises:
        ValueError: where the code has other loops.
    """
    made, registers, _, text, labels = compile_case(case, target)
    cold = _cold(text, labels)
    weights = [1.0] * cold + [0.0] * (len(text) - cold)
    listed = [loop for loop in loops(text, labels) if loop[1] <= cold]
    busy = [loop for loop in listed if any(map(_adds, text[slice(*loop)]))]
    inner = [a for a in busy if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in busy)]
    if len(inner) < len(repeats):  # the assembler may unroll a loop of two: the last such one, of a readout
        twice = [k for k, (times, _) in enumerate(repeats) if times == 2][-1:]
        repeats = [each for k, each in enumerate(repeats) if k not in twice]
    if len(inner) != len(repeats):
        raise ValueError(f"{case[0]}: got {len(inner)} loops of multiply-adds, expected {len(repeats)}")
    around: dict[tuple[int, int], float] = {}
    for loop, (times, outer) in zip(sorted(inner), repeats, strict=True):
        around[loop] = times
        around |= {o: outer for o in busy if o != loop and o[0] <= loop[0] and loop[1] <= o[1]}
    for (first, end), times in around.items():
        for k in range(first, end):
            weights[k] *= times
    return Work(
        instructions=sum(weights),
        fma=_sum(weights, text, r"[FD]FMA"),
        products=_sum(weights, text, r"[HD]MMA"),
        barriers=_sum(weights, text, r"BAR\."),
        loaded=sum(w * _bytes(line) for w, line in zip(weights, text, strict=True)),
        warps=case[4],
        registers=registers,
        shared=made.metadata.shared,
    )


def _cold(text: Sequence[str], labels: dict[str, int]) -> int:
    """Where what only warps with threads apart execute begins, at the end of the code."""
    targets = [re.match(r"BRA\.DIV.*?(\.L\w+)", line) for line in text]
    return min((labels[match[1]] for match in targets if match), default=len(text))


def _adds(line: str) -> bool:
    return bool(re.match(r"[FD]FMA|[HD]MMA", line))


def _sum(weights: Sequence[float], text: Sequence[str], pattern: str) -> float:
    return sum(weight for weight, line in zip(weights, text, strict=True) if re.match(pattern, line))


def _bytes(line: str) -> float:
    """That a warp reads from global memory."""
    if not re.match(r"LDG(STS)?\b", line):
        return 0.0
    match = re.search(r"\.(64|128)\b", line.split(" ", maxsplit=1)[0])
    return 32.0 * (int(match[1]) // 8 if match else 4)


@lru_cache
def node_work(which: str, precision: str, shape: nodes.Shape, target: str, last: bool, features: int = F) -> Work:
    """Of `node_fwd` or `node_bwd`."""
    kernel = {"node_fwd": nodes.node_fwd_kernel, "node_bwd": nodes.node_bwd_kernel}[which]
    made = nodes.case(kernel, features, precision, shape, last=last)
    return executed(made, target, _products(which, shape, last, features))


@lru_cache
def layer_work(
    which: str, precision: str, shape: nodes.Shape, target: str, position: str, degree: float, forces: bool = True
) -> Work:
    """Of `layer_fwd` or `layer_bwd`, with so many edges an atom."""
    kernel = {"layer_fwd": layers.layer_fwd_kernel, "layer_bwd": layers.layer_bwd_kernel}[which]
    span = layers.span_of(shape, F)
    repeats, last = [(degree / 2, F / span)], position == "last"  # two edges at a time
    if which == "layer_fwd":
        repeats += _products("node_fwd", shape, last) + _products("node_bwd", shape, True) * (last and forces)
    elif position != "first":
        repeats += _products("node_bwd", shape, False)
    return executed(layers.case(kernel, F, precision, shape, position, forces=forces), target, repeats)


def _products(which: str, shape: nodes.Shape, last: bool, features: int = F) -> list[tuple[float, float]]:
    """How often the loops of a node's products run, and those around them."""
    hidden = features // 2 if last else features
    outer, terms = features / min(shape.block, features), features / shape.depth
    if which == "node_fwd":
        after = [(terms, outer)] * (not last)
        return [(terms, outer)] * 3 + [(terms, hidden / min(shape.block, hidden))] + after
    repeats = [(3 * terms, outer)] * (not last) + [(hidden / min(shape.depth, hidden), outer)]
    return [*repeats, (terms, outer), (terms, outer), (2 * terms, outer)]


@lru_cache
def kernel_work(name: str, target: str, *repeats: tuple[float, float]) -> Work:
    """Of a case of the static report."""
    (case,) = (each for each in all_cases(32) if each[0] == name)
    return executed(case, target, repeats)


@dataclass(frozen=True)
class Size:
    """Of a batch."""

    atoms: int
    edges: int
    molecules: int


SIZES = {
    "qm9-50": Size(933, 16838, 50),
    "ethanol-1": Size(9, 72, 1),
    "ethanol-10": Size(90, 720, 10),
    "ethanol-64": Size(576, 4608, 64),
    "ethanol-1024": Size(9216, 73728, 1024),
}


def evaluation(size: Size, gpu: Gpu, *, forces: bool, node: str = "fused", precision: str = "ieee") -> list[Launch]:
    """The launches of one evaluation by the engine, in their order."""
    if node == "fused":
        return _layers(size, gpu, forces, precision)
    listed = [_tiles("edge vectors", size.edges / 256, gpu, 64.0 * size.edges)]
    for k in range(LAYERS):
        listed += [
            _message("message_fwd", size, gpu, first=k == 0),
            *_blas("node_fwd", size.atoms, gpu, k == LAYERS - 1),
        ]
    listed += [_tiles("readout F=128", size.atoms / 8, gpu), _tiles("readout molecules", size.molecules, gpu)]
    if not forces:
        return listed
    for k in range(LAYERS - 1, -1, -1):
        listed += _blas("node_bwd", size.atoms, gpu, k == LAYERS - 1)
        listed.append(_message("message_force_bwd", size, gpu, first=k == 0))
    return [*listed, Launch("sum"), Launch("mul")]


def _layers(size: Size, gpu: Gpu, forces: bool, precision: str) -> list[Launch]:
    """A launch a layer, each way."""
    shape = nodes.shape_of(precision, size.atoms, processors=gpu.processors)
    programs, degree = math.ceil(size.atoms / shape.rows), size.edges / size.atoms
    listed = []
    for which in ("layer_fwd", "layer_bwd") if forces else ("layer_fwd",):
        positions = ["first", *[""] * (LAYERS - 2), "last"]
        for position in positions if which == "layer_fwd" else reversed(positions):
            work = layer_work(which, precision, shape, gpu.target, position, degree, forces)
            numbers = 34 if which == "layer_fwd" else 50
            listed.append(Launch(which, work, programs, 4.0 * numbers * F * size.atoms))
    return listed if forces else [*listed, _tiles("readout molecules", size.molecules, gpu)]


def dynamics_step(size: Size, gpu: Gpu, **how: str) -> list[Launch]:
    """Of Langevin dynamics: both halves of the step around the engine's launches."""
    first = _tiles("ring modes Langevin P=1 N=9", size.molecules, gpu)
    last = _tiles("ring close P=1 N=9", size.molecules, gpu)
    return [first, *evaluation(size, gpu, forces=True, **how), last]


def _tiles(name: str, programs: float, gpu: Gpu, moved: float = 0.0) -> Launch:
    return Launch(name, kernel_work(name, gpu.target), math.ceil(programs), moved)


def _message(name: str, size: Size, gpu: Gpu, *, first: bool) -> Launch:
    rows = rows_of(default()[name], size.atoms)
    case = f"{name}{', first layer' if first else ''} F={F}"
    work = kernel_work(case, gpu.target, (size.edges / size.atoms, rows))
    numbers = (4 if name == "message_fwd" else 10) * (1 if first else 2)
    return Launch(
        name, work, math.ceil(size.atoms / rows) * (F // 32 // 2 // work.warps), 4.0 * numbers * F * size.atoms
    )


FORWARD = {"mm": (3, 1, 2), "addmm": (1, 2, 1), "addmm 2": (1, 1, 3), "addmm 3": (1, 1, 1), "addmm 4": (1, 1, 3)}
BACKWARD = {"mm": (1, 3, 1), "addmm": (1, 1, 1), "mm 2": (1, 3, 1), "mm 3": (1, 1, 2), "addmm 2": (3, 2, 1)}
"""Products of the BLAS: rows an atom, and sides in units of F."""


def _blas(which: str, atoms: int, gpu: Gpu, last: bool) -> list[Launch]:
    names, products = (
        (("norm_fwd", "gate_fwd"), FORWARD) if which == "node_fwd" else (("gate_bwd", "norm_bwd"), BACKWARD)
    )
    chosen = list(products.values())
    if last:
        chosen = chosen[:4] if which == "node_fwd" else chosen[1:]
    listed = [
        Launch("product", None, math.ceil(rows * atoms / 128) * b, 4.0 * F * rows * (a + b) * atoms,
               2.0 * rows * atoms * a * b * F * F)
        for rows, a, b in chosen
    ]  # fmt: skip
    listed += [Launch("silu", None, 1, 8.0 * F * atoms)] * (1 if last else 2)
    return listed + [_tiles(f"update {name} F={F}", atoms / 4, gpu, 4.0 * 14 * F * atoms) for name in names]


def total(launches: Sequence[Launch], gpu: Gpu) -> float:
    """Seconds of a CUDA graph."""
    cached = sum(launch.moved for launch in launches) <= gpu.cache
    return sum(seconds(launch, gpu, cached=cached) for launch in launches)


TRAINING = {
    "message_fwd": 3, "message_bwd": 6, "message_tangent": 3, "message_bwd_tangent": 3, "message_weight_bwd": 3,
    "message_weight_bwd_tangent": 3, "update norm_fwd": 3, "update gate_fwd": 3, "update norm_adjoint": 6,
    "update gate_adjoint": 6, "update norm_second": 3, "update gate_second": 3,
}  # fmt: skip
"""Kernels of a training step on energies and forces, as a driver that stands for an H200 counts them."""
TRAINING_TORCH = 420
"""Operations of torch beside them."""


def training_step(size: Size, gpu: Gpu) -> list[Launch]:
    """The launches of a training step, which are one CUDA graph."""
    listed = []
    for name, count in TRAINING.items():
        if name.startswith("message"):
            work = kernel_work(f"{name} F={F}", gpu.target, (size.edges / size.atoms, 1.0))
            listed += [Launch(name, work, size.atoms * (F // 32 // 2 // work.warps))] * count
        else:
            listed += [_tiles(f"{name} F={F}", size.atoms / 4, gpu)] * count
    return listed + [Launch("torch")] * TRAINING_TORCH


FUSED_UP_TO = {"ieee": 16384, "tf32": 2048, "bf16": 2048}
"""As the engine chooses its node kernels; a test holds them equal."""


def predictions(gpu: Gpu, precision: str = "ieee") -> dict[str, tuple[float, int]]:
    """Seconds and launches of each target of `bench/gpu_checks.py`, with the node kernels that the engine chooses."""

    def of(case: str, make: Any, **more: Any) -> tuple[float, int]:
        size = SIZES[case]
        node = "fused" if size.atoms <= FUSED_UP_TO.get(precision, size.atoms) else "blas"
        listed = make(size, gpu, node=node, precision=precision, **more)
        return total(listed, gpu), len(listed)

    found = {"qm9-50 energies": of("qm9-50", evaluation, forces=False)}
    for case in ("qm9-50", "ethanol-1", "ethanol-64", "ethanol-1024"):
        found[f"{case} energies and forces"] = of(case, evaluation, forces=True)
    for case in ("ethanol-1", "ethanol-1024"):
        found[f"{case} step"] = of(case, dynamics_step)
    if precision == "ieee":
        found["ethanol-10 training, a graph"] = of("ethanol-10", lambda size, gpu, **_: training_step(size, gpu))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m painn_fast.kernels.tools.model", description=__doc__)
    parser.add_argument("--gpu", action="append", choices=GPUS, help="only this one; may be given again")
    parser.add_argument("--precision", default="ieee", choices=nodes.PRECISIONS, help="default: ieee")
    given = parser.parse_args(arguments)
    made = {name: predictions(GPUS[name], given.precision) for name in given.gpu or GPUS}
    print("predicted; nothing of it has been measured")
    print(f"{'us':<36}{'launches':>9}" + "".join(f"{name:>10}" for name in made))
    for case, (_, count) in next(iter(made.values())).items():
        print(f"{case:<36}{count:>9}" + "".join(f"{1e6 * each[case][0]:>10.1f}" for each in made.values()))
    for name, each in made.items():
        atoms = SIZES["ethanol-1024"].atoms
        print(f"{name}: ethanol-1024 {atoms / each['ethanol-1024 step'][0] / 1e6:.1f} M atom-steps/s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
