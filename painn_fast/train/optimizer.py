"""All parameters of a model in one piece of memory: an optimizer step, a norm or an average is one operation."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FlatParameters:
    """The trainable parameters of a module as views of one tensor, and their gradients as views of another.

    The module goes on as before; its parameters only live elsewhere. Parameters must keep their device and dtype, and
    gradients are to be cleared with `zero_grad` here, which leaves them in place.

    Args:
        module: its trainable parameters share dtype and device.
    """

    def __init__(self, module: nn.Module) -> None:
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        with torch.no_grad():
            self.values = nn.Parameter(torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters]))
            self.values.grad = torch.zeros_like(self.values)
        sizes = [parameter.numel() for parameter in self.parameters]
        values, gradients = self.values.detach().split(sizes), self.values.grad.split(sizes)
        for parameter, value, gradient in zip(self.parameters, values, gradients, strict=True):
            parameter.data, parameter.grad = value.view_as(parameter), gradient.view_as(parameter)

    @property
    def gradient(self) -> Tensor:
        """Of all parameters, one after another."""
        assert self.values.grad is not None
        return self.values.grad

    def zero_grad(self) -> None:
        """Clear all gradients."""
        self.gradient.zero_()

    def clip(self, largest: float) -> None:
        """Scale the gradient down to a norm of `largest`, if it is longer."""
        norm = torch.linalg.vector_norm(self.gradient)
        self.gradient.mul_((largest / (norm + 1e-6)).clamp(max=1.0))

    def changed(self) -> None:
        """Say of every parameter that it has been written to, as far as the module can see."""
        torch.autograd.graph.increment_version(self.parameters)


class AdamW:
    """AdamW on `FlatParameters`.

    Args:
        parameters: changed by each step.
        weight_decay: of all of them.
    """

    def __init__(self, parameters: FlatParameters, weight_decay: float) -> None:
        self.parameters = parameters
        self._adamw = torch.optim.AdamW([parameters.values], weight_decay=weight_decay, fused=True)

    def step(self, learning_rate: float) -> None:
        """One step along the gradient that is there."""
        self._adamw.param_groups[0]["lr"] = learning_rate
        self._adamw.step()
        self.parameters.changed()

    def state(self) -> dict[str, Tensor]:
        """What the next step depends on, for checkpoints."""
        state = self._adamw.state.get(self.parameters.values, {})
        return {f"optimizer.{key}": torch.as_tensor(value) for key, value in state.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        for key in ("step", "exp_avg", "exp_avg_sq"):
            if f"optimizer.{key}" in tensors:
                value = tensors[f"optimizer.{key}"].to(self.parameters.values.device, copy=True)
                self._adamw.state[self.parameters.values][key] = value
