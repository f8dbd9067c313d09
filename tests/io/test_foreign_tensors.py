"""Tensors stay inside their storages; files of torch.save that are changed, truncated or another zip are refused."""

import struct
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_pickles import FOUR, STOP, named, read, storage, tensor, text, write

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.io.foreign_pickle import read_torch_pickle
from painn_fast.io.torch_archive import MAX_PICKLE, TensorRecord, TorchArchive


def test_a_tensor_is_what_torch_saved(tmp_path):
    values = {
        "float": torch.randn(3, 4),
        "transposed": torch.randn(3, 4).T,
        "slice": torch.arange(12.0).double()[3:9:2],
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "integers": torch.arange(5),
        "half": torch.randn(2).half(),
        "bfloat16": torch.randn(2).bfloat16(),
        "bool": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }
    torch.save(values, tmp_path / "file")
    with TorchArchive(tmp_path / "file") as archive:
        got = {name: archive.tensor(record) for name, record in read_torch_pickle(archive).items()}
    for name, value in values.items():
        assert got[name].dtype == value.dtype
        assert torch.equal(got[name], value), name


OUTSIDE = {
    "offset": {"offset": 1},
    "far offset": {"offset": 2**39},
    "negative offset": {"offset": -1},
    "size": {"size": (5,)},
    "two sizes": {"size": (2, 3), "stride": (3, 1)},
    "stride": {"size": (2,), "stride": (4,)},
    "negative stride": {"offset": 3, "stride": (-1,)},
    "negative size": {"size": (-4,)},
    "two negative sizes": {"size": (-2, -2), "stride": (1, 1)},
    "repetition": {"size": (10**9,), "stride": (0,)},
    "overlap": {"size": (3, 3), "stride": (0, 1)},
    "overflow": {"size": (2**62, 4), "stride": (0, 1)},
    "huge": {"size": (2**80,)},
    "huge and empty": {"size": (0, 2**80), "stride": (1, 1)},
    "strides missing": {"size": (2, 2), "stride": (1,)},
    "many dimensions": {"size": (1,) * 9, "stride": (1,) * 9},
    "longer storage": {"stored": storage(length=5), "size": (5,)},
    "huge storage": {"stored": storage(length=2**50), "size": (4,)},
    "shorter storage": {"stored": storage(length=3), "size": (3,)},
    "other type": {"stored": storage(kind=named("torch", "DoubleStorage"))},
    "missing storage": {"stored": storage(key="1")},
}


@pytest.mark.parametrize("what", OUTSIDE)
def test_a_tensor_cannot_reach_outside_of_its_storage(tmp_path, what):
    path = write(tmp_path / "file", b"\x80\x02" + tensor(**OUTSIDE[what]) + STOP, FOUR)
    with TorchArchive(path) as archive:
        record = read_torch_pickle(archive)
        assert isinstance(record, TensorRecord)
        with pytest.raises(PaiNNFastError, match=r"storage|missing"):
            archive.tensor(record)


@given(
    offset=st.integers(-1, 5),
    shape=st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), max_size=3),
)
def test_whatever_is_accepted_lies_inside(tmp_path_factory, offset, shape):
    size, stride = [n for n, _ in shape], [n for _, n in shape]
    path = tmp_path_factory.getbasetemp() / "inside"
    write(path, b"\x80\x02" + tensor(offset, size, stride) + STOP, FOUR)
    with TorchArchive(path) as archive:
        try:
            got = archive.tensor(read_torch_pickle(archive))
        except PaiNNFastError:
            return
    assert got.numel() <= 4
    assert set(got.reshape(-1).tolist()) <= {0.0, 1.0, 2.0, 3.0}


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(where=st.floats(0, 1), value=st.integers(0, 255))
def test_a_changed_byte_of_a_real_file_is_an_error_or_a_model(spk, tmp_path_factory, where, value):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "whole"
    if not path.exists():
        spk.save(spk.model(), path)
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] = value
    (folder / "changed").write_bytes(data)
    try:
        model = pf.load(folder / "changed", energy_unit="eV")
    except PaiNNFastError:
        return
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_one_clear_line(spk, tmp_path, part):
    data = spk.save(spk.model(), tmp_path / "whole").read_bytes()
    path = tmp_path / "best_model"
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(PaiNNFastError, match=r"not a readable file of torch\.save|an empty file") as caught:
        pf.load(path, energy_unit="eV")
    assert str(path) in str(caught.value)


SIMPLE = b"\x80\x02}" + STOP


def test_other_zip_files_are_distinguished(tmp_path):
    path = tmp_path / "file"
    refused = {
        "compressed entry": {"compression": zipfile.ZIP_DEFLATED},
        "TorchScript": {"extra": [("archive/constants.pkl", b"")]},
        "big-endian": {"extra": [("archive/byteorder", b"big")]},
        "one data.pkl in one folder": {"extra": [("other/data.pkl", SIMPLE)]},
    }
    for message, options in refused.items():
        with pytest.raises(PaiNNFastError, match=message):
            read(write(path, SIMPLE, **options))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("word/document.xml", "<xml/>")
    with pytest.raises(PaiNNFastError, match=r"not one of torch\.save"):
        read(path)


def test_entries_that_share_bytes_are_refused(tmp_path):
    """A zip can list one run of bytes under many names, and so seem far larger than it is."""
    path = write(tmp_path / "file", SIMPLE, {"0": bytes(2000)})
    data = path.read_bytes()
    listing, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    last = data[data.rindex(b"PK\x01\x02") : end]
    twins = b"".join(last.replace(b"archive/data/0", f"archive/data/{k}".encode()) for k in range(1, 4))
    tail = bytearray(data[end:])
    tail[8:16] = struct.pack("<HHI", 6, 6, end - listing + len(twins))
    path.write_bytes(data[:end] + twins + tail)
    with zipfile.ZipFile(path) as file:
        assert len(file.namelist()) == 6
    with pytest.raises(PaiNNFastError, match="overlap"):
        read(path)


def test_a_huge_description_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("painn_fast.io.torch_archive.MAX_PICKLE", 100)
    assert MAX_PICKLE > 10**6
    with pytest.raises(PaiNNFastError, match="too large a description"):
        read(write(tmp_path / "file", b"\x80\x02" + text("x" * 200) + STOP))


def test_a_changed_byte_of_the_weights_is_noticed(spk, tmp_path):
    path = spk.save(spk.model(), tmp_path / "best_model")
    weights = spk.model().representation.embedding.weight
    assert weights.shape == (100, 8)
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda info: info.file_size)
    data = bytearray(path.read_bytes())
    data[largest.header_offset + 64 + largest.file_size // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PaiNNFastError, match=r"damaged file.*CRC"):
        pf.load(path, energy_unit="eV")


def test_files_of_old_torch_are_recognised(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    with pytest.raises(PaiNNFastError, match=r"torch older than 1\.6"):
        pf.load(tmp_path / "old", energy_unit="eV")
