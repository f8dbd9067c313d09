"""`nn/electronic.py` for the engine on a CPU: the same numbers for a molecule, bit for bit, whatever its batch.

Features before the first message depend on no position, so that they are made once a graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import pad

from painn_fast.graph import AtomicBatch
from painn_fast.kernels.dense.cpu import activation, matmul, pack
from painn_fast.kernels.simd import LANES
from painn_fast.nn import Potential


@dataclass(frozen=True)
class _Embedding:
    """Weights of one embedding, F padded with zeros to whole vectors; dense layers are packed."""

    signed: bool
    softplus: bool
    root: float  # of F, before it was padded
    query: np.ndarray
    query_bias: np.ndarray  # [F]
    key: np.ndarray  # [2 or 1, F]
    value: np.ndarray  # [2 or 1, F]
    residual: list[tuple[np.ndarray, np.ndarray]]
    out: np.ndarray

    def __call__(self, s: np.ndarray, first: np.ndarray, molecule: np.ndarray, number: np.ndarray) -> np.ndarray:
        """What features s [N, F] of molecules that begin at atoms `first` [M] get for a charge or a spin [M]."""
        number = number.astype(s.dtype)
        e = np.maximum(np.stack([number, -number], axis=1), 0) if self.signed else np.abs(number)[:, None]
        key, value = (_outer(given, weight) for given, weight in ((e / np.maximum(e, 1), self.key), (e, self.value)))
        weight = (key[molecule] * _product(s, self.query, self.query_bias)).sum(axis=1) / s.dtype.type(self.root)
        share = np.exp(weight - np.maximum.reduceat(weight, first)[molecule])
        x = (share / np.add.reduceat(share, first)[molecule])[:, None] * value[molecule]
        for before, after in self.residual:
            x = x + _product(self._active(_product(self._active(x), before)), after)
        return _product(self._active(x), self.out)

    def _active(self, x: np.ndarray) -> np.ndarray:
        out = np.empty_like(x)
        activation(self.softplus, x, out)
        return out


def _outer(e: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """e [M, k] times weight [k, F], without a BLAS, whose sums depend on M."""
    return np.stack([column[:, None] * row for column, row in zip(e.T, weight, strict=True)]).sum(axis=0)


def _product(a: np.ndarray, panels: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    out = np.empty_like(a)
    matmul(a, panels, np.zeros(a.shape[1], a.dtype) if bias is None else bias, out)
    return out


class ElectronicFeatures:
    """Features before the first message, of a model with embeddings of the total charge or the spin multiplicity."""

    @torch.no_grad()
    def __init__(self, potential: Potential) -> None:
        network, config = potential.representation, potential.config.representation
        missing = -config.n_features % LANES
        self._elements = pad(network.embedding.weight, (0, missing)).numpy().copy()
        self._embeddings = {
            name: _embedding(module, getattr(config, f"{name}_embedding").activation, missing)
            for name, module in network.electronic.items()
        }

    def __call__(self, batch: AtomicBatch) -> np.ndarray:
        """[N, F]; [0, F] for models whose atoms begin with their element alone."""
        if not self._embeddings:
            return self._elements[:0]
        numbers = {"charge": batch.total_charge.numpy(), "spin": batch.spin_multiplicity.numpy()}
        molecule, first = batch.molecule.numpy(), (batch.n_atoms.cumsum(0) - batch.n_atoms).numpy()
        s = self._elements[batch.numbers.numpy()]
        for name, embedding in self._embeddings.items():
            s = s + embedding(s, first, molecule, numbers[name])
        return s


def _embedding(module: Any, kind: str, missing: int) -> _Embedding:
    def packed(layer: nn.Linear) -> np.ndarray:
        return pack(pad(layer.weight.T, (0, missing, 0, missing)).contiguous().numpy())

    key, value = (pad(layer.weight.T, (0, missing)).numpy() for layer in (module.key, module.value))
    residual = [(packed(block.network[1]), packed(block.network[3])) for block in module.residual]
    return _Embedding(
        module.signed, kind == "shifted_softplus", math.sqrt(module.out.in_features), packed(module.query),
        pad(module.query.bias, (0, missing)).numpy(), key, value, residual, packed(module.out),
    )  # fmt: skip
