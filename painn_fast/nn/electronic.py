"""Embedding of total charge or spin: attention spreads a number over the atoms (Unke et al., SpookyNet, 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from painn_fast.graph import AtomicBatch
from painn_fast.nn.config import ElectronicConfig
from painn_fast.nn.layers import ACTIVATIONS


class ElectronicEmbedding(nn.Module):
    """Features [N, F] that depend on the total charge (`signed`, own weights for + and -) or the spin multiplicity.

    The softmax runs over the atoms of each molecule alone, so that a result does not depend on the batch.
    """

    def __init__(self, n_features: int, config: ElectronicConfig, *, signed: bool) -> None:
        super().__init__()
        self.signed = signed
        inputs = 2 if signed else 1
        self.query = nn.Linear(n_features, n_features)
        self.key = nn.Linear(inputs, n_features, bias=False)
        self.value = nn.Linear(inputs, n_features, bias=False)
        activation = ACTIVATIONS[config.activation]
        self.residual = nn.ModuleList(_Residual(n_features, activation) for _ in range(config.n_residual))
        self.activation = activation()
        self.out = nn.Linear(n_features, n_features, bias=False)
        for layer in (self.query, self.key, self.value):
            nn.init.orthogonal_(layer.weight)
        nn.init.zeros_(self.query.bias)
        nn.init.zeros_(self.out.weight)

    def forward(self, s: Tensor, batch: AtomicBatch) -> Tensor:
        number = (batch.total_charge if self.signed else batch.spin_multiplicity).to(s.dtype)
        e = torch.stack([number, -number], dim=-1).relu() if self.signed else number.abs()[:, None]  # [M, 2 or 1]
        key = self.key(e / e.clamp(min=1.0))[batch.molecule]
        weight = (key * self.query(s)).sum(dim=-1) / math.sqrt(s.shape[1])  # [N]
        lowest = weight.new_full((batch.n_molecules,), -math.inf)
        top = lowest.scatter_reduce(0, batch.molecule, weight.detach(), "amax")
        share = torch.exp(weight - top[batch.molecule])
        total = share.new_zeros(batch.n_molecules).index_add(0, batch.molecule, share)
        x = (share / total[batch.molecule])[:, None] * self.value(e)[batch.molecule]
        for block in self.residual:
            x = block(x)
        return self.out(self.activation(x))


class _Residual(nn.Module):
    """x + W2 act(W1 act(x))."""

    def __init__(self, n_features: int, activation: type[nn.Module]) -> None:
        super().__init__()
        first, second = (nn.Linear(n_features, n_features, bias=False) for _ in range(2))
        nn.init.orthogonal_(first.weight)
        nn.init.zeros_(second.weight)
        self.network = nn.Sequential(activation(), first, activation(), second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.network(x)
