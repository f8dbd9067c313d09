"""PaiNN for SchNetPack: the same constructor, the same dictionary in and out, the same names in the state dict.

A representation runs the whole-network operation where that can, and its blocks in plain torch elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional

from painn_fast.errors import PaiNNFastError
from painn_fast.graph import AtomicBatch
from painn_fast.nn.painn import Message, Update
from painn_fast.schnetpack import operation

log = logging.getLogger("painn_fast.schnetpack")
Inputs = dict[str, Tensor]
"""SchNetPack's dictionary of a batch."""
Activation = Callable[[Tensor], Tensor] | None


def no_script(module: nn.Module) -> NoReturn:
    """What `torch.jit.script` calls of a module before it compiles it: ours has operations that TorchScript has not.

    Raises:
        PaiNNFastError: always; names what to do instead.
    """
    raise PaiNNFastError(
        "an accelerated model cannot be scripted or traced by torch.jit",
        where=type(module).__name__,
        expected="SchNetPack's own classes",
        fix="painn_fast.restore(model) gives the model these back, in place",
    )


class Dense(nn.Linear):
    """A linear layer with an activation after it."""

    def __init__(self, n_in: int, n_out: int, activation: Activation = None, *, bias: bool = True) -> None:
        super().__init__(n_in, n_out, bias)
        nn.init.xavier_uniform_(self.weight)
        if bias:
            nn.init.zeros_(self.bias)
        self.activation = nn.Identity() if activation is None else activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(super().forward(x))


class PaiNNInteraction(Message):
    """Our message block over SchNetPack's submodules."""

    __prepare_scriptable__ = no_script

    def __init__(self, n_atom_basis: int, activation: Activation) -> None:
        nn.Module.__init__(self)
        self.n_atom_basis = n_atom_basis
        self.interatomic_context_net = nn.Sequential(
            Dense(n_atom_basis, n_atom_basis, activation), Dense(n_atom_basis, 3 * n_atom_basis)
        )

    @property
    def n_features(self) -> int:  # type: ignore[override]
        """F."""
        return self.n_atom_basis

    @property
    def context(self) -> nn.Module:  # type: ignore[override]
        """The MLP of the block."""
        return self.interatomic_context_net


class PaiNNMixing(Update):
    """Our update block over SchNetPack's submodules."""

    gates = 3
    __prepare_scriptable__ = no_script

    def __init__(self, n_atom_basis: int, activation: Activation, epsilon: float = 1e-8) -> None:
        nn.Module.__init__(self)
        self.n_atom_basis, self.epsilon = n_atom_basis, epsilon
        self.intraatomic_context_net = nn.Sequential(
            Dense(2 * n_atom_basis, n_atom_basis, activation), Dense(n_atom_basis, 3 * n_atom_basis)
        )
        self.mu_channel_mix = Dense(n_atom_basis, 2 * n_atom_basis, bias=False)

    @property
    def n_features(self) -> int:  # type: ignore[override]
        """F."""
        return self.n_atom_basis

    @property
    def context(self) -> nn.Module:  # type: ignore[override]
        """The MLP of the block."""
        return self.intraatomic_context_net

    @property
    def channel_mix(self) -> nn.Module:  # type: ignore[override]
        """The linear map of the vectors."""
        return self.mu_channel_mix


class PaiNN(nn.Module):
    """PaiNN with SchNetPack's interface.

    Args:
        n_atom_basis: features F.
        n_interactions: message and update blocks L.
        radial_basis: distances [E] to [E, n_rbf], with an attribute `n_rbf`.
        cutoff_fn: distances [E] to [E], with an attribute `cutoff`.
        activation: between the layers.
        shared_interactions: one block for all layers.
        shared_filters: one filter for all layers.
        epsilon: under the root of the norm.
        nuclear_embedding: atomic numbers [N] to [N, F]; a table of 100 elements by default.
        electronic_embeddings: modules that give [N, F] from ([N, F], dictionary), added one after another.

    Example:
        >>> import torch
        >>> from painn_fast.nn.radial import CosineCutoff, GaussianBasis
        >>> from painn_fast.schnetpack import PaiNN
        >>> basis = GaussianBasis(8, cutoff=5.0)
        >>> basis.n_rbf = 8  # which those of SchNetPack have
        >>> painn = PaiNN(16, 2, basis, CosineCutoff(5.0))
        >>> batch = {
        ...     "_atomic_numbers": torch.tensor([8, 1]),
        ...     "_Rij": torch.tensor([[0.0, 0.0, 0.97], [0.0, 0.0, -0.97]]),  # Å
        ...     "_idx_i": torch.tensor([0, 1]),
        ...     "_idx_j": torch.tensor([1, 0]),
        ... }
        >>> painn(batch)["vector_representation"].shape
        torch.Size([2, 3, 16])
    """

    __prepare_scriptable__ = no_script

    def __init__(
        self,
        n_atom_basis: int,
        n_interactions: int,
        radial_basis: nn.Module,
        cutoff_fn: nn.Module | None = None,
        activation: Activation = functional.silu,
        shared_interactions: bool = False,
        shared_filters: bool = False,
        epsilon: float = 1e-8,
        nuclear_embedding: nn.Module | None = None,
        electronic_embeddings: Iterable[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if cutoff_fn is None:
            raise PaiNNFastError(
                "PaiNN needs a cut-off function", got="None", fix="give one, such as CosineCutoff(5.0)"
            )
        self.n_atom_basis, self.n_interactions, self.share_filters = n_atom_basis, n_interactions, shared_filters
        self.radial_basis, self.cutoff_fn = radial_basis, cutoff_fn
        self.cutoff = cutoff_fn.cutoff
        self.embedding = nuclear_embedding if nuclear_embedding is not None else nn.Embedding(100, n_atom_basis)
        self.electronic_embeddings = nn.ModuleList(electronic_embeddings or ())
        n_filters = 1 if shared_filters else n_interactions
        self.filter_net = Dense(int(radial_basis.n_rbf), 3 * n_atom_basis * n_filters)  # type: ignore[arg-type]
        blocks, repeat = (1, n_interactions) if shared_interactions else (n_interactions, 1)
        interactions = [PaiNNInteraction(n_atom_basis, activation) for _ in range(blocks)]
        mixing = [PaiNNMixing(n_atom_basis, activation, epsilon) for _ in range(blocks)]
        self.interactions, self.mixing = nn.ModuleList(interactions * repeat), nn.ModuleList(mixing * repeat)

    def forward(self, inputs: Inputs) -> Inputs:
        """Add the features to the dictionary of a batch.

        Args:
            inputs: `_atomic_numbers` [N], `_Rij` [E, 3], `_idx_i` (receiver) and `_idx_j` (sender) [E], in any order.

        Returns:
            The same dictionary with `scalar_representation` [N, F] and `vector_representation` [N, 3, F].
        """
        if torch.jit.is_tracing():  # or numbers of this batch would become constants
            no_script(self)
        numbers, r_ij = inputs["_atomic_numbers"], inputs["_Rij"]
        s = self.embedding(numbers.long())
        for embedding in getattr(self, "electronic_embeddings", ()):  # SchNetPack 2.0 has none
            s = s + embedding(s, inputs)
        s, v = self._by_operation(s, r_ij, inputs) or self._by_blocks(s, inputs)
        inputs["scalar_representation"], inputs["vector_representation"] = s, v
        return inputs

    @property
    def path(self) -> str:
        """What runs: "compiled", or "blocks: " and the reason; `accelerate` lists what is known for a call alone."""
        reason = operation.plan(self).reason
        return "compiled" if reason is None else f"blocks: {reason}"

    def _by_operation(self, s: Tensor, r_ij: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor] | None:
        """Features by the compiled operation, if it runs this representation on this batch."""
        if operation.transformed():
            return None
        how = operation.plan(self)
        reason = how.reason
        if reason is None and not s.dtype == r_ij.dtype == self.filter_net.weight.dtype:
            reason = "inputs in another dtype than the parameters"
        if reason is None:
            i, j = inputs["_idx_i"].long(), inputs["_idx_j"].long()
            edges = operation.neighbor_list(r_ij, i, j, inputs.get("_idx_m"), len(s))
            if edges is not None:
                return operation.features(self, how, s, r_ij, edges)
            reason = "a neighbour list that is not symmetric"
        log.debug("an accelerated PaiNN runs its blocks in plain torch: %s", reason)
        return None

    def _by_blocks(self, s: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Features by the blocks in plain torch."""
        batch, r_ij = graph(inputs)
        d = torch.linalg.vector_norm(r_ij, dim=1)  # [E]
        u = r_ij / d[:, None]
        w = self.filter_net(self.radial_basis(d)) * self.cutoff_fn(d)[:, None]
        filters = w.chunk(1 if self.share_filters else self.n_interactions, dim=-1)
        v = s.new_zeros(s.shape[0], 3, s.shape[1])
        for layer, (message, update) in enumerate(zip(self.interactions, self.mixing, strict=True)):
            s, v = message(s, v, filters[layer % len(filters)], u, batch)
            s, v = update(s, v)
        return s, v


def graph(inputs: Inputs) -> tuple[AtomicBatch, Tensor]:
    """The graph of a SchNetPack batch, edges sorted by receiver, and the edge vectors r_ij [E, 3] in that order."""
    numbers, i, j, r_ij = inputs["_atomic_numbers"], inputs["_idx_i"].long(), inputs["_idx_j"].long(), inputs["_Rij"]
    if bool((i[1:] < i[:-1]).any()):
        order = torch.argsort(i, stable=True)
        i, j, r_ij = i[order], j[order], r_ij[order]
    n = numbers.shape[0]
    molecule = inputs.get("_idx_m", torch.zeros_like(numbers)).long()
    n_atoms = torch.bincount(molecule)
    degree = torch.bincount(i, minlength=n)
    none = numbers.new_zeros(len(n_atoms), dtype=torch.float64)
    batch = AtomicBatch(
        numbers=numbers.long(),
        positions=numbers.new_zeros(n, 3, dtype=torch.float64),  # edge vectors come from the shifts alone
        molecule=molecule,
        n_atoms=n_atoms,
        receiver=i,
        sender=j,
        shift=r_ij.detach().double(),
        row_ptr=torch.cat([degree.new_zeros(1), torch.cumsum(degree, 0)]),
        cell=none.new_zeros(len(n_atoms), 3, 3),
        pbc=none.new_zeros(len(n_atoms), 3, dtype=torch.bool),
        total_charge=inputs.get("total_charge", none).double(),
        spin_multiplicity=inputs.get("spin_multiplicity", none + 1).double(),
    )
    return batch, r_ij
