"""A water molecule as files of extended XYZ have it, and the reader of them."""

import numpy as np

from painn_fast.train.data import read_file
from painn_fast.train.settings import DataFile

FORCES = np.arange(1.0, 10.0).reshape(3, 3)
WATER = "O 0 0 0 1 2 3\nH 0 0 0.96 4 5 6\nH 0.93 0 -.24 7 8 9\n"
P = "Properties=species:S:1:pos:R:3:forces:R:3"
CELL = "5 0 0 0 6 0 0 0 7"


def read(path, **options):
    return read_file(DataFile.parse({"file": path.name, **options}), path.parent)
