"""PaiNN: polarizable atom interaction neural network.

Schütt, Unke, Gastegger, "Equivariant message passing for the prediction of tensorial properties and molecular spectra",
ICML 2021, arXiv:2102.03150. Symbols: s scalar features [N, F], v vector features [N, 3, F], i receiver, j sender,
d = |r_ij|, u = r_ij / d.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from painn_fast.graph import AtomicBatch
from painn_fast.kernels.message.ops import BACKENDS, Edges, GpuEdges, edges, message
from painn_fast.kernels.network.ops import blocks, readable
from painn_fast.kernels.network.ops import supports as blocks_run
from painn_fast.kernels.network.reference import Readout, Weights
from painn_fast.kernels.radial.reference import Radial
from painn_fast.kernels.update.ops import gate, norm
from painn_fast.nn.config import RepresentationConfig
from painn_fast.nn.electronic import ElectronicEmbedding
from painn_fast.nn.layers import dense, linears, mlp
from painn_fast.nn.radial import SincBasis, cutoff_function, radial_basis


class Message(nn.Module):
    """Message block (equations 7 and 8): what atom i hears from its neighbours j.

    x_j = MLP(s_j);  (a, b, c) = x_j * w_ij;  ds_i = sum_j a;  dv_i = sum_j (b u_ij + c v_j).
    """

    def __init__(self, n_features: int, gates: int, activation: str) -> None:
        super().__init__()
        self.n_features = n_features
        self.context = mlp((n_features, n_features, gates * n_features), activation)

    def forward(self, s: Tensor, v: Tensor, w: Tensor, u: Tensor, batch: AtomicBatch) -> tuple[Tensor, Tensor]:
        i, j = batch.receiver, batch.sender
        a, *bc = torch.split(self.context(s)[j] * w, self.n_features, dim=-1)  # each [E, F]
        ds = torch.zeros_like(s).index_add(0, i, a)
        if not bc:  # no vector features
            return s + ds, v
        dv_ij = bc[0][:, None, :] * u[:, :, None]  # [E, 3, F]
        if len(bc) == 2:  # vectors propagate
            dv_ij = dv_ij + bc[1][:, None, :] * v[j]
        return s + ds, v + torch.zeros_like(v).index_add(0, i, dv_ij)

    def fused(self, s: Tensor, v: Tensor, weight: Tensor, edges: Edges | GpuEdges) -> tuple[Tensor, Tensor]:
        """The same in one pass over the edges, with w_ij made on the way."""
        ds, dv = message(self.context(s), v, weight, edges)
        return s + ds, v + dv


class Update(nn.Module):
    """Update block (equations 9 and 10): scalars and vectors of one atom mix.

    [V, W] = v C;  (A, B, G) = MLP([s, |V|]);  ds = A + G <V, W>;  dv = B W.
    """

    def __init__(self, n_features: int, gates: int, activation: str, epsilon: float) -> None:
        super().__init__()
        self.n_features, self.gates, self.epsilon = n_features, gates, epsilon
        if gates > 1:
            self.channel_mix = dense(n_features, 2 * n_features, bias=False)
        self.context = mlp(((1 + (gates > 1)) * n_features, n_features, gates * n_features), activation)

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.gates == 1:  # no vector features
            return s + self.context(s), v
        V, W = torch.split(self.channel_mix(v), self.n_features, dim=-1)  # each [N, 3, F]
        norm = torch.sqrt((V**2).sum(dim=1) + self.epsilon)  # [N, F]
        A, B, *G = torch.split(self.context(torch.cat([s, norm], dim=-1)), self.n_features, dim=-1)
        s = s + A
        if G:  # with the scalar product
            s = s + G[0] * (V * W).sum(dim=1)
        return s, v + B[:, None, :] * W

    def fused(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The same with everything between the matrix products in two passes over the atoms; all three gates."""
        vw = self.channel_mix(v)
        context, dot = norm(s, vw, self.epsilon)
        return gate(s, v, self.context(context), vw, dot)


class PaiNN(nn.Module):
    """The representation: embedding, then message and update in turn.

    Args:
        config: sizes, bases, sharing, embeddings and ablation.
    """

    def __init__(self, config: RepresentationConfig) -> None:
        super().__init__()
        self.config = config
        F, L, act = config.n_features, config.n_layers, config.activation
        message_gates, update_gates = GATES[config.ablation]
        blocks = 1 if config.shared_interactions else L
        self.n_filters = 1 if config.shared_filters else L
        self.embedding = nn.Embedding(config.max_z, F)
        self.electronic = nn.ModuleDict()
        if config.charge_embedding is not None:
            self.electronic["charge"] = ElectronicEmbedding(F, config.charge_embedding, signed=True)
        if config.spin_embedding is not None:
            self.electronic["spin"] = ElectronicEmbedding(F, config.spin_embedding, signed=False)
        self.radial_basis = radial_basis(config)
        self.cutoff_function = cutoff_function(config)
        self.filter = dense(config.n_rbf, self.n_filters * message_gates * F)
        self.message = nn.ModuleList(Message(F, message_gates, act) for _ in range(blocks))
        self.update = nn.ModuleList(Update(F, update_gates, act, config.epsilon) for _ in range(blocks))
        self.backend = "auto"
        """"auto" and "fused" run the fused operation where it can; "reference" does not."""

    @property
    def fused(self) -> bool:
        """Whether messages go through the fused operation: with all gates of the paper, on a device that has it."""
        known = self.filter.weight.device.type in BACKENDS
        return self.backend != "reference" and self.config.ablation in FUSABLE and known

    @property
    def radial(self) -> Radial:
        """What the filters are made of, for the fused operation."""
        basis, config = self.radial_basis, self.config
        first = basis.frequencies if isinstance(basis, SincBasis) else basis.offsets
        widths = torch.ones_like(first) if isinstance(basis, SincBasis) else basis.widths
        on = config.switch_on or 0.0
        return Radial(config.radial_basis, first, widths, config.cutoff_function, config.cutoff, on)

    def forward(self, batch: AtomicBatch, r_ij: Tensor, *, once: bool = False) -> tuple[Tensor, Tensor]:
        """Features of every atom.

        Args:
            batch: graph and atomic numbers.
            r_ij: edge vectors [E, 3] in the model's length unit and the dtype of the parameters.
            once: forces will be taken, and differentiated in the parameters, but nothing twice in r_ij.

        Returns:
            s [N, F] and v [N, 3, F].
        """
        s, v = self._embedded(batch), r_ij.new_zeros(batch.n_total, 3, self.config.n_features)
        if self.fused:  # w_ij is made inside the operation, from its weights
            shared = edges(r_ij, self.radial, batch.row_ptr, batch.sender, batch.mirror, once=once)
            filters = self._filter_weights()
        else:
            d = torch.linalg.vector_norm(r_ij, dim=1)  # [E]
            u = r_ij / d[:, None]
            phi, fc = self.radial_basis(d), self.cutoff_function(d)[:, None]  # [E, n_rbf], [E, 1]
            filters = (self.filter(phi) * fc).chunk(self.n_filters, dim=-1)
        for layer in range(self.config.n_layers):
            block: Any = self.message[layer % len(self.message)]
            update: Any = self.update[layer % len(self.update)]
            w = filters[layer % len(filters)]
            s, v = block.fused(s, v, w, shared) if self.fused else block(s, v, w, u, batch)
            s, v = update.fused(s, v) if self.fused and update.gates == 3 else update(s, v)
        return s, v

    def read_out(
        self, batch: AtomicBatch, r_ij: Tensor, network: nn.Module | None, *, once: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Features of every atom, and what a network of two layers makes of s: on a CPU, one operation for training.

        Args:
            batch: as in `forward`; r_ij: too, opposite for opposite edges.
            network: from s to a number.
            once: as in `forward`.

        Returns:
            s [N, F], v [N, 3, F] and the number [N], or None where nobody has made it.
        """
        known = self.config.ablation == "none" and self.config.activation == "silu"
        by_messages = BACKENDS.get(r_ij.device.type) is GpuEdges
        if by_messages or not (self.fused and known and blocks_run(r_ij, self.config.n_features)):
            return *self(batch, r_ij, once=once), None
        layers = range(self.config.n_layers)
        weights = []
        for layer in layers:
            message: Any = self.message[layer % len(self.message)]
            update: Any = self.update[layer % len(self.update)]
            tensors = [*linears(message.context), update.channel_mix.weight, *linears(update.context)]
            weights.append(Weights(*tensors))
        filters = self._filter_weights()
        ends = linears(network) if isinstance(network, nn.Sequential) else []
        readout = Readout(*ends) if len(ends) == 4 and readable(ends[0]) else None
        s, v, read = blocks(
            self._embedded(batch), r_ij, self.radial, [filters[layer % len(filters)] for layer in layers], weights,
            readout, self.config.epsilon, batch.row_ptr, batch.sender, batch.mirror, batch.n_atoms, edges_once=once,
        )  # fmt: skip
        return s, v, read if readout else None

    def _embedded(self, batch: AtomicBatch) -> Tensor:
        s: Tensor = self.embedding(batch.numbers)
        for embedding in self.electronic.values():
            s = s + embedding(s, batch)
        return s

    def _filter_weights(self) -> tuple[Tensor, ...]:
        """Of each layer [K + 1, 3 F], the bias in the last row."""
        return torch.cat([self.filter.weight.T, self.filter.bias[None]]).chunk(self.n_filters, dim=-1)


GATES = {
    "none": (3, 3),
    "no_scalar_product": (3, 2),
    "no_vector_propagation": (2, 3),
    "no_scalar_product_no_vector_propagation": (2, 2),
    "no_vector_features": (1, 1),
}
"""Gates of message (a, b, c) and update block (A, B, G) that each row of the paper's ablation keeps."""
FUSABLE = {"none", "no_scalar_product"}
"""Those whose message has all its gates."""
