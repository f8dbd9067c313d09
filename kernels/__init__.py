"""Fused operations, each a folder: reference, fast versions, derivation. A leaf: imports nothing else of painn_fast."""

if __name__ == "kernels":
    raise ImportError("this folder installs as painn_fast.kernels: run `pip install -e .` and import that")

from painn_fast.kernels import mkl_warmup

mkl_warmup.make()
