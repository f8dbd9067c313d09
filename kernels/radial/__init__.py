"""Filters tabulated as splines in the distance."""
