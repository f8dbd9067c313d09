"""numba.njit that works wherever the package is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

FAST = {"reassoc", "contract", "nsz", "arcp"}
"""For `fastmath`: sums may be reordered, the same way at every run; NaN and infinity keep their meaning."""


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """numba.njit with a cache on disk, or without one where neither the package nor the home folder can be written."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # numba found no place for its cache
            return njit(**options)(function)

    return decorate
