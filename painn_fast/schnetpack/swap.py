"""Our classes into a live SchNetPack model, and SchNetPack's own back."""

from __future__ import annotations

import importlib
from typing import Any, TypeVar

from torch import nn

from painn_fast.errors import PaiNNFastError
from painn_fast.schnetpack import potential
from painn_fast.schnetpack.painn import Dense, PaiNN, PaiNNInteraction, PaiNNMixing

HOME = "schnetpack.representation.painn"
"""Where SchNetPack's own classes are; a subclass may do something else, and is left alone."""
M = TypeVar("M", bound=nn.Module)


def accelerate(module: M) -> M:
    """Swap the representation of a live SchNetPack model for ours, in place.

    Outputs, `state_dict` and parameters stay what they were, so that training goes on; what changes are the classes of
    the representation and of its blocks. A model saved whole afterwards needs painn_fast to be loaded again; its state
    dict does not. `torch.jit.script` and `trace` refuse it: `restore` it before.

    The whole network runs as one compiled operation, differentiable to any order, where all of this holds; elsewhere
    our blocks run in plain torch, with the same numbers. `representation.path` is which, as far as the model decides:

    - parameters on a CPU, in float32 or float64, and inputs in the same dtype;
    - GaussianRBF, GaussianRBFCentered or BesselRBF without parameters to train; CosineCutoff;
    - silu or shifted softplus in all blocks; no hooks on modules inside of the representation;
    - a neighbour list where each edge has its opposite, no atoms at the same position, positions that are finite;
    - no torch.compile, autocast, `torch.func` or forward-mode derivatives.

    In eval mode and float32, energy, forces and stress of a whole `NeuralNetworkPotential` come from the CPU engine,
    where `model.path` is "engine": made of `PairwiseDistances`, `Strain`, `Atomwise`, `Forces`, `DipoleMoment` and
    `Polarizability`, with a table of elements as its embedding. Forces are within 1e-4 of the largest then.

    Derivatives in `_Rij` itself are those of a pair, half on each of its two edges. In training mode, a backward pass
    that fills gradients of parameters of the representation leaves out those that it would send to the positions.

    Args:
        module: a `NeuralNetworkPotential`, an `AtomisticTask`, or a PaiNN itself.

    Returns:
        The same object.

    Raises:
        PaiNNFastError: if it has no PaiNN of SchNetPack's own; names its class.

    Example:
        With a model of SchNetPack, `accelerate(torch.load("best_model", weights_only=False))`. Other modules are
        refused:

        >>> import torch
        >>> from painn_fast import accelerate
        >>> accelerate(torch.nn.Linear(2, 2))
        Traceback (most recent call last):
        painn_fast.errors.PaiNNFastError: not a PaiNN of SchNetPack; got: torch.nn.modules.linear.Linear; expected: ...
    """
    found = _representation(module)
    if isinstance(found, PaiNN):
        return _whole(module)
    blocks = [(PaiNNInteraction, found.interactions), (PaiNNMixing, found.mixing)] if _is(found, "PaiNN") else []
    if not blocks:
        raise _refusal(found, f"{HOME}.PaiNN")
    for kind, modules in blocks:
        for block in modules:
            if not _is(block, kind.__name__):
                raise _refusal(block, f"{HOME}.{kind.__name__}")
    for kind, modules in blocks:
        for block in modules:
            block.__class__ = kind
    found.__class__ = PaiNN
    return _whole(module)


def _whole(module: M) -> M:
    """The class of the whole model too, if it is SchNetPack's own."""
    model: nn.Module = getattr(module, "model", module)
    if (type(model).__module__, type(model).__qualname__) == (potential.HOME, potential.NAME):
        model.__class__ = potential.accelerated(type(model))
    return module


def restore(module: M) -> M:
    """Give an accelerated model SchNetPack's own classes back, in place: `accelerate` undone.

    For `torch.jit.script`, as for LAMMPS, and for a model that is saved whole and loaded without painn_fast. A model
    that was not accelerated stays as it is.

    Args:
        module: a `NeuralNetworkPotential`, an `AtomisticTask`, or a PaiNN itself.

    Returns:
        The same object.

    Raises:
        PaiNNFastError: if it has no PaiNN, or if SchNetPack is not installed.

    Example:
        `torch.jit.script(restore(model))` of an accelerated model. Other modules are refused:

        >>> import torch
        >>> from painn_fast import restore
        >>> restore(torch.nn.Linear(2, 2))
        Traceback (most recent call last):
        painn_fast.errors.PaiNNFastError: not an accelerated model; got: torch.nn.modules.linear.Linear; expected: ...
    """
    found = _representation(module)
    if _is(found, "PaiNN"):
        return module
    if type(found) is not PaiNN:
        raise _refusal(found, "a model after painn_fast.accelerate", "not an accelerated model")
    try:
        home, base = importlib.import_module(HOME), importlib.import_module("schnetpack.nn.base")
    except ImportError as error:
        raise PaiNNFastError("SchNetPack cannot be imported", got=str(error), fix="pip install schnetpack") from error
    theirs = {PaiNN: home.PaiNN, PaiNNInteraction: home.PaiNNInteraction, PaiNNMixing: home.PaiNNMixing}
    for part in list(found.modules()):
        if type(part) is Dense:  # of a representation that was made by our class
            part.weight_init, part.bias_init = nn.init.xavier_uniform_, nn.init.zeros_  # type: ignore[assignment]
            part.__class__ = base.Dense
        elif type(part) in theirs:
            part.__class__ = theirs[type(part)]
    model: nn.Module = getattr(module, "model", module)
    if isinstance(model, potential.Accelerated):
        model.__class__ = type(model).__bases__[-1]
    return module


def _representation(module: nn.Module) -> Any:
    found: nn.Module = module
    for name in ("model", "representation"):
        found = getattr(found, name, found)
    return found


def _is(module: nn.Module, name: str) -> bool:
    return (type(module).__module__, type(module).__qualname__) == (HOME, name)


def _refusal(module: nn.Module, expected: str, message: str = "not a PaiNN of SchNetPack") -> PaiNNFastError:
    kind = type(module)
    return PaiNNFastError(message, got=f"{kind.__module__}.{kind.__qualname__}", expected=expected)
