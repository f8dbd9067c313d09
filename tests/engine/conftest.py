"""Triton kernels run on a GPU where there is one and in Triton's interpreter elsewhere."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported
