"""Fused operations, each a folder with its reference, its fast versions and its derivation. Imports nothing of painn_fast."""

if __name__ == "kernels":
    raise ImportError("this folder installs as painn_fast.kernels: run `pip install -e .` and import that")
