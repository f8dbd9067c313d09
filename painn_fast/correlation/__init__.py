"""Time correlation functions of series that arrive frame by frame."""

from typing import TYPE_CHECKING

from painn_fast.runtime.lazy import lazy

if TYPE_CHECKING:
    from painn_fast.correlation.online import Correlation, StreamingCorrelation, velocity_correlation
    from painn_fast.correlation.series import SpectrumStreams, invariants, mass_weighted

__all__ = [
    "Correlation",
    "SpectrumStreams",
    "StreamingCorrelation",
    "invariants",
    "mass_weighted",
    "velocity_correlation",
]

lazy(__name__)
