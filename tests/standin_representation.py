"""The representation of the stand-in for SchNetPack: radial functions, cut-offs, embeddings, interactions."""

import math

import torch
from torch import nn
from torch.nn import functional


def shifted_softplus(x):
    return functional.softplus(x) - math.log(2.0)


def sum_up(values, index, n):
    return values.new_zeros(n, *values.shape[1:]).index_add(0, index, values)


class Dense(nn.Linear):
    def __init__(self, n_in, n_out, bias=True, activation=None):
        super().__init__(n_in, n_out, bias)
        self.weight_init, self.bias_init = nn.init.xavier_uniform_, nn.init.zeros_
        self.activation = nn.Identity() if activation is None else activation

    def forward(self, x):
        return self.activation(super().forward(x))


class GaussianRBF(nn.Module):
    def __init__(self, n_rbf, cutoff, start=0.0, trainable=False):
        super().__init__()
        self.n_rbf = n_rbf
        offsets = torch.linspace(start, cutoff, n_rbf)
        widths = torch.full_like(offsets, float(offsets[1] - offsets[0]))
        for name, value in (("widths", widths), ("offsets", offsets)):
            if trainable:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self, d):
        return torch.exp(-0.5 * ((d[..., None] - self.offsets) / self.widths) ** 2)


class GaussianRBFCentered(GaussianRBF):
    def __init__(self, n_rbf, cutoff, start=1.0):
        super().__init__(n_rbf, cutoff, start)
        self.widths, self.offsets = self.offsets, torch.zeros_like(self.offsets)


class BesselRBF(nn.Module):
    def __init__(self, n_rbf, cutoff):
        super().__init__()
        self.n_rbf = n_rbf
        self.register_buffer("freqs", torch.arange(1, n_rbf + 1) * math.pi / cutoff)

    def forward(self, d):
        return torch.sin(d[..., None] * self.freqs) / d[..., None]


class CosineCutoff(nn.Module):
    def __init__(self, cutoff):
        super().__init__()
        self.register_buffer("cutoff", torch.tensor([cutoff]))

    def forward(self, d):
        return 0.5 * (torch.cos(d * math.pi / self.cutoff) + 1.0) * (d < self.cutoff)


class MollifierCutoff(CosineCutoff):
    def __init__(self, cutoff, eps=1e-7):
        super().__init__(cutoff)
        self.register_buffer("eps", torch.tensor([eps]))

    def forward(self, d):
        inside = d + self.eps < self.cutoff
        x = torch.where(inside, d / self.cutoff, 0.0)
        return torch.exp(1.0 - 1.0 / (1.0 - x**2)) * inside


class SwitchFunction(nn.Module):
    def __init__(self, switch_on, switch_off):
        super().__init__()
        self.register_buffer("switch_on", torch.tensor([switch_on]))
        self.register_buffer("switch_off", torch.tensor([switch_off]))
        self.cutoff = self.switch_off

    def forward(self, d):
        x = ((d - self.switch_on) / (self.switch_off - self.switch_on)).clamp(1e-6, 1 - 1e-6)
        up, down = torch.exp(-1 / x), torch.exp(-1 / (1 - x))
        return down / (up + down)


class PaiNNInteraction(nn.Module):
    def __init__(self, n_atom_basis, activation):
        super().__init__()
        self.n_atom_basis = n_atom_basis
        self.interatomic_context_net = nn.Sequential(
            Dense(n_atom_basis, n_atom_basis, activation=activation), Dense(n_atom_basis, 3 * n_atom_basis)
        )

    def forward(self, q, mu, w, u, i, j, n):
        a, b, c = (w * self.interatomic_context_net(q)[j]).chunk(3, dim=-1)  # [E, 1, F]
        return q + sum_up(a, i, n), mu + sum_up(b * u[..., None] + c * mu[j], i, n)


class PaiNNMixing(nn.Module):
    def __init__(self, n_atom_basis, activation, epsilon=1e-8):
        super().__init__()
        self.n_atom_basis, self.epsilon = n_atom_basis, epsilon
        self.intraatomic_context_net = nn.Sequential(
            Dense(2 * n_atom_basis, n_atom_basis, activation=activation), Dense(n_atom_basis, 3 * n_atom_basis)
        )
        self.mu_channel_mix = Dense(n_atom_basis, 2 * n_atom_basis, bias=False)

    def forward(self, q, mu):
        V, W = self.mu_channel_mix(mu).chunk(2, dim=-1)
        norm = torch.sqrt((V**2).sum(-2, keepdim=True) + self.epsilon)
        dq, dmu, dqmu = self.intraatomic_context_net(torch.cat([q, norm], dim=-1)).chunk(3, dim=-1)
        return q + dq + dqmu * (V * W).sum(1, keepdim=True), mu + dmu * W


class PaiNN(nn.Module):
    def __init__(
        self, n_atom_basis, n_interactions, radial_basis, cutoff_fn, activation=functional.silu,
        shared_interactions=False, shared_filters=False, epsilon=1e-8, nuclear_embedding=None,
        electronic_embeddings=None,
    ):  # fmt: skip
        super().__init__()
        self.n_atom_basis, self.n_interactions, self.share_filters = n_atom_basis, n_interactions, shared_filters
        self.cutoff_fn, self.cutoff, self.radial_basis = cutoff_fn, cutoff_fn.cutoff, radial_basis
        self.embedding = nuclear_embedding or nn.Embedding(100, n_atom_basis)
        self.electronic_embeddings = nn.ModuleList(electronic_embeddings or [])
        n = 1 if shared_filters else n_interactions
        self.filter_net = Dense(radial_basis.n_rbf, n * 3 * n_atom_basis)
        blocks, repeat = (1, n_interactions) if shared_interactions else (n_interactions, 1)
        self.interactions = nn.ModuleList([PaiNNInteraction(n_atom_basis, activation) for _ in range(blocks)] * repeat)
        self.mixing = nn.ModuleList([PaiNNMixing(n_atom_basis, activation, epsilon) for _ in range(blocks)] * repeat)

    def forward(self, inputs):
        r, i, j, z = (inputs[key] for key in ("_Rij", "_idx_i", "_idx_j", "_atomic_numbers"))
        d = r.norm(dim=1, keepdim=True)
        w = self.filter_net(self.radial_basis(d)) * self.cutoff_fn(d)[..., None]  # [E, 1, n 3 F]
        filters = [w] * self.n_interactions if self.share_filters else w.split(3 * self.n_atom_basis, dim=-1)
        q = self.embedding(z)
        for embedding in self.electronic_embeddings:
            q = q + embedding(q, inputs)
        q, mu = q[:, None], q.new_zeros(len(z), 3, self.n_atom_basis)
        for interaction, mixing, f in zip(self.interactions, self.mixing, filters, strict=True):
            q, mu = mixing(*interaction(q, mu, f, r / d, i, j, len(z)))
        inputs["scalar_representation"], inputs["vector_representation"] = q[:, 0], mu
        return inputs


class NuclearEmbedding(nn.Module):
    def __init__(self, max_z, num_features):
        super().__init__()
        self.num_features = num_features
        self.register_buffer("electron_config", torch.rand(max_z, 23))
        self.element_embedding = nn.Parameter(torch.randn(max_z, num_features))
        self.register_buffer("embedding", torch.zeros(max_z, num_features), persistent=False)
        self.config_linear = nn.Linear(23, num_features, bias=False)

    def forward(self, z):
        return (self.element_embedding + self.config_linear(self.electron_config))[z]


class Residual(nn.Module):
    def __init__(self, n, activation):
        super().__init__()
        self.activation1 = self.activation2 = activation
        self.linear1, self.linear2 = nn.Linear(n, n, bias=False), nn.Linear(n, n, bias=False)

    def forward(self, x):
        return x + self.linear2(self.activation2(self.linear1(self.activation1(x))))


class ResidualStack(nn.Module):
    def __init__(self, n, n_residual, activation):
        super().__init__()
        self.stack = nn.ModuleList(Residual(n, activation) for _ in range(n_residual))

    def forward(self, x):
        for block in self.stack:
            x = block(x)
        return x


class ResidualMLP(nn.Module):
    def __init__(self, n, n_residual, activation):
        super().__init__()
        self.residual = ResidualStack(n, n_residual, activation)
        self.linear, self.activation = nn.Linear(n, n, bias=False), activation

    def forward(self, x):
        return self.linear(self.activation(self.residual(x)))


class ElectronicEmbedding(nn.Module):
    def __init__(self, property_key, num_features, is_charged, num_residual=1, activation=shifted_softplus):
        super().__init__()
        self.property_key, self.is_charged, self.epsilon = property_key, is_charged, 1e-8
        self.linear_q = nn.Linear(num_features, num_features)
        self.linear_k = nn.Linear(1 + is_charged, num_features, bias=False)
        self.linear_v = nn.Linear(1 + is_charged, num_features, bias=False)
        self.resblock = ResidualMLP(num_features, num_residual, activation)

    def forward(self, q, inputs):
        number, m = inputs[self.property_key], inputs["_idx_m"]
        e = torch.stack([number, -number], -1).relu() if self.is_charged else number.abs()[:, None]
        k, v = self.linear_k(e / e.clamp(min=1.0))[m], self.linear_v(e)[m]
        a = torch.softmax((k * self.linear_q(q)).sum(-1) / k.shape[-1] ** 0.5, dim=0)
        return self.resblock((a / (sum_up(a, m, len(number))[m] + self.epsilon))[:, None] * v)


class PairwiseDistances(nn.Module):
    def forward(self, inputs):
        r = inputs["_positions"]
        inputs["_Rij"] = r[inputs["_idx_j"]] - r[inputs["_idx_i"]] + inputs["_offsets"]
        return inputs


class FilterShortRange(PairwiseDistances):
    pass
