"""The update block of PaiNN between its matrix products, in plain torch. vw [N, 3, 2 F] holds V and W side by side."""

from __future__ import annotations

import torch
from torch import Tensor


def norm(s: Tensor, vw: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Context [N, 2 F] = (s, sqrt(|V|^2 + epsilon)) and dot [N, F] = <V, W>, from s [N, F]."""
    V, W = vw.chunk(2, dim=-1)
    return torch.cat([s, torch.sqrt((V**2).sum(dim=1) + epsilon)], dim=-1), (V * W).sum(dim=1)


def gate(s: Tensor, v: Tensor, y: Tensor, vw: Tensor, dot: Tensor) -> tuple[Tensor, Tensor]:
    """s + A + G <V, W> and v + B W, from s [N, F], v [N, 3, F], y [N, 3 F] = (A, B, G) and dot [N, F] = <V, W>."""
    A, B, G = y.chunk(3, dim=-1)
    return s + A + G * dot, v + B[:, None, :] * vw.chunk(2, dim=-1)[1]
