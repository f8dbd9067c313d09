"""Logarithmic axes of pictures with numbers as people write them: 0.02 and 15, not 2 × 10⁻²."""

from __future__ import annotations

from typing import Any

NARROW = 5.0
"""Ratio of the ends of an axis below which its ticks are evenly spaced: a decade has too few between 100 and 150."""


def plain_numbers(*axes: Any) -> None:
    """Label the ticks of logarithmic axes by plain numbers; where they span a decade or less, those within it too.

    Args:
        axes: each the `xaxis` or `yaxis` of matplotlib's axes.
    """
    from matplotlib.ticker import LogFormatter, LogLocator, MaxNLocator

    def narrow(axis: Any) -> bool:
        low, high = sorted(axis.get_view_interval())
        return bool(0 < high < NARROW * low)

    class Ticks(LogLocator):
        def __call__(self) -> Any:
            if not narrow(self.axis):
                return super().__call__()
            ends: Any = self.axis
            return MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(*sorted(ends.get_view_interval()))

    class MinorTicks(LogLocator):
        def __call__(self) -> Any:
            return [] if narrow(self.axis) else super().__call__()

    class Plain(LogFormatter):
        def __call__(self, value: float, position: int | None = None) -> str:
            return f"{value:g}" if narrow(self.axis) or super().__call__(value, position) else ""

    for axis in axes:
        axis.set_major_locator(Ticks())
        axis.set_minor_locator(MinorTicks(subs=range(2, 10)))
        axis.set_major_formatter(Plain())
        axis.set_minor_formatter(Plain(minor_thresholds=(2, 0.5)))
