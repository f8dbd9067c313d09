"""Time correlation functions of series that arrive frame by frame."""

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
