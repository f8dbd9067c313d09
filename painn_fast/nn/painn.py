"""PaiNN, the polarizable atom interaction neural network, equation by equation.

Schütt, Unke, Gastegger, "Equivariant message passing for the prediction of tensorial properties and molecular spectra",
ICML 2021, arXiv:2102.03150. Edges point from a sender j to a receiver i.

| paper | here | shape |
|---|---|---|
| s_i, v_i: scalar and vector features | `s`, `v` | [N, F], [N, 3, F] |
| r_ij / ||r_ij||: direction from i to j | `u` | [E, 3] |
| phi(s_j), split in three | `phi_ss`, `phi_vs`, `phi_vv`, from the network `context` | [N, F] each |
| W(||r_ij||): filter, linear in the radial functions, times the cut-off function | `W` | [E, 3 F] |
| U v_i, V v_i, ||V v_i|| | `Uv`, `Vv`, from the linear map `channel_mix`, `norm_Vv` | [N, 3, F] each, [N, F] |
| a(s_i, ||V v_i||), split in three | `a_ss`, `a_vv`, `a_sv`, from the network `context` | [N, F] each |

This is what the network is. `painn_fast.nn.fused` computes the same with compiled operations where there are some.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from painn_fast.graph import AtomicBatch
from painn_fast.nn.config import RepresentationConfig
from painn_fast.nn.electronic import ElectronicEmbedding
from painn_fast.nn.layers import dense, mlp
from painn_fast.nn.radial import cutoff_function, radial_basis

GATES = {
    "none": (3, 3),
    "no_scalar_product": (3, 2),
    "no_vector_propagation": (2, 3),
    "no_scalar_product_no_vector_propagation": (2, 2),
    "no_vector_features": (1, 1),
}
"""How many parts of phi (ss, vs, vv) and of a (ss, vv, sv) each row of the paper's ablation keeps."""


class Message(nn.Module):
    """Message block, equations 7 and 8: sums over the neighbours j of atom i."""

    def __init__(self, n_features: int, gates: int, activation: str) -> None:
        super().__init__()
        self.n_features = n_features
        self.context = mlp((n_features, n_features, gates * n_features), activation)

    def forward(self, s: Tensor, v: Tensor, W: Tensor, u: Tensor, batch: AtomicBatch) -> tuple[Tensor, Tensor]:
        i, j = batch.receiver, batch.sender
        phi_ss, *phi_v = torch.split(self.context(s)[j] * W, self.n_features, dim=-1)  # phi o W, [E, F] each
        s = s + torch.zeros_like(s).index_add(0, i, phi_ss)  # equation 7
        if not phi_v:  # no vector features
            return s, v
        dv = phi_v[0][:, None, :] * u[:, :, None]  # phi_vs: [E, 3, F]
        if len(phi_v) == 2:
            dv = dv + phi_v[1][:, None, :] * v[j]  # phi_vv: vectors propagate
        return s, v + torch.zeros_like(v).index_add(0, i, dv)  # equation 8


class Update(nn.Module):
    """Update block, equations 9 and 10: scalars and vectors of one atom mix."""

    def __init__(self, n_features: int, gates: int, activation: str, epsilon: float) -> None:
        super().__init__()
        self.n_features, self.gates, self.epsilon = n_features, gates, epsilon
        if gates > 1:
            self.channel_mix = dense(n_features, 2 * n_features, bias=False)
        self.context = mlp(((1 + (gates > 1)) * n_features, n_features, gates * n_features), activation)

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.gates == 1:  # no vector features
            return s + self.context(s), v
        Vv, Uv = torch.split(self.channel_mix(v), self.n_features, dim=-1)  # [N, 3, F] each
        norm_Vv = torch.sqrt((Vv**2).sum(dim=1) + self.epsilon)  # [N, F]
        a_ss, a_vv, *a_sv = torch.split(self.context(torch.cat([s, norm_Vv], dim=-1)), self.n_features, dim=-1)
        s = s + a_ss
        if a_sv:
            s = s + a_sv[0] * (Vv * Uv).sum(dim=1)  # equation 9
        return s, v + a_vv[:, None, :] * Uv  # equation 10


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

    def forward(self, batch: AtomicBatch, r_ij: Tensor) -> tuple[Tensor, Tensor]:
        """Features of every atom.

        Args:
            batch: graph and atomic numbers.
            r_ij: edge vectors [E, 3] in the model's length unit and the dtype of the parameters.

        Returns:
            s [N, F] and v [N, 3, F].
        """
        d = torch.linalg.vector_norm(r_ij, dim=1)  # [E]
        u = r_ij / d[:, None]
        filters = self.filter(self.radial_basis(d)) * self.cutoff_function(d)[:, None]  # of all layers
        W = filters.chunk(self.n_filters, dim=-1)
        s = self.embed(batch)
        v = r_ij.new_zeros(batch.n_total, 3, self.config.n_features)
        for layer in range(self.config.n_layers):
            s, v = self.message[layer % len(self.message)](s, v, W[layer % len(W)], u, batch)
            s, v = self.update[layer % len(self.update)](s, v)
        return s, v

    def embed(self, batch: AtomicBatch) -> Tensor:
        """Features s [N, F] before the first message: of the element, the total charge and the spin multiplicity."""
        s: Tensor = self.embedding(batch.numbers)
        for embedding in self.electronic.values():
            s = s + embedding(s, batch)
        return s
