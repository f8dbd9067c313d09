"""Heads: properties of molecules from the features of their atoms (the paper's section 4.2).

A head works in the model's own units; `Potential` converts. Positions come relative to the centre of mass of each
molecule (standard atomic masses, so that an isotope changes no electronic property): the dipole of an ion and the
polarizability then do not depend on where the molecule is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from painn_fast.graph import AtomicBatch
from painn_fast.nn.config import (
    DipoleHead,
    EnergyHead,
    Head,
    PolarizabilityHead,
    RepresentationConfig,
    ScalarHead,
    SpatialExtentHead,
)
from painn_fast.nn.layers import ACTIVATIONS, Float64Buffers, dense, mlp


def widths(head: Head, n_in: int, n_out: int = 1) -> tuple[int, ...]:
    """Layer widths of a head's network: as given, or halved from layer to layer."""
    if head.hidden is not None:
        return (n_in, *head.hidden, n_out)
    return (*(max(n_out, n_in // 2**layer) for layer in range(head.n_layers)), n_out)


class GatedEquivariantBlock(nn.Module):
    """Scalars and vectors mixed, vectors gated by scalars (the paper's figure 3)."""

    def __init__(self, n_in: int, n_out: int, activation: str, *, last: bool) -> None:
        super().__init__()
        self.n_out = n_out
        self.channel_mix = dense(n_in, 2 * n_out, bias=False)
        self.context = mlp((n_in + n_out, n_in, 2 * n_out), activation)
        self.activation = nn.Identity() if last else ACTIVATIONS[activation]()

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:  # [N, F], [N, 3, F]
        V, W = torch.split(self.channel_mix(v), self.n_out, dim=-1)
        norm = torch.sqrt((V**2).sum(dim=1) + 1e-30)  # differentiable at 0, an isolated atom
        s, gate = torch.split(self.context(torch.cat([s, norm], dim=-1)), self.n_out, dim=-1)
        return self.activation(s), gate[:, None, :] * W


class GatedNetwork(nn.Module):
    """Gated equivariant blocks in turn: a scalar and a vector for each atom."""

    def __init__(self, sizes: tuple[int, ...], activation: str) -> None:
        super().__init__()
        pairs = list(pairwise(sizes))
        self.blocks = nn.ModuleList(
            GatedEquivariantBlock(n_in, n_out, activation, last=k == len(pairs) - 1)
            for k, (n_in, n_out) in enumerate(pairs)
        )

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:  # [N, 1], [N, 3]
        for block in self.blocks:
            s, v = block(s, v)
        return s, v[..., 0]


class Atomwise(Float64Buffers):
    """Sum or mean of atomic scalars, with atomic references and a mean per atom added back."""

    atomic_reference: Tensor  # [max_z] float64, model unit
    mean: Tensor  # [] float64, model unit per atom (sum) or per molecule (mean)

    def __init__(self, head: EnergyHead | ScalarHead, config: RepresentationConfig) -> None:
        super().__init__()
        self.network = mlp(widths(head, config.n_features), config.activation)
        self.average = isinstance(head, ScalarHead) and head.aggregation == "mean"
        self.register_buffer("atomic_reference", torch.zeros(config.max_z, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))

    def forward(self, s: Tensor, batch: AtomicBatch, read: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Totals [M] and atomic contributions [N], both float64: energies of thousands of eV differ by meV.

        `read` [N]: the output of the network for s, if that is known.
        """
        read = self.network(s)[:, 0] if read is None else read
        atomic = read.double() + self.atomic_reference[batch.numbers] + self.mean
        total = batch.sum_over_atoms(atomic)
        return (total / batch.n_atoms if self.average else total), atomic


class Dipole(nn.Module):
    """mu = sum_i (mu_i + q_i r_i) (the paper's equation 11)."""

    def __init__(self, head: DipoleHead, config: RepresentationConfig) -> None:
        super().__init__()
        self.head = head
        sizes = widths(head, config.n_features)
        self.network = (GatedNetwork if head.atomic_dipoles else mlp)(sizes, config.activation)

    def forward(
        self, s: Tensor, v: Tensor, r: Tensor, total_charge: Tensor, batch: AtomicBatch
    ) -> tuple[Tensor, Tensor]:
        """Dipole [M, 3] and charges [N] from positions r [N, 3] relative to the centre of mass."""
        if self.head.atomic_dipoles:
            charge, atomic_dipole = self.network(s, v)
        else:
            charge, atomic_dipole = self.network(s), torch.zeros_like(r)
        charge = charge[:, 0]
        if self.head.correct_charges:
            excess = (total_charge - batch.sum_over_atoms(charge)) / batch.n_atoms
            charge = charge + excess[batch.molecule].to(charge.dtype)
        return batch.sum_over_atoms(atomic_dipole + charge[:, None] * r), charge


class Polarizability(nn.Module):
    """alpha = sum_i (a_i I + nu_i r_i + r_i nu_i) (the paper's equation 14)."""

    def __init__(self, head: PolarizabilityHead, config: RepresentationConfig) -> None:
        super().__init__()
        self.network = GatedNetwork(widths(head, config.n_features), config.activation)

    def forward(self, s: Tensor, v: Tensor, r: Tensor, batch: AtomicBatch) -> Tensor:
        """Polarizability [M, 3, 3] from positions r [N, 3] relative to the centre of mass."""
        isotropic, nu = self.network(s, v)
        outer = nu[:, :, None] * r[:, None, :]
        identity = torch.eye(3, dtype=s.dtype, device=s.device)
        return batch.sum_over_atoms(isotropic[:, :, None] * identity + outer + outer.transpose(1, 2))


class SpatialExtent(nn.Module):
    """<R^2> = sum_i q_i |r_i|^2 (the paper's equation 13)."""

    def __init__(self, head: SpatialExtentHead, config: RepresentationConfig) -> None:
        super().__init__()
        self.network = mlp(widths(head, config.n_features), config.activation)

    def forward(self, s: Tensor, r: Tensor, batch: AtomicBatch) -> Tensor:
        """[M] from positions r [N, 3] relative to the centre of mass."""
        return batch.sum_over_atoms(self.network(s)[:, 0] * (r**2).sum(dim=1))


def build_heads(heads: tuple[Head, ...], config: RepresentationConfig) -> Iterator[nn.Module]:
    """The modules of the configured heads, in order."""
    for head in heads:
        match head:
            case EnergyHead() | ScalarHead():
                yield Atomwise(head, config)
            case DipoleHead():
                yield Dipole(head, config)
            case PolarizabilityHead():
                yield Polarizability(head, config)
            case SpatialExtentHead():
                yield SpatialExtent(head, config)
