"""The whole-network operation for modules in SchNetPack's structure, and whether it can run them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.functional import silu, softplus

from painn_fast.kernels.neighbors.mirror_cpu import ASYMMETRIC, INSIDE, mirrors, same_bits
from painn_fast.kernels.network import ops
from painn_fast.kernels.network.layout import padded
from painn_fast.kernels.network.reference import Weights
from painn_fast.kernels.radial.reference import Radial
from painn_fast.nn.radial import CosineCutoff, GaussianBasis, SincBasis

BASES = {
    "schnetpack.nn.radial.GaussianRBF": ("gaussian", "offsets"),
    "schnetpack.nn.radial.GaussianRBFCentered": ("gaussian", "offsets"),
    "schnetpack.nn.radial.BesselRBF": ("sinc", "freqs"),
    f"{GaussianBasis.__module__}.GaussianBasis": ("gaussian", "offsets"),
    f"{SincBasis.__module__}.SincBasis": ("sinc", "frequencies"),
}
"""Radial bases of the operation, and the attribute with the offset or frequency of each function."""
CUTOFFS = {"schnetpack.nn.cutoff.CosineCutoff", f"{CosineCutoff.__module__}.CosineCutoff"}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PROBE = torch.linspace(-30.0, 30.0, 121, dtype=torch.float64)
"""Where activations are compared; torch's softplus is linear beyond 20."""
ROUNDING = 16
"""Units of the last digit that the vectors of an edge and its mirror may differ by."""


class List(NamedTuple):
    """A neighbour list as the operation takes it, symmetric and sorted by receiver."""

    order: Tensor | None  # [E] of the edges given, None if they are sorted already
    row_ptr: Tensor  # [N + 1]
    sender: Tensor  # [E]
    mirror: Tensor  # [E]
    n_atoms: Tensor  # [M]


def obstacle(painn: Any) -> str | None:
    """Why the operation cannot run a representation, or None if it can."""
    weight = painn.filter_net.weight
    if weight.device.type != "cpu" or weight.dtype not in ops.DTYPES:
        return f"parameters in {weight.dtype} on {weight.device}"
    return _strange_filter(painn) or _hooked(painn) or _strange_layer(painn)


def _strange_filter(painn: Any) -> str | None:
    if _kind(painn.radial_basis) not in BASES:
        return f"radial basis {_kind(painn.radial_basis)}"
    if any(parameter.requires_grad for parameter in painn.radial_basis.parameters()):
        return "a radial basis that is trained"
    return None if _kind(painn.cutoff_fn) in CUTOFFS else f"cut-off function {_kind(painn.cutoff_fn)}"


def _hooked(painn: Any) -> str | None:
    """A module that the operation stands for and that does more than it; those of the embeddings run before it."""
    for whole in (painn.radial_basis, painn.cutoff_fn, painn.filter_net, painn.interactions, painn.mixing):
        for module in whole.modules():
            own = module.__dict__
            if "forward" in own or any(own[hooks] for hooks in HOOKS):
                return f"a hook or another forward() on {type(module).__name__}"
    return None


def _strange_layer(painn: Any) -> str | None:
    networks = [block.interatomic_context_net for block in painn.interactions]
    networks += [block.intraatomic_context_net for block in painn.mixing]
    alone = [painn.filter_net, *(block.mu_channel_mix for block in painn.mixing)]
    dtype = painn.filter_net.weight.dtype
    for layer in (*alone, *(layer for network in networks for layer in network)):
        if type(layer).__name__ != "Dense" or layer.weight.dtype != dtype:
            return f"a layer {_kind(layer)}"
    if not all(isinstance(last.activation, nn.Identity) for last in (*alone, *(network[1] for network in networks))):
        return "an activation after the last layer"
    names = {_activation(network[0].activation) for network in networks}
    if len(names) != 1 or None in names:
        return "an activation other than silu and shifted softplus, or more than one"
    return "more than one epsilon" if len({block.epsilon for block in painn.mixing}) != 1 else None


def transformed() -> bool:
    """Whether torch is in a mode that has no rule for the operation: compile, autocast, `torch.func`, forward mode."""
    return (
        torch.compiler.is_compiling()
        or torch.is_autocast_enabled("cpu")
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def neighbor_list(r: Tensor, receiver: Tensor, sender: Tensor, molecule: Tensor | None, atoms: int) -> List | None:
    """The list of edges in any order, or None if an edge has no mirror or no direction.

    Args:
        r: [E, 3] edge vectors.
        receiver, sender: [E].
        molecule: [N] number of each atom's molecule; None for one.
        atoms: N.
    """
    row_ptr = torch.empty(atoms + 1, dtype=torch.int64)
    order, mirror = row_ptr.new_empty(2, len(receiver))
    numbers = row_ptr.new_zeros(atoms) if molecule is None else molecule.long()
    result = mirrors(
        receiver.contiguous().numpy(), sender.contiguous().numpy(), r.detach().contiguous().numpy(),
        numbers.contiguous().numpy(), ROUNDING * torch.finfo(r.dtype).eps, row_ptr.numpy(), order.numpy(),
        mirror.numpy(),
    )  # fmt: skip
    if result == ASYMMETRIC:
        return None
    n_atoms = torch.bincount(numbers) if result == INSIDE else torch.tensor([atoms])
    if bool((receiver[1:] >= receiver[:-1]).all()):
        return List(None, row_ptr, sender, mirror, n_atoms)
    return List(order, row_ptr, sender[order], mirror, n_atoms)


def features(painn: Any, s: Tensor, r: Tensor, edges: List) -> tuple[Tensor, Tensor]:
    """s [N, F] and v [N, 3, F] from s [N, F] of the embeddings; for a representation without an `obstacle`.

    Weights are packed once and kept while their values stay, but not in training, which changes them at each step.
    """
    activation = _activation(painn.mixing[0].intraatomic_context_net[0].activation)
    assert activation is not None
    epsilon, packed = float(painn.mixing[0].epsilon), None
    given = _parameters(painn)
    if painn.training:
        weights = _stacked(painn, given)
    else:
        kept = _kept(painn, given, activation, epsilon)
        packed = kept.packed
        tracked = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in given)
        weights = Weights(*_Kept.apply(painn, kept.weights, *given)) if tracked else kept.weights
    r = r if edges.order is None else r[edges.order]
    s, v, _ = ops.network(
        s, r, _radial(painn), weights, activation, epsilon, edges.row_ptr, edges.sender, edges.mirror, edges.n_atoms,
        edges_or_weights=painn.training, packed=packed,
    )  # fmt: skip
    return s, v


def _radial(painn: Any) -> Radial:
    kind, name = BASES[_kind(painn.radial_basis)]
    first = getattr(painn.radial_basis, name).detach()
    widths = painn.radial_basis.widths.detach() if kind == "gaussian" else torch.ones_like(first)
    return Radial(kind, first, widths, "cosine", float(painn.cutoff_fn.cutoff))


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


_activations: weakref.WeakKeyDictionary[Any, str | None] = weakref.WeakKeyDictionary()


def _activation(function: Callable[[Tensor], Tensor]) -> str | None:
    """Name of an activation by what it gives, or None if the operation does not have it."""
    known = silu if isinstance(function, nn.SiLU) else function
    if known is silu:
        return "silu"
    if isinstance(known, nn.Module) and next(known.parameters(), None) is not None:
        return None
    try:
        if known not in _activations:
            given, shifted = known(PROBE.clone()), softplus(PROBE) - math.log(2.0)
            _activations[known] = "shifted_softplus" if torch.allclose(given, shifted, 1e-14, 1e-14) else None
        return _activations[known]
    except (TypeError, RuntimeError):  # neither can it be kept nor does it take float64
        return None


def _parameters(painn: Any) -> list[Tensor]:
    """Those that the operation reads, in the order of `_stacked`."""
    found: list[Tensor] = [painn.filter_net.weight, painn.filter_net.bias]
    for message, update in zip(painn.interactions, painn.mixing, strict=True):
        dense = [*message.interatomic_context_net, update.mu_channel_mix, *update.intraatomic_context_net]
        found += [tensor for layer in dense for tensor in (layer.weight, layer.bias) if tensor is not None]
    return found


def _stacked(painn: Any, parameters: Sequence[Tensor]) -> Weights:
    """Weights of all layers as the operation takes them, differentiable in the parameters."""
    weight, bias, *rest = parameters
    layers = len(painn.interactions)
    filters = torch.cat([weight.T, bias[None]]).chunk(1 if painn.share_filters else layers, dim=-1)
    m1, m1_bias, m2, m2_bias, mix, u1, u1_bias, u2, u2_bias = (torch.stack(rest[k::9]) for k in range(9))
    nothing = m1.new_zeros(0, m1.shape[-1]), m1.new_zeros(0), m1.new_zeros(1, 0), m1.new_zeros(1)
    by_layer = torch.stack([filters[k % len(filters)] for k in range(layers)])
    return padded(Weights(by_layer, m1, m1_bias, m2, m2_bias, mix, u1, u1_bias, u2, u2_bias, *nothing))


class _Packed(NamedTuple):
    """What was made of parameters, and their values then."""

    key: tuple[Any, ...]
    views: list[np.ndarray]
    copies: list[np.ndarray]
    weights: Weights
    packed: ops.Packed


_packed: weakref.WeakKeyDictionary[nn.Module, _Packed] = weakref.WeakKeyDictionary()
"""Beside the modules, so that they are not pickled or copied with them."""


def _kept(painn: Any, given: list[Tensor], activation: str, epsilon: float) -> _Packed:
    """Packed weights, made again if a value is another.

    Values are compared, bit for bit: writing to `parameter.data`, as moving averages do, leaves no trace elsewhere.
    """
    key = (activation, epsilon, painn.share_filters, *(parameter.data_ptr() for parameter in given))
    known = _packed.get(painn)
    if known is None or known.key != key or not all(map(same_bits, known.views, known.copies)):
        integers = torch.int32 if given[0].dtype == torch.float32 else torch.int64
        views = [parameter.detach().contiguous().view(integers).flatten().numpy() for parameter in given]
        with torch.no_grad():
            weights = _stacked(painn, given)
        packed = ops.pack_weights(weights, activation, epsilon)
        known = _Packed(key, views, [view.copy() for view in views], weights, packed)
        if all(parameter.is_contiguous() for parameter in given):
            _packed[painn] = known
    return known


class _Kept(torch.autograd.Function):
    """`_stacked` whose values are there already."""

    @staticmethod
    def forward(ctx: Any, painn: Any, weights: Weights, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.painn = painn
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*parameters)
        return tuple(tensor.detach() for tensor in weights)

    @staticmethod
    def backward(ctx: Any, *adjoints: Tensor | None) -> Any:
        tracked = torch.is_grad_enabled()
        with torch.enable_grad():
            parameters = [p.detach().requires_grad_() for p in ctx.saved_tensors]
            pairs = [(w, a) for w, a in zip(_stacked(ctx.painn, parameters), adjoints, strict=True) if a is not None]
            pairs = [(w, a) for w, a in pairs if w.requires_grad]
            gradients = torch.autograd.grad(
                [w for w, _ in pairs], parameters, [a for _, a in pairs], create_graph=tracked, allow_unused=True
            )
        return None, None, *gradients
