"""All parameters of a model in one piece of memory: an optimizer step, a norm or an average is one operation."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from painn_fast.kernels import threads

STATE = ("optimizer.step", "optimizer.exp_avg", "optimizer.exp_avg_sq")
"""Names in a checkpoint."""


class FlatParameters:
    """The trainable parameters of a module as views of one tensor, and their gradients gathered in another.

    The module goes on as before; its parameters only live elsewhere, and keep their device and dtype.

    Args:
        module: its trainable parameters share dtype and device.
    """

    def __init__(self, module: nn.Module) -> None:
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.values = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])
        self.gradient = torch.zeros_like(self.values)
        """Of all parameters, one after another, as of the last `collect`."""
        sizes = [parameter.numel() for parameter in self.parameters]
        for parameter, value in zip(self.parameters, self.values.split(sizes), strict=True):
            parameter.data = value.view_as(parameter)
        pieces = self.gradient.split(sizes)
        self._gradients = [piece.view_as(p) for piece, p in zip(pieces, self.parameters, strict=True)]

    def starts(self) -> dict[int, int]:
        """Where each parameter, by its `id`, begins in `gradient`, of which its own is a view from now on."""
        self._attach()
        starts = [0, *accumulate(parameter.numel() for parameter in self.parameters)]
        return {id(parameter): start for parameter, start in zip(self.parameters, starts, strict=False)}

    def zero_grad(self) -> None:
        """Forget the parameters' gradients: the next backward pass leaves its own where they are, without a copy."""
        for parameter in self.parameters:
            parameter.grad = None

    def collect(self) -> None:
        """Gather the parameters' gradients, which become views of `gradient`."""
        torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in self.parameters],
            out=self.gradient,
        )
        self._attach()

    def _attach(self) -> None:
        for parameter, gradient in zip(self.parameters, self._gradients, strict=True):
            parameter.grad = gradient

    def clip(self, largest: float) -> None:
        """Scale the gradient down to a norm of `largest`, if it is longer."""
        norm = torch.linalg.vector_norm(self.gradient)
        self.gradient.mul_((largest / (norm + 1e-6)).clamp(max=1.0))

    def changed(self) -> None:
        """Count a change of every parameter, as an operation in place would: autograd and caches notice it."""
        torch.autograd.graph.increment_version(self.parameters)


class AdamW:
    """AdamW on `FlatParameters`; on a CPU, each of our threads takes a share of them.

    Args:
        parameters: changed by each step.
        weight_decay: of all of them.
    """

    def __init__(self, parameters: FlatParameters, weight_decay: float) -> None:
        self.parameters, self.weight_decay = parameters, weight_decay
        values = parameters.values
        self._averages = torch.zeros_like(values), torch.zeros_like(values)
        shares = min(2, values.numel()) if values.device.type == "cpu" else 1
        self._steps = torch.zeros(shares, device=values.device)
        """Of each share, which counts its own."""
        parts = [t.chunk(shares) for t in (values, parameters.gradient, *self._averages)]
        self._shares = list(zip(*parts, self._steps.unbind(), strict=True))

    def step(self, learning_rate: float | Tensor) -> None:
        """One step along the gradient that was collected; the rate may be a float32 number on the device."""

        def work(share: tuple[Tensor, ...], _: int) -> None:
            values, gradient, first, second, step = ([t] for t in share)
            adamw(
                values, gradient, first, second, [], step, fused=True, amsgrad=False, beta1=0.9, beta2=0.999,
                lr=learning_rate, weight_decay=self.weight_decay, eps=1e-8, maximize=False,
            )  # fmt: skip

        threads.run(work, self._shares)
        self.parameters.changed()

    def state(self) -> dict[str, Tensor]:
        """What the next step depends on, for checkpoints."""
        return dict(zip(STATE, (self._steps, *self._averages), strict=True))

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        for key, value in self.state().items():
            value.copy_(tensors[key])
