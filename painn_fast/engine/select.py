"""Which backend evaluates a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from painn_fast.engine.cpu import CpuEngine
from painn_fast.errors import PaiNNFastError
from painn_fast.graph import AtomicBatch
from painn_fast.nn import Potential

BACKENDS = ("auto", "fused", "reference")
GIVES = frozenset(
    {"energy", "energies", "forces", "stress"}
    | {"dipole", "charges", "dipole_magnitude", "polarizability", "spatial_extent"}
)
"""Properties that an engine gives, of those that the model has."""


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
            properties: names out of `GIVES`, as far as the model has them.
            finite: raise an error for positions or results that are not finite. Without it they are what the reference
                gives, NaN for atoms that coincide or have no position, for callers that check each trajectory.

        Raises:
            PaiNNFastError: if the engine disagrees with the reference on its first batch, for positions or properties
                that do not fit, and, with `finite`, for numbers that are not finite.
        """


@dataclass(frozen=True)
class _Kept:
    """An engine and the weights that it was made of, as an attribute of its model: both go together, memory of a GPU
    included. Copies of the model begin without one."""

    weights: tuple[tuple[int, int], ...]
    engine: Engine

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def supports(potential: Potential) -> bool:
    """Whether an engine can run this model: the paper's network, on a CPU, or with silu and Triton on a GPU."""
    config = potential.config.representation
    energy: Any = potential.heads["energy"] if "energy" in potential.heads else None  # noqa: SIM401 - no dict
    return (
        config.ablation == "none"
        and (config.activation == "silu" or potential.device.type == "cpu")
        and not potential.representation.electronic
        and energy is not None
        and len(energy.network) > 1
        and potential.dtype in (torch.float32, torch.float64)
        and (potential.device.type == "cpu" or (potential.device.type == "cuda" and find_spec("triton") is not None))
    )


def check_backend(backend: str) -> None:
    """Raise PaiNNFastError for a name that is none of `BACKENDS`."""
    if backend not in BACKENDS:
        raise PaiNNFastError("unknown backend", got=repr(backend), expected=" | ".join(BACKENDS))


def engine_for(potential: Potential, backend: str = "auto") -> Engine | None:
    """The engine of a model, or None for the reference.

    "auto" takes the engine for float32 networks that it can run. Float64 means exact numbers: such a network gets the
    engine on a GPU, which computes filters as the reference does, and the reference on a CPU, where they come from a
    table. An engine is kept with its model and made anew once the weights have changed.

    Raises:
        PaiNNFastError: for "fused" where the engine cannot run the model.
    """
    check_backend(backend)
    on_cpu = potential.device.type == "cpu"
    if backend == "reference" or (backend == "auto" and on_cpu and potential.dtype != torch.float32):
        return None
    if not supports(potential):
        if backend == "auto":
            return None
        raise PaiNNFastError(
            "the fused backend cannot run this model",
            where=f"model '{potential.config.name}'",
            expected="a model with an energy, no ablation, no charge or spin embedding, on a CPU, or with silu on a "
            "GPU with Triton",
            fix='use backend="auto" or "reference"',
        )
    weights = tuple((tensor.data_ptr(), tensor._version) for tensor in _tensors(potential))
    known: _Kept | None = potential.__dict__.get("_engine")
    if known is None or known.weights != weights:
        known = _Kept(weights, CpuEngine(potential) if on_cpu else _gpu_engine(potential))
        potential.__dict__["_engine"] = known
    return known.engine


@dataclass(frozen=True)
class Evaluator:
    """A model with what computes its properties: an engine, or else the potential itself."""

    potential: Potential
    engine: Engine | None
    backend: str

    def by_engine(self, properties: Sequence[str]) -> bool:
        """Whether the engine gives them."""
        return self.engine is not None and GIVES.issuperset(properties)

    @torch.no_grad()
    def __call__(self, batch: AtomicBatch, properties: Sequence[str]) -> dict[str, Tensor]:
        """Properties of a batch, names, shapes and units as `Potential` has them; they may be not finite."""
        if self.engine is not None and GIVES.issuperset(properties):
            return self.engine(self.engine.workspace(batch), batch.positions, properties, finite=False)
        if self.backend == "reference":
            with self.potential.reference():
                return self.potential(batch, properties)
        return self.potential(batch, properties)


def evaluator_for(potential: Potential, backend: str = "auto", properties: Sequence[str] = ()) -> Evaluator:
    """What computes the properties of a model; docs/architecture.md has the table.

    Args:
        potential: the model.
        backend: "auto", "fused" or "reference", see `engine_for`; without an engine "auto" runs the potential in
            compiled operations where they exist.
        properties: those that will be requested; if an engine does not give all of them, it is not used.

    Raises:
        PaiNNFastError: for "fused" where the engine cannot run the model.
    """
    check_backend(backend)
    return Evaluator(potential, engine_for(potential, backend) if GIVES.issuperset(properties) else None, backend)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, in a third of the time that torch takes to name them too."""
    for own in (module._parameters, module._buffers):
        yield from (tensor for tensor in own.values() if tensor is not None)
    for child in module._modules.values():
        if child is not None:
            yield from _tensors(child)


def _gpu_engine(potential: Potential) -> Engine:
    from painn_fast.engine.gpu import GpuEngine  # needs Triton

    return GpuEngine(potential)
