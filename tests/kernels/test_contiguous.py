"""Launchers that compute addresses from shapes alone refuse tensors that are not contiguous, outputs among them."""

import os
from dataclasses import replace

import pytest
import torch

from painn_fast.kernels.bonds import triton as bonds
from painn_fast.kernels.bonds.reference import Bonds, Contacts
from painn_fast.kernels.edges.triton import edge_forces, edge_vectors
from painn_fast.kernels.message.triton import message_force_bwd, message_fwd
from painn_fast.kernels.random.triton import normal
from painn_fast.kernels.readout.triton import readout
from painn_fast.kernels.ring import cpu, triton
from painn_fast.kernels.tools.tuning.subjects import molecules
from painn_fast.kernels.update.triton import norm_fwd
from painn_fast.md.integrators import RingPolymer
from painn_fast.md.state import System

DEVICE = torch.device(os.environ["KERNELS_ON"])


def strided(*shape, dtype=torch.float32, fill=0):
    """Every second number of a row."""
    return torch.full((*shape[:-1], 2 * shape[-1]), fill, dtype=dtype, device=DEVICE)[..., ::2]


@pytest.fixture(scope="module")
def problem():
    return molecules([3, 2], DEVICE)


def edge_vectors_out(p):
    n, e = len(p.inputs[0]), len(p.inputs[2])
    indices, positions = torch.zeros(e, dtype=torch.int64, device=DEVICE), torch.zeros(n, 3, device=DEVICE).double()
    edge_vectors(positions, indices, indices, positions.new_zeros(e, 3), 1.0, strided(e, 3))


def edge_forces_out(p):
    n, r = len(p.inputs[0]), p.inputs[2]
    virial = torch.zeros(n, 3, 3, dtype=torch.float64, device=DEVICE)
    edge_forces(r, r, p.graph[0], p.graph[2], strided(n, 3, dtype=torch.float64), virial)


def message_out(p):
    v = p.inputs[1]
    message_fwd(*p.inputs, p.radial, *p.graph[:2], out=(strided(*v[:, 0].shape), torch.empty_like(v)))


def message_adjoint_out(p):
    x, v = p.inputs[:2]
    out = torch.empty_like(x), strided(*v.shape), torch.zeros(1, len(x), 3, device=DEVICE)
    message_force_bwd(*p.adjoints, *p.inputs, p.radial, *p.graph[:2], out=out)


def readout_out(p):
    h = p.readout[0]
    elements, total = torch.zeros(len(h), dtype=torch.int64, device=DEVICE), torch.zeros(2, device=DEVICE).double()
    readout(*p.readout, elements, p.atom_ptr, strided(len(h), dtype=torch.float64), total)


def update_in(p):
    s, _, vw, dot, context, _ = p.update
    norm_fwd(s, vw, 1e-8, context, strided(*dot.shape))


def random_out(p):
    normal(1, torch.arange(2, device=DEVICE), 3, 4, out=strided(2, 4, dtype=torch.float64))


def bonds_in(p):
    one, none = torch.zeros(1, 2, device=DEVICE).double(), torch.zeros(1, 2, dtype=torch.int64, device=DEVICE)
    made = Bonds(atoms=strided(1, 2, 2, dtype=torch.int64), length=one, broken_at=none, reached=one)
    cell = torch.zeros(3, 3, device=DEVICE).double()
    contacts = Contacts(radii=one[0], hydrogen=none[0].bool(), cell=cell, inverse=cell, periodic=False)
    bonds.update_bonds(torch.zeros(1, 1, 2, 3, device=DEVICE).double(), none[0, :1], made, contacts, 1, True)


@pytest.mark.parametrize(
    "call",
    [edge_vectors_out, edge_forces_out, message_out, message_adjoint_out, readout_out, update_in, random_out,
     bonds_in],
    ids=lambda call: call.__name__,
)  # fmt: skip
def test_a_launcher_refuses_memory_that_its_kernel_would_read_or_write_wrongly(call, problem):
    with pytest.raises(ValueError, match=r"contiguous.*strides"):
        call(problem)


@pytest.mark.parametrize("which", range(7))
@pytest.mark.parametrize("backend", [cpu, triton])
def test_steps_of_ring_polymers_refuse_states_that_are_not_contiguous(backend, which):
    """On a CPU a copy would be moved instead, and the state stay as it was."""
    device = torch.device("cpu") if backend is cpu else DEVICE
    masses, whole = torch.ones(2, device=device).double(), torch.ones(2, dtype=torch.int64, device=device)
    system = System(whole, masses, torch.zeros(3, 3, device=device), torch.zeros(3, dtype=torch.bool, device=device))
    kelvin = torch.full((4,), 300.0, dtype=torch.float64, device=device)
    ring = replace(RingPolymer(system, "pile-l", 2, kelvin, 0.5).ring)
    shapes = [(4, 2, 2, 3)] * 4 + [(4, 2), (4,), (4,)]
    given = [torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes]
    given[6] = given[6].long()
    shape = shapes[which]
    given[which] = torch.zeros(2 * shape[0], *shape[1:], dtype=given[which].dtype, device=device)[::2]
    with pytest.raises(ValueError, match=rf"contiguous.*tensor {which}, "):
        backend.Steps(*given, torch.ones(4, dtype=torch.bool, device=device), ring)
