"""HDF5 files that hold more than numbers, or lead outside of themselves: refused in one line."""

import forked
import h5py
import numpy as np
import pytest

from painn_fast.errors import PaiNNFastError
from painn_fast.runtime.hdf5_guard import open_hdf5
from painn_fast.train.data import read_file
from painn_fast.train.settings import DataFile


def external(file, folder):
    file["link"] = h5py.ExternalLink(str(folder / "other.h5"), "/secret")


def soft(file, folder):
    file["link"] = h5py.SoftLink("/positions")


def virtual(file, folder):
    layout = h5py.VirtualLayout(shape=(4,), dtype="f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", shape=(4,))
    file.create_virtual_dataset("view", layout)


def outside(file, folder):
    file.create_dataset("raw", (4,), "u1", external=[(str(folder / "secret.txt"), 0, 4)])


def sparse(file, folder):
    file.create_dataset("huge", (10**6, 10**6), "f8", chunks=(10, 10))


def compact_filter(file, folder):
    file.create_dataset("packed", data=np.zeros(10**7), chunks=(10**6,), compression="gzip")


def references(file, folder):
    file.create_dataset("references", (1,), h5py.ref_dtype)


def texts(file, folder):
    file["texts"] = ["a", "b"]


def deep(file, folder):
    file.create_group("a/b/c/d/e/f")


def own_group(file, folder):
    file["loop"] = file["/"]


def compound(file, folder):
    file["pairs"] = np.zeros(2, dtype=[("a", "f8"), ("b", "i4")])


STRANGE = [external, soft, virtual, outside, sparse, compact_filter, references, texts, deep, own_group, compound]


@pytest.mark.parametrize("change", STRANGE, ids=lambda change: change.__name__)
def test_hdf5_that_is_more_than_numbers_in_the_file_is_refused(tmp_path, change):
    (tmp_path / "secret.txt").write_text("password")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.arange(4.0)
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["positions"] = np.zeros((3, 3))
        file.attrs["format"] = "painn-fast structures 1"
        change(file, tmp_path)
    with pytest.raises(PaiNNFastError, match=r"file\.h5"):
        open_hdf5(tmp_path / "file.h5")
    with pytest.raises(PaiNNFastError, match=r"file\.h5"):
        read_file(DataFile(file=str(tmp_path / "file.h5")))


def test_plain_hdf5_is_opened(tmp_path):
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.create_dataset(
            "a/b/c", data=np.arange(6.0).reshape(2, 3), chunks=(1, 3), fletcher32=True, maxshape=(None, 3)
        )
        file["empty"] = np.zeros((0, 3))
        file["scalar"] = 1.5
        file.attrs.update({"text": "å" * 1000, "numbers": np.arange(3), "flag": True})
    with open_hdf5(tmp_path / "file.h5") as file:
        assert file["a/b/c"][1, 2] == 5.0


@pytest.mark.parametrize("size", [0, 2**64 - 1, 2**64 - 16, 5000])
def test_a_heap_of_hdf5_that_leads_nowhere_is_noticed(size, tmp_path):
    """libhdf5 walks along the texts of attributes, stands still at one of no length, and counts bytes modulo 2^64."""
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.attrs["format"] = "painn-fast structures 1"
    data = bytearray((tmp_path / "file.h5").read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 16 : heap + 4096] = b"\0" * (4096 - 16)
    data[heap + 24 : heap + 32] = size.to_bytes(8, "little")
    (tmp_path / "file.h5").write_bytes(data)
    [(kind, line)] = forked.outcomes([0], lambda _: read_file(DataFile(file=str(tmp_path / "file.h5"))))
    assert kind == "error", line
    assert "heap" in line
