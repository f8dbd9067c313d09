"""Neighbour lists by kernels: those of the graph."""

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


@pytest.mark.parametrize("backend", ["numba", "triton"])
def test_positions_may_have_any_strides(backend):
    module, device = BACKENDS[backend]
    batch, atom_ptr = of("molecules")
    turned = batch.positions.T.contiguous().T.to(device)
    assert_same(module.neighbors(turned, atom_ptr.to(device), CUTOFF), (batch.row_ptr, batch.sender, batch.mirror))
    assert_same(ops.neighbors(turned, atom_ptr.to(device), CUTOFF), (batch.row_ptr, batch.sender, batch.mirror))
