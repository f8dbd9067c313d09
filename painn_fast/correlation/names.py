"""Names that settings need without what is behind them."""

SERIES = ("dipole", "polarizability", "velocities")
"""Of a run, those whose correlation functions spectra need."""
