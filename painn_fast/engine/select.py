"""Which backend evaluates a model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from operator import attrgetter, is_
from typing import Any, Protocol

import torch
from torch import Tensor

from painn_fast.engine.check import require_finite
from painn_fast.engine.cpu import CpuEngine
from painn_fast.errors import PaiNNFastError
from painn_fast.graph import AtomicBatch
from painn_fast.graph.kept import Workspaces
from painn_fast.nn import Potential

BACKENDS = ("auto", "fused", "reference")
TABLED, EXACT = torch.float32, torch.float64
"""Types of networks that engines run; on a CPU their filters come from a table, or from the functions themselves."""


class Engine(Protocol):
    """Inference without autograd: a workspace for each graph, evaluated at any positions."""

    def workspace(self, batch: AtomicBatch) -> Any:
        """Memory and divided work for a graph, made once.

        Raises:
            PaiNNFastError: for a batch whose arrays do not fit, or with elements that the model does not know.
        """

    def __call__(
        self, work: Any, positions: Tensor, properties: Sequence[str] = ("energy", "forces"), *, finite: bool = True
    ) -> dict[str, Tensor]:
        """Properties at positions [N, 3] Å; the same names, shapes and units as `Potential`.

        Args:
            work: what `workspace` gave.
            positions: [N, 3] Å.
            properties: names out of those of the model.
            finite: raise an error for positions or results that are not finite. Without it they are what the reference
                gives, NaN for atoms that coincide or have no position, for callers that check each trajectory.

        Raises:
            PaiNNFastError: if the engine disagrees with the reference on its first batch, for positions or properties
                that do not fit, and, with `finite`, for numbers that are not finite.
        """


class _Kept:
    """An engine and the weights that it was made of, as an attribute of its model: both go together, memory of a GPU
    included. Copies of the model begin without one."""

    def __init__(self, potential: Potential, engine: Engine) -> None:
        self.engine = engine
        modules = [vars(module) for module in potential.modules()]
        self._parts = [part for own in modules for name in HELD if (part := own[name])]
        self._held = _values(self._parts)
        self._tensors = [one for one in self._held if isinstance(one, Tensor)]
        self._versions = self._now()

    def is_current(self) -> bool:
        """Whether the weights are still those.

        This runs at every call, after an evaluation has driven all of it out of the caches: no loop in Python.
        """
        held = _values(self._parts)
        same = len(held) == len(self._held) and all(map(is_, held, self._held))
        return same and self._now() == self._versions

    def _now(self) -> list[int]:
        return [*map(Tensor.data_ptr, self._tensors), *map(_VERSION, self._tensors)]

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


HELD = ("_parameters", "_buffers", "_modules")
"""What a module holds, in dictionaries by name."""
_VERSION = attrgetter("_version")


def _values(parts: Sequence[dict[str, Any]]) -> list[Any]:
    return list(chain.from_iterable(map(dict.values, parts)))


def refusal(potential: Potential, device: str | None = None) -> str | None:
    """Why no engine runs this model, or None if one does: on a CPU that of every model in float32 or float64.

    Args:
        potential: the model.
        device: type of a device, "cpu" or "cuda", with Triton; None takes that of the model, as it is installed.
    """
    kind, config, network = device or potential.device.type, potential.config.representation, potential.representation
    if potential.dtype not in (TABLED, EXACT):
        return f"engines run float32 and float64, not {str(potential.dtype).removeprefix('torch.')}"
    if kind == "cpu":
        return None
    energy: Any = potential.heads["energy"] if "energy" in potential.heads else None  # noqa: SIM401 - no dict
    unable = {
        f"device '{kind}'": kind != "cuda",
        "a GPU without Triton": device is None and find_spec("triton") is None,
        f"ablation '{config.ablation}'": config.ablation != "none",
        f"activation '{config.activation}'": config.activation != "silu",
        f"embedding of the {' and the '.join(network.electronic)}": bool(network.electronic),
        "no energy": energy is None,
        "energy without a hidden layer": energy is not None and len(energy.network) == 1,
    }
    reasons = [name for name, applies in unable.items() if applies]
    return f"the engine for GPUs does not run: {', '.join(reasons)}" if reasons else None


def check_backend(backend: str) -> None:
    """Raise PaiNNFastError for a name that is none of `BACKENDS`."""
    if backend not in BACKENDS:
        raise PaiNNFastError("unknown backend", got=repr(backend), expected=" | ".join(BACKENDS))


def engine_for(potential: Potential, backend: str = "auto") -> Engine | None:
    """The engine of a model, or None without one.

    An engine is kept with its model and made anew once the weights have changed. Inside of `Potential.reference()`
    there is none.

    Raises:
        PaiNNFastError: for "fused" where the engine cannot run the model.
    """
    check_backend(backend)
    if backend == "reference" or (backend == "auto" and potential.backend == "reference"):
        return None
    known: _Kept | None = potential.__dict__.get("_engine")
    if known is not None and known.is_current():
        return known.engine
    reason = refusal(potential)
    if reason is not None:
        if backend == "auto":
            return None
        raise PaiNNFastError(
            "the fused backend cannot run this model",
            where=f"model '{potential.config.name}'",
            got=reason,
            fix='use backend="auto" or "reference"',
        )
    known = _Kept(potential, CpuEngine(potential) if potential.device.type == "cpu" else _gpu_engine(potential))
    potential.__dict__["_engine"] = known
    return known.engine


def workspace_of(engine: Engine, batch: AtomicBatch, kept: Workspaces | None) -> Any:
    """The workspace of an engine for a batch: the kept one of this graph, or a new one, which is left there."""
    work = kept.get(engine) if kept is not None else None
    if work is None:
        work = engine.workspace(batch)
        if kept is not None:
            kept[engine] = work
    return work


@dataclass(frozen=True)
class Evaluator:
    """A model with what computes its properties: an engine, or else the potential itself."""

    potential: Potential
    engine: Engine | None
    backend: str

    def by_engine(self, properties: Sequence[str]) -> bool:
        """Whether the engine gives them."""
        return self.engine is not None and self.potential.known.issuperset(properties)

    def __call__(
        self, batch: AtomicBatch, properties: Sequence[str], *, finite: bool = False, kept: Workspaces | None = None
    ) -> dict[str, Tensor]:
        """Properties of a batch, names, shapes and units as `Potential` has them.

        Args:
            batch: molecules.
            properties: their names.
            finite: refuse positions and results that are not finite.
            kept: workspaces of this graph, where one is looked up or left for the next call.
        """
        if self.engine is not None and self.potential.known.issuperset(properties):
            work = workspace_of(self.engine, batch, kept)
            return self.engine(work, batch.positions, properties, finite=finite)
        with torch.no_grad(), self.potential.reference() if self.backend == "reference" else nullcontext():
            values = self.potential(batch, properties)
        if finite:
            require_finite(values, batch, batch.positions)
        return values


def evaluator_for(potential: Potential, backend: str = "auto", properties: Sequence[str] = ()) -> Evaluator:
    """What computes the properties of a model; docs/architecture.md has the table.

    Args:
        potential: the model.
        backend: "auto", "fused" or "reference", see `engine_for`; without an engine "auto" runs the potential in
            compiled operations where they exist.
        properties: those that will be requested; an engine is not used for others than the model's, such as a Hessian.

    Raises:
        PaiNNFastError: for "fused" where the engine cannot run the model.
    """
    check_backend(backend)
    known = potential.known.issuperset(properties)
    return Evaluator(potential, engine_for(potential, backend) if known else None, backend)


def _gpu_engine(potential: Potential) -> Engine:
    from painn_fast.engine.gpu import GpuEngine  # needs Triton

    return GpuEngine(potential)
