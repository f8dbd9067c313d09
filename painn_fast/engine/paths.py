"""Which way a model is evaluated, by device and purpose, and why; docs/architecture.md describes the ways."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from painn_fast.engine.select import refusal
from painn_fast.nn import Potential
from painn_fast.nn.fused import reason_for_autograd, reason_for_reference

DEVICES = {"cpu": "CPU", "cuda": "GPU"}
INFERENCE = ("evaluate", "calculator", "md")
FILTERS = {torch.float32: "filters from a table, good to float32", torch.float64: "exact filters, equal to 1e-10"}


class Path(NamedTuple):
    """A way to evaluate a model, and the reason."""

    way: str  # CPU engine | GPU engine | whole network | operation by operation | reference | none
    why: str


def paths(potential: Potential) -> dict[str, dict[str, Path]]:
    """The way of each purpose, on a CPU and on a GPU with Triton, with `backend="auto"`.

    Args:
        potential: the model in its dtype, on any device.

    Returns:
        By type of device, "cpu" and "cuda", and purpose: "evaluate", "calculator", "md", "training" and "hessian".
    """
    return {device: _on(potential, device) for device in DEVICES}


def _on(potential: Potential, device: str) -> dict[str, Path]:
    dtype = str(potential.dtype).removeprefix("torch.")
    own, refused = _without_engine(potential, device), refusal(potential, device)
    if refused is None:
        filters = FILTERS[potential.dtype] if device == "cpu" else "filters as in the reference"
        inference = Path(f"{DEVICES[device]} engine", f"{dtype}: {filters}")
    else:
        inference = Path(own.way, refused)
    found = dict.fromkeys(INFERENCE, inference) | {"training": _training(potential, device, own), "hessian": own}
    if "forces" not in potential.known:
        found |= dict.fromkeys(("md", "hessian"), Path("none", "the model has no energy"))
    return found


def _training(potential: Potential, device: str, own: Path) -> Path:
    if device != "cpu" or own.way == "reference" or "energy" not in potential.heads:
        return own
    network: Any = potential.heads["energy"].network
    reason = reason_for_autograd(potential.representation, network)
    if reason is not None:
        return Path(own.way, f"by autograd: {reason}")
    return Path(own.way, "energies and forces without autograd, other labels by autograd")


def _without_engine(potential: Potential, device: str) -> Path:
    reason = reason_for_reference(potential.representation, device)
    if reason is not None:
        return Path("reference", reason)
    if device == "cpu":
        return Path("whole network", "one compiled operation, differentiable to any order")
    return Path("operation by operation", "compiled operations for messages and updates, differentiable to any order")
