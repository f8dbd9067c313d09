"""Filters tabulated as cubic Hermite splines in the distance."""
