"""Files in the format of torch.save around pickle programs, for tests that read them."""

import pickle
import struct
import zipfile

import numpy as np

from painn_fast.io.foreign_pickle import read_torch_pickle
from painn_fast.io.torch_archive import TorchArchive


def write(path, program, storages=None, *, folder="archive", compression=zipfile.ZIP_STORED, extra=()):
    """A file in the format of torch.save around a pickle program."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(f"{folder}/data.pkl", program)
        file.writestr(f"{folder}/version", "3")
        for name, data in (storages or {}).items():
            file.writestr(f"{folder}/data/{name}", data)
        for name, data in extra:
            file.writestr(name, data)
    return path


def read(path):
    with TorchArchive(path) as archive:
        return read_torch_pickle(archive)


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def named(module, name):
    return b"c" + f"{module}\n{name}\n".encode()


STOP = b"."
FLOATS = named("torch", "FloatStorage")
REBUILD = named("torch._utils", "_rebuild_tensor_v2")


def storage(length=4, key="0", kind=FLOATS):
    return b"(" + text("storage") + kind + text(key) + text("cpu") + number(length) + b"tQ"


def number(value):
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(*values):
    return b"(" + b"".join(number(value) for value in values) + b"t"


def tensor(offset=0, size=(4,), stride=(1,), stored=None):
    return REBUILD + b"(" + (stored or storage()) + number(offset) + numbers(*size) + numbers(*stride) + b"\x89}tR"


FOUR = {"0": np.arange(4, dtype="<f4").tobytes()}
