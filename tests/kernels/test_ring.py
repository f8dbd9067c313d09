"""Steps of ring polymers: every back end equals plain torch, and a trajectory that exceeds a limit stays as it is."""

import os
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from painn_fast.kernels.ring import cpu, reference, steps, triton
from painn_fast.md.integrators import RingPolymer
from painn_fast.md.state import System
from painn_fast.testing import assert_close

DEVICE = os.environ["KERNELS_ON"]
S, N = 3, 4
MASSES = torch.tensor([1.0, 12.0, 16.0, 2.0], dtype=torch.float64)
KELVIN = torch.tensor([250.0, 300.0, 400.0], dtype=torch.float64)
ENSEMBLES = ["rpmd", "t-rpmd", "pile-l", "pile-g"]
EVERY = [reference, cpu, triton]


def where(backend):
    return DEVICE if backend is triton else "cpu"


def ring(ensemble, P, rest=False, device="cpu"):
    numbers, cell, periodic = torch.ones(N, dtype=torch.int64), torch.zeros(3, 3), torch.zeros(3, dtype=torch.bool)
    system = System(numbers.to(device), MASSES.to(device), cell.to(device), periodic.to(device))
    dt = torch.tensor([0.5, 0.4, 0.3], dtype=torch.float64, device=device)
    seeds = torch.tensor([1, 2**40, 3], device=device)
    free = RingPolymer(system, ensemble, P, KELVIN.to(device), dt, tau0=20.0, seed=seeds, removed=3).ring
    return replace(free, rest=rest)


def bound(backend, P, ensemble, rest=False, alive=(True, True, True)):
    """Steps of a start that is the same for all back ends."""
    device = where(backend)
    generator = torch.Generator().manual_seed(5)
    x, p, f = (torch.randn(S, P, N, 3, dtype=torch.float64, generator=generator).to(device) for _ in range(3))
    energy, heat = x.new_zeros(S, P), x.new_zeros(S)
    trajectory, moving = torch.tensor([7, 0, 2**31], device=device), torch.tensor(alive, device=device)
    made = ring(ensemble, P, rest, device)
    return backend.Steps(x, 0.05 * p, f, x.clone(), energy, heat, trajectory, moving, made)


def close(each, force=1e3, move=1e3):
    """The end of a step in a harmonic well."""
    x = each.beads[0]
    energy = x.flatten(2).square().sum(2).flatten()
    each.close(energy, -x.flatten(0, 1), torch.full_like(each.heat, 1e9), move, force)


def everything(each):
    return [tensor.cpu().clone() for tensor in (*each.beads, each.energy, each.heat, each.exceeded)]


def few_at_a_time(monkeypatch):
    """Programs so small that a trajectory needs many."""
    for name, value in {"TILE": 16, "COLUMNS": 2, "ATOMS": 4, "PARTS": 2}.items():
        monkeypatch.setattr(triton, name, value)


def assert_equal_to_the_specification(backend, ensemble, P, rest, count):
    one, other = bound(reference, P, ensemble, rest), bound(backend, P, ensemble, rest)
    for step in range(1, count + 1):
        for each in (one, other):
            each.advance(step)
            close(each)
            assert each.within_limits()
    names = ("positions", "momenta", "forces", "before", "energy")
    for expected, got, what in zip(everything(one), everything(other), names, strict=False):
        assert_close(got, expected, 1e-12, what)
    assert_close(other.heat.cpu(), one.heat, 1e-10, "heat")


@pytest.mark.parametrize(
    ("backend", "P"),
    [
        *((cpu, P) for P in (1, 2, 5, 16)),
        *((triton, P) for P in (1, 5)),
        *(pytest.param(triton, P, marks=pytest.mark.slow) for P in (2, 16)),
    ],
)
@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("rest", [False, True])
def test_steps_equal_the_specification(backend, ensemble, P, rest):
    assert_equal_to_the_specification(backend, ensemble, P, rest, 5 if backend is cpu else 2)


@pytest.mark.parametrize("P", [pytest.param(1, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_many_programs_a_trajectory_equal_the_specification(ensemble, P, monkeypatch):
    few_at_a_time(monkeypatch)
    assert_equal_to_the_specification(triton, ensemble, P, True, 2)


def test_a_cpu_has_compiled_steps():
    given = bound(reference, 2, "pile-l")
    alive = given.exceeded == 0
    made = steps(*given.beads, given.energy, given.heat, given.trajectory, alive, given.ring)
    assert type(made) is cpu.Steps


@pytest.mark.parametrize("backend", EVERY)
def test_without_a_number_a_step_is_the_next(backend):
    one, other = bound(backend, 2, "pile-g"), bound(backend, 2, "pile-g")
    for count, number in enumerate((1, 2, 2**32 + 5, 2**32 + 6)):
        one.advance(number)
        other.advance(number if count == 2 else None)
        close(one)
        close(other)
    for expected, got in zip(everything(one), everything(other), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize("ensemble", ["rpmd", "pile-g"])
@pytest.mark.parametrize("P", [1, 2])
@pytest.mark.parametrize("small", [False, True])
def test_a_trajectory_that_exceeds_a_limit_ends_its_step_and_stays_and_others_keep_their_bits(
    backend, ensemble, P, small, monkeypatch
):
    if small:
        few_at_a_time(monkeypatch)
    free, limited = bound(backend, P, ensemble), bound(backend, P, ensemble)
    for step in range(1, 4):
        for each in (free, limited):
            each.advance(step)
        limited.beads[0][1] += 10.0 if step == 2 else 0.0
        assert torch.equal(limited.exceeded.cpu(), torch.tensor([0, 2 if step == 3 else 0, 0]))
        close(free)
        close(limited, move=5.0)
        if step == 2:
            last = everything(limited)
            assert torch.equal(last[2][1], -last[0][1]), "the step in which it exceeds the limit is ended"
    assert torch.equal(limited.exceeded.cpu(), torch.tensor([0, 2, 0]))
    for expected, before, got in zip(everything(free)[:-1], last, everything(limited), strict=False):
        assert torch.equal(got[[0, 2]], expected[[0, 2]])
        assert torch.equal(got[1], before[1])


@pytest.mark.parametrize("backend", EVERY)
def test_a_trajectory_that_is_not_alive_does_not_move(backend):
    some, every = bound(backend, 2, "pile-l", alive=(False, True, True)), bound(backend, 2, "pile-l")
    start = everything(some)
    some.beads[0][0, 0, 0, 0] = start[0][0, 0, 0, 0] = float("inf")
    for each in (some, every):
        each.advance()
        close(each)
        assert each.within_limits()
    assert torch.equal(some.exceeded.cpu(), torch.tensor([1, 0, 0]))
    for before, expected, got in zip(start, everything(every), everything(some), strict=True):
        assert torch.equal(got[0], before[0])
        assert torch.equal(got[1:], expected[1:])


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize("small", [False, True])
def test_the_check_of_a_step_notices_each_limit(backend, small, monkeypatch):
    if small:
        few_at_a_time(monkeypatch)

    def check(energy=0.0, force=1.0, move=0.1, max_kinetic=1.0, where=(1, 3)):
        made = bound(backend, 2, "nve")
        x, p, _, before = made.beads
        made.advance(3)
        p.zero_()
        before.copy_(x)
        forces, energies = x.new_zeros(S * 2, N, 3), x.new_zeros(S * 2)
        bead, atom = where
        x[2, bead, atom, 1] += move
        forces[4 + bead, atom, 0] = force
        energies[4 + bead] = energy
        made.close(energies, forces, x.new_tensor([1.0, 1.0, max_kinetic]), 0.5, 10.0)
        allowed = torch.equal(made.exceeded.cpu(), torch.tensor([0, 0, 0]))
        assert allowed or torch.equal(made.exceeded.cpu(), torch.tensor([0, 0, 3]))
        assert made.within_limits() == allowed
        assert made.within_limits(), "reported once"
        return allowed

    assert check()
    nothing, endless = float("nan"), float("inf")
    for trouble in ({"move": 0.6}, {"force": 11.0}, {"energy": endless}, {"energy": -endless}, {"max_kinetic": 1e-9}):
        assert not check(**trouble), trouble
        assert not check(**trouble, where=(0, 0)), trouble
    for name in ("move", "force", "energy", "max_kinetic"):
        assert not check(**{name: nothing}), name


@pytest.mark.parametrize("backend", EVERY)
def test_without_limits_only_what_is_not_finite_exceeds_them(backend):
    made = bound(backend, 2, "nve")
    made.advance()
    max_kinetic, endless = torch.full_like(made.heat, float("inf")), float("inf")
    energies, forces = made.energy.flatten().clone(), torch.full_like(made.beads[0].flatten(0, 1), 1e20)
    forces[0, 0, 0] = float("inf")
    made.close(energies, forces, max_kinetic, endless, endless)
    assert torch.equal(made.exceeded.cpu(), torch.tensor([1, 0, 0]))


@pytest.mark.parametrize("backend", EVERY)
def test_each_exceeded_limit_is_reported_once(backend):
    made = bound(backend, 2, "nve")
    reports = []
    for moved in (None, 2, None, 0, None):
        made.advance()
        if moved is not None:
            made.beads[0][moved, 0, 0, 0] += 10.0
        close(made, move=5.0)
        reports.append(made.within_limits())
    assert reports == [True, False, True, False, True]
    assert torch.equal(made.exceeded.cpu(), torch.tensor([4, 0, 2]))


@pytest.mark.parametrize("ensemble", ["rpmd", "pile-g"])
def test_runs_are_equal_bit_for_bit(ensemble, monkeypatch):
    few_at_a_time(monkeypatch)
    runs = []
    for _ in range(2):
        made = bound(triton, 2, ensemble, rest=True)
        for _ in range(3):
            made.advance()
            close(made)
        runs.append(everything(made))
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


class Recorder(TorchDispatchMode):
    """Keeps calls of torch instead of executing them, as a capture does; views of tensors are made."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.is_view:
            return func(*args, **kwargs)
        assert func._schema.is_mutable, f"{func} makes a tensor or waits for one"
        self.calls.append(lambda: func(*args, **kwargs))
        return kwargs.get("out", args[0])


def captured(step, monkeypatch):
    """A function that repeats a step with the same memory and numbers: a CUDA graph, or its launches kept in a list."""
    if DEVICE == "cuda":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        return graph.replay
    from triton.runtime.interpreter import GridExecutor
    from triton.runtime.jit import JITFunction

    interpreted = "TRITON_INTERPRET" in os.environ
    kernel, name = (GridExecutor, "__call__") if interpreted else (JITFunction, "run")
    calls, launch = [], getattr(kernel, name)

    def kept(self, *args, **kwargs):
        calls.append(lambda: launch(self, *args, **kwargs))

    with monkeypatch.context() as patch, Recorder(calls):
        patch.setattr(kernel, name, kept)
        step()
    return lambda: [each() for each in calls]


@pytest.mark.parametrize(("ensemble", "P"), [("rpmd", 2), ("pile-g", 1), ("pile-g", 5)])
@pytest.mark.parametrize("small", [False, True])
def test_a_captured_step_goes_on_at_each_replay(ensemble, P, small, monkeypatch):
    if small:
        few_at_a_time(monkeypatch)
    one, other = (bound(triton, P, ensemble, rest=True) for _ in range(2))
    energy, forces = torch.zeros_like(one.energy).flatten(), torch.zeros_like(one.beads[0]).flatten(0, 1)
    max_kinetic = torch.full_like(one.heat, 1e9)

    def evaluate(each):
        torch.neg(each.beads[0].view_as(forces), out=forces)

    def step():
        other.advance()
        evaluate(other)
        other.close(energy, forces, max_kinetic, 1e3, 1e3)

    for each in (one, other):
        each.advance(41)
        evaluate(each)
        each.close(energy, forces, max_kinetic, 1e3, 1e3)
    replay = captured(step, monkeypatch)
    for number in (42, 43):
        replay()
        one.advance(number)
        evaluate(one)
        one.close(energy, forces, max_kinetic, 1e3, 1e3)
    assert other.within_limits()
    for expected, got in zip(everything(one), everything(other), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("backend", EVERY)
def test_the_centre_of_mass_is_held_at_rest(backend):
    made = bound(backend, 4, "pile-l", rest=True)
    made.beads[2].zero_()
    made.beads[1].zero_()
    for step in range(1, 4):
        made.advance(step)
    assert float(made.beads[1].abs().min()) > 0
    assert float(made.beads[1].mean(1).sum(1).abs().max()) < 1e-13
