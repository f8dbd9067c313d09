"""Lag windows: names, values, and the resolution that they leave.

A window multiplies the correlation function, is 1 at t = 0 (so that it preserves integrated intensities) and ends at
the correlation depth.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.units import SPEED_OF_LIGHT

WindowName = Literal["gaussian", "hann", "blackman"]

SIGMAS = 3.5
"""Standard deviations of the Gaussian within the depth; it is cut off at 0.2 % of its height."""


def window(name: str, lags: int) -> np.ndarray:
    """Values at lags 0, 1, ... [lags] of a window that ends after the last one.

    Raises:
        PaiNNFastError: for an unknown name.
    """
    x = np.arange(lags) / lags  # t / depth
    if name == "gaussian":
        return np.exp(-0.5 * (SIGMAS * x) ** 2)
    if name == "hann":
        return 0.5 + 0.5 * np.cos(np.pi * x)
    if name == "blackman":
        return 0.42 + 0.5 * np.cos(np.pi * x) + 0.08 * np.cos(2 * np.pi * x)
    raise PaiNNFastError("unknown window", got=repr(name), expected="gaussian | hann | blackman")


def line_shape(name: str, depth: float, offset: np.ndarray) -> np.ndarray:
    """An infinitely sharp line of unit area as the window broadens it, per cm-1.

    Args:
        name: of the window.
        depth: fs.
        offset: distance from the line [...], cm-1.
    """
    lags = 400
    time = np.arange(lags) * depth / lags  # fs
    values = window(name, lags)
    phase = 2 * np.pi * SPEED_OF_LIGHT * np.multiply.outer(np.asarray(offset, dtype=float), time)
    shape = (np.cos(phase) * values).sum(-1) - 0.5 * values[0]  # trapezoids; the window ends at zero
    return 2.0 * SPEED_OF_LIGHT * shape * depth / lags


def resolution(name: str, depth: float) -> float:
    """Full width at half maximum of an infinitely sharp line, cm-1; depth in fs."""
    offset = np.linspace(0.0, 2.0 / (SPEED_OF_LIGHT * depth), 2001)
    shape = line_shape(name, depth, offset)
    below = int(np.argmax(shape < 0.5 * shape[0]))
    return 2.0 * float(np.interp(-0.5 * shape[0], -shape[below - 1 : below + 1], offset[below - 1 : below + 1]))
