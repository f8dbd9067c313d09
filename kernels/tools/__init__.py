"""Tools for developers above all operations: tuning of launches, static report of compiled kernels."""
