"""Neighbour lists by kernels: those of the graph, with room to spare, just enough and too little."""

import os

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from painn_fast.graph import batch_atoms
from painn_fast.kernels.neighbors import cpu, ops, reference, triton

DEVICE = os.environ["KERNELS_ON"]
BACKENDS = {"reference": (reference, "cpu"), "numba": (cpu, "cpu"), "triton": (triton, DEVICE)}
INTO = {name: BACKENDS[name] for name in ("numba", "triton")}
CUTOFF = 3.2


def cloud(atoms, seed):
    rng = np.random.default_rng(seed)
    return Atoms(f"H{atoms}", rng.uniform(0, 1.6 * atoms ** (1 / 3), (atoms, 3)) + 0.5 * np.arange(atoms)[:, None])


SYSTEMS = {
    "one atom": [Atoms("H")],
    "molecules": [molecule("CH3CH2OH"), Atoms("He"), molecule("CH4"), molecule("C6H6")],
    "an isolated atom in a molecule": [Atoms("H3", [[0, 0, 0], [1, 0, 0], [9, 0, 0]])],
    "no edges": [Atoms("H2", [[0, 0, 0], [0, 0, 9]])],
    "more atoms than a block of a program": [cloud(40, 0), molecule("H2O")],
    "just at the cut-off": [
        Atoms("H2", [[0, 0, 0], [0, 0, d]]) for d in (np.nextafter(CUTOFF, 0), CUTOFF, np.nextafter(CUTOFF, 9))
    ],
}


def near_the_cutoff():
    """Pairs whose distance is the cut-off to the last bit or so."""
    rng = np.random.default_rng(1)
    start, u = rng.normal(size=(2, 40, 3))
    ends = start + CUTOFF * u / np.linalg.norm(u, axis=1)[:, None]
    return [Atoms("H2", pair) for pair in np.stack([start, ends], axis=1)]


SYSTEMS["random pairs at the cut-off"] = near_the_cutoff()


def of(system):
    batch = batch_atoms(SYSTEMS[system], CUTOFF, neighbors="list")
    atom_ptr = torch.cat([torch.zeros(1, dtype=torch.int64), batch.n_atoms.cumsum(0)])
    return batch, atom_ptr


def assert_same(got, expected):
    for name, a, b in zip(("row_ptr", "sender", "mirror"), got, expected, strict=True):
        assert torch.equal(a.cpu(), b), f"{name}: got {a.tolist()}, expected {b.tolist()}"


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_list_is_that_of_the_graph(backend, system):
    module, device = BACKENDS[backend]
    batch, atom_ptr = of(system)
    got = module.neighbors(batch.positions.to(device), atom_ptr.to(device), CUTOFF)
    assert_same(got, (batch.row_ptr, batch.sender, batch.mirror))


def test_pairs_at_the_cutoff_are_partly_in_and_partly_out():
    batch, _ = of("random pairs at the cut-off")
    assert 10 < len(batch.sender) < 70


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_molecules_and_no_atoms_at_all(backend):
    module, device = BACKENDS[backend]
    batch, atom_ptr = of("molecules")
    holes = torch.cat([atom_ptr[:1], atom_ptr[:2], atom_ptr[1:], atom_ptr[-1:]])
    got = module.neighbors(batch.positions.to(device), holes.to(device), CUTOFF)
    assert_same(got, (batch.row_ptr, batch.sender, batch.mirror))
    got = module.neighbors(batch.positions[:0].to(device), holes[:1].to(device), CUTOFF)
    assert_same(got, (torch.zeros(1, dtype=torch.int64), batch.sender[:0], batch.sender[:0]))


def into(backend, system, room):
    """row_ptr, sender, mirror and edges in memory for `room` edges; what lies behind it must not change."""
    module, device = INTO[backend]
    batch, atom_ptr = of(system)
    memory = torch.full((2, room + 8), -7, device=device)
    row_ptr = torch.full((batch.n_total + 1,), -7, device=device)
    edges = torch.full((1,), -7, device=device)
    sender, mirror = memory[0, :room], memory[1, :room]
    module.neighbors_into(batch.positions.to(device), atom_ptr.to(device), CUTOFF, row_ptr, sender, mirror, edges)
    assert (memory[:, room:] == -7).all()
    return batch, [t.cpu() for t in (row_ptr, sender, mirror)], int(edges)


@pytest.mark.parametrize("backend", INTO)
@pytest.mark.parametrize("spare", [0, 5])
@pytest.mark.parametrize("system", ["molecules", "no edges"])
def test_the_list_fits_into_memory_of_the_caller(backend, system, spare):
    expected = len(of(system)[0].sender)
    batch, (row_ptr, sender, mirror), edges = into(backend, system, expected + spare)
    assert edges == expected
    assert_same((row_ptr, sender[:edges], mirror[:edges]), (batch.row_ptr, batch.sender, batch.mirror))
    assert (sender[edges:] == -7).all()
    assert (mirror[edges:] == -7).all()


@pytest.mark.parametrize("backend", INTO)
def test_too_little_room_is_reported_and_everything_stays_inside_it(backend):
    expected = len(of("molecules")[0].sender)
    room = expected // 2
    batch, (row_ptr, sender, mirror), edges = into(backend, "molecules", room)
    assert edges == expected > room
    assert torch.equal(row_ptr, batch.row_ptr.clamp(max=room))
    assert torch.equal(sender, batch.sender[:room])
    assert mirror.min() >= 0
    assert mirror.max() < room


@pytest.mark.parametrize("backend", INTO)
def test_positions_may_have_any_strides(backend):
    module, device = INTO[backend]
    batch, atom_ptr = of("molecules")
    turned = batch.positions.T.contiguous().T.to(device)
    assert_same(module.neighbors(turned, atom_ptr.to(device), CUTOFF), (batch.row_ptr, batch.sender, batch.mirror))
    assert_same(ops.neighbors(turned, atom_ptr.to(device), CUTOFF), (batch.row_ptr, batch.sender, batch.mirror))


def test_with_memory_of_the_caller_nothing_waits_for_the_device(monkeypatch):
    def asked(*_):
        raise AssertionError("asked for a number on the device")

    batch, atom_ptr = of("molecules")
    row_ptr, edges, (sender, mirror) = batch.row_ptr.clone(), batch.row_ptr[:1].clone(), batch.row_ptr.new_zeros(2, 300)
    monkeypatch.setattr(triton, "_launch", lambda *_, **__: None)  # the interpreter asks
    for name in ("item", "__int__", "__index__", "__float__", "__bool__", "tolist", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, asked)
    triton.neighbors_into(batch.positions, atom_ptr, CUTOFF, row_ptr, sender, mirror, edges)
    with pytest.raises(AssertionError, match="asked"):
        triton.neighbors(batch.positions, atom_ptr, CUTOFF)
