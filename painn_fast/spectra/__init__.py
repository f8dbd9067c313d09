"""Infrared, Raman and power spectra: from trajectories, with physical intensities, and from a model's own Hessian."""

from typing import TYPE_CHECKING

from painn_fast.runtime.lazy import lazy

if TYPE_CHECKING:
    from painn_fast.correlation.online import Correlation, StreamingCorrelation
    from painn_fast.correlation.series import SpectrumStreams
    from painn_fast.spectra.analyse import SpectrumResult, analyse
    from painn_fast.spectra.bands import Band, compare_bands
    from painn_fast.spectra.committee import run_committee
    from painn_fast.spectra.compare import Comparison, compare
    from painn_fast.spectra.density import Analysis
    from painn_fast.spectra.infrared import InfraredSpectrum, infrared
    from painn_fast.spectra.overlay import Overlay, read_overlay
    from painn_fast.spectra.peaks import Peak, fit_shift, infrared_peaks, raman_peaks
    from painn_fast.spectra.plot import draw, draw_comparison
    from painn_fast.spectra.power import PowerSpectrum, power
    from painn_fast.spectra.raman import RamanSpectrum, raman
    from painn_fast.spectra.run import run
    from painn_fast.spectra.settings import SpectrumSettings
    from painn_fast.vibrations.derivatives import hessian
    from painn_fast.vibrations.harmonic import HarmonicSpectrum, Roughness, harmonic, roughness
    from painn_fast.vibrations.relax import relax

__all__ = [
    "Analysis",
    "Band",
    "Comparison",
    "Correlation",
    "HarmonicSpectrum",
    "InfraredSpectrum",
    "Overlay",
    "Peak",
    "PowerSpectrum",
    "RamanSpectrum",
    "Roughness",
    "SpectrumResult",
    "SpectrumSettings",
    "SpectrumStreams",
    "StreamingCorrelation",
    "analyse",
    "compare",
    "compare_bands",
    "draw",
    "draw_comparison",
    "fit_shift",
    "harmonic",
    "hessian",
    "infrared",
    "infrared_peaks",
    "power",
    "raman",
    "raman_peaks",
    "read_overlay",
    "relax",
    "roughness",
    "run",
    "run_committee",
]

lazy(__name__)
