"""Labelled structures: files of many formats in, flat arrays in eV, Å, e Å and Å³ out."""

from typing import TYPE_CHECKING

from painn_fast.runtime.lazy import lazy

if TYPE_CHECKING:
    from painn_fast.train.data.dataset import SPLITS, Dataset, join
    from painn_fast.train.data.hdf5 import write_hdf5
    from painn_fast.train.data.read import read_file, read_split
    from painn_fast.train.data.splits import write_split

__all__ = ["SPLITS", "Dataset", "join", "read_file", "read_split", "write_hdf5", "write_split"]

lazy(__name__)
