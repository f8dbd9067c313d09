"""Logarithmic axes of pictures with numbers as people write them: 0.02 and 15, not 2 × 10⁻²."""

from __future__ import annotations

from typing import Any


def plain_numbers(*axes: Any) -> None:
    """Label the ticks of logarithmic axes by plain numbers; where they span a decade or less, those within it too.

    Args:
        axes: each the `xaxis` or `yaxis` of matplotlib's axes.
    """
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, value: float, position: int | None = None) -> str:
            return f"{value:g}" if super().__call__(value, position) else ""

    for axis in axes:
        axis.set_major_formatter(Plain())
        axis.set_minor_formatter(Plain(minor_thresholds=(2, 0.5)))
