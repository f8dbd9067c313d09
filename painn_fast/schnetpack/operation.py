"""The whole-network operation for modules in SchNetPack's structure, and whether it can run them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter, is_
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.functional import silu, softplus

from painn_fast.kernels import threads
from painn_fast.kernels.neighbors.mirror_cpu import ASYMMETRIC, INSIDE, mirrors, same_bits
from painn_fast.kernels.network import ops
from painn_fast.kernels.network.packing import padded
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
PARTS = ("radial_basis", "cutoff_fn", "filter_net", "interactions", "mixing")
"""Modules that the operation stands for; those of the embeddings run before it."""
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


class Plan(NamedTuple):
    """What a representation is made of, and how it is evaluated."""

    reason: str | None  # why not by the operation
    activation: str
    epsilon: float
    parameters: list[Tensor]  # those that the operation reads, in the order of `_stacked`
    parts: list[nn.Module]
    watch: Watch


_plans: weakref.WeakKeyDictionary[nn.Module, Plan] = weakref.WeakKeyDictionary()
"""Beside the modules, so that they are not pickled or copied with them."""


def plan(painn: Any) -> Plan:
    """The plan of a representation, made again if a module in it is another or has changed."""
    known = _plans.get(painn)
    whole = [painn.__dict__["_modules"][name] for name in PARTS]
    if known is None or known.parts != whole or known.watch.changed():
        modules = list(dict.fromkeys(module for part in whole for module in part.modules()))
        reason = _strange_filter(painn) or hooked(modules) or _strange_layer(painn)
        update = painn.mixing[0]
        parameters = [] if reason else _parameters(painn)
        activation = "" if reason else str(activation_name(update.intraatomic_context_net[0].activation))
        known = Plan(reason, activation, float(update.epsilon), parameters, whole, Watch(modules))
        _plans[painn] = known
    return known


class Watch:
    """Modules, and whether something that a plan depends on is another than when the plan was made.

    This runs at every call, after an evaluation has driven all of it out of the caches: few loops in Python.
    """

    def __init__(self, modules: Sequence[nn.Module], settings: Sequence[str] = ("activation", "epsilon")) -> None:
        self._modules = modules
        self._own = [module.__dict__ for module in modules]
        self._parts = [own[name] for own in self._own for name in ("_parameters", "_buffers", "_modules")]
        self._hooks = [own[name] for own in self._own for name in HOOKS]
        present = [(own, name) for own in self._own for name in settings if name in own]
        self._settings = [own for own, _ in present], [name for _, name in present]
        self._held = self._now_held()
        self.tensors = [one for one in self._held if isinstance(one, Tensor)]
        self._state = self._now()

    def changed(self) -> bool:
        """Whether a class, a part, a hook, a setting, the kind of a tensor or the number of attributes is another."""
        held = self._now_held()
        same = len(held) == len(self._held) and all(map(is_, held, self._held))
        return not same or self._now() != self._state

    def _now_held(self) -> list[Any]:
        return list(chain.from_iterable(map(dict.values, self._parts)))

    def _now(self) -> tuple[list[Any], ...]:
        sizes = list(map(len, self._own)), list(map(len, self._hooks))  # a forward() of its own is one attribute more
        return (
            list(map(type, self._modules)),
            list(map(dict.get, *self._settings)),
            list(map(_TENSOR, self.tensors)),
            *sizes,
        )


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_TENSOR = attrgetter("dtype", "is_cpu", "requires_grad")


def _strange_filter(painn: Any) -> str | None:
    weight = painn.filter_net.weight
    if weight.device.type != "cpu" or weight.dtype not in ops.DTYPES:
        return f"parameters in {weight.dtype} on {weight.device}"
    if _kind(painn.radial_basis) not in BASES:
        return f"radial basis {_kind(painn.radial_basis)}"
    if any(parameter.requires_grad for parameter in painn.radial_basis.parameters()):
        return "a radial basis that is trained"
    if any(tensor.dtype != weight.dtype for tensor in painn.radial_basis.state_dict().values()):
        return "a radial basis in another dtype than the layers"
    return None if _kind(painn.cutoff_fn) in CUTOFFS else f"cut-off function {_kind(painn.cutoff_fn)}"


def hooked(modules: Sequence[nn.Module]) -> str | None:
    """The module beside whose own forward(), or in its place, something is to run, if there is one."""
    for module in modules:
        own = module.__dict__
        if "forward" in own or any(own[name] for name in HOOKS):
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
    names = {activation_name(network[0].activation) for network in networks}
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


def features(painn: Any, how: Plan, s: Tensor, r: Tensor, edges: List) -> tuple[Tensor, Tensor]:
    """s [N, F] and v [N, 3, F] from s [N, F] of the embeddings, by a plan without a `reason`.

    Weights are packed once and kept while their values stay, but not in training, which changes them at each step.
    """
    threads.keep_memory()
    r = r if edges.order is None else r[edges.order]
    given = how.activation, how.epsilon, edges.row_ptr, edges.sender, edges.mirror, edges.n_atoms
    if painn.training:
        weights = _stacked(how.parameters, shared=painn.share_filters)
        return ops.network(s, r, _radial(painn), weights, *given, edges_or_weights=True)[:2]
    kept = _kept(painn, how)
    tracked = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in how.parameters)
    weights = Weights(*_Kept.apply(kept, *how.parameters)) if tracked else kept.weights
    return ops.network(s, r, _radial(painn), weights, *given, packed=kept.packed, keep="for positions")[:2]


def _radial(painn: Any) -> Radial:
    kind, name = BASES[_kind(painn.radial_basis)]
    first = getattr(painn.radial_basis, name).detach()
    widths = painn.radial_basis.widths.detach() if kind == "gaussian" else torch.ones_like(first)
    return Radial(kind, first, widths, "cosine", float(painn.cutoff_fn.cutoff))


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


_activations: weakref.WeakKeyDictionary[Any, str | None] = weakref.WeakKeyDictionary()


def activation_name(function: Callable[[Tensor], Tensor]) -> str | None:
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


def _stacked(parameters: Sequence[Tensor], *, shared: bool) -> Weights:
    """Weights of all layers as the operation takes them, differentiable in the parameters; `shared`: one filter."""
    weight, bias, *rest = parameters
    layers = len(rest) // 9
    filters = torch.cat([weight.T, bias[None]]).chunk(1 if shared else layers, dim=-1)
    m1, m1_bias, m2, m2_bias, mix, u1, u1_bias, u2, u2_bias = (torch.stack(rest[k::9]) for k in range(9))
    nothing = m1.new_zeros(0, m1.shape[-1]), m1.new_zeros(0), m1.new_zeros(1, 0), m1.new_zeros(1)
    by_layer = torch.stack([filters[k % len(filters)] for k in range(layers)])
    return padded(Weights(by_layer, m1, m1_bias, m2, m2_bias, mix, u1, u1_bias, u2, u2_bias, *nothing))


class Values:
    """What tensors hold, to be compared with what they hold later.

    Bit for bit: versions of tensors are not enough, since writing to `parameter.data`, as moving averages do, leaves no
    trace in them.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        self._addresses = self._now()
        self._views = [_bits(tensor) for tensor in tensors]
        self._copies = [view.copy() for view in self._views]
        self.comparable = all(tensor.is_contiguous() for tensor in tensors)

    def same(self) -> bool:
        """Whether they hold it still."""
        return self.comparable and self._now() == self._addresses and all(map(same_bits, self._views, self._copies))

    def _now(self) -> list[int]:
        return list(map(Tensor.data_ptr, self._tensors))


def _bits(tensor: Tensor) -> np.ndarray:
    integers = torch.int32 if tensor.itemsize == torch.int32.itemsize else torch.int64
    return tensor.detach().contiguous().view(integers).flatten().numpy()


class _Packed(NamedTuple):
    """What was made of parameters, and their values then."""

    key: tuple[Any, ...]
    values: Values
    weights: Weights
    packed: ops.Packed
    shared: bool


_packed: weakref.WeakKeyDictionary[nn.Module, _Packed] = weakref.WeakKeyDictionary()


def _kept(painn: Any, how: Plan) -> _Packed:
    """Packed weights, made again if a value is another."""
    given, shared = how.parameters, bool(painn.share_filters)
    key = (how.activation, how.epsilon, shared, *map(id, given))
    known = _packed.get(painn)
    if known is None or known.key != key or not known.values.same():
        with torch.inference_mode(mode=False), torch.no_grad():  # autograd may have to save them later
            weights = _stacked(given, shared=shared)
        packed = ops.pack_weights(weights, how.activation, how.epsilon)
        known = _packed[painn] = _Packed(key, Values(given), weights, packed, shared)
    return known


class _Kept(torch.autograd.Function):
    """`_stacked` whose values are there already."""

    @staticmethod
    def forward(ctx: Any, kept: _Packed, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.shared = kept.shared
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*parameters)
        return tuple(tensor.detach() for tensor in kept.weights)

    @staticmethod
    def backward(ctx: Any, *adjoints: Tensor | None) -> Any:
        tracked = torch.is_grad_enabled()
        with torch.enable_grad():
            parameters = [parameter.detach().requires_grad_() for parameter in ctx.saved_tensors]
            stacked = _stacked(parameters, shared=ctx.shared)
            pairs = [(w, a) for w, a in zip(stacked, adjoints, strict=True) if a is not None and w.requires_grad]
            gradients = torch.autograd.grad(
                [w for w, _ in pairs], parameters, [a for _, a in pairs], create_graph=tracked, allow_unused=True
            )
        return None, *gradients
