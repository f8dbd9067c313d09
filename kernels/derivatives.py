"""What operations with derivatives of their own ask of torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def wanted(node: Any) -> bool:
    """Whether the running pass of autograd needs a gradient at a node, one of `ctx.next_functions`.

    `ctx.needs_input_grad` states what could be requested, which is nearly always everything.
    """
    if node is None:
        return False
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except (RuntimeError, AttributeError):  # torch's answer for a leaf that `autograd.grad` was asked for, or none
        return True


def views(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The same tensors to differentiate in, each alone: none of them leads on to another that it depends on."""
    return [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in tensors]
