"""What operations with derivatives of their own ask of torch."""

from __future__ import annotations

from typing import Any

import torch


def wanted(node: Any) -> bool:
    """Whether the running pass of autograd needs a gradient at a node, one of `ctx.next_functions`.

    `ctx.needs_input_grad` tells what could be asked for, which is nearly always everything.
    """
    if node is None:
        return False
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:  # torch's answer for a leaf that `autograd.grad` was asked for
        return True
