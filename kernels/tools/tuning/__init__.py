"""Measures which launches of GPU kernels are fastest."""
