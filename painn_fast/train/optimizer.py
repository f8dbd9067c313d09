"""State of the optimizer by the names of parameters, for checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """State of AdamW by the names of the parameters."""
    return {
        f"optimizer.{key}.{name}": torch.as_tensor(value)
        for name, parameter in module.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`."""
    for name, parameter in module.named_parameters():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            stored = f"optimizer.{key}.{name}"
            if stored in tensors:
                optimizer.state[parameter][key] = tensors[stored].to(parameter.device, copy=True)
