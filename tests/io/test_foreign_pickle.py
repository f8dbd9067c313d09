"""A pickle that asks for more than data is refused by name, and runs nothing."""

import builtins
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.io.foreign_pickle import Name, Record, read_torch_pickle
from painn_fast.io.torch_archive import MAX_PICKLE, TensorRecord, TorchArchive


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


class Calls:
    """Pickles into a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


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

DANGEROUS = {
    "posix.system": lambda mark: Calls(os.system, f"touch {mark}"),
    "eval": lambda mark: Calls(eval, f"open({str(mark)!r}, 'w')"),
    "exec": lambda mark: Calls(exec, f"open({str(mark)!r}, 'w')"),
    "io.open": lambda mark: Calls(open, str(mark), "w"),
    "__import__": lambda mark: Calls(builtins.__import__, "antigravity"),
    "getattr": lambda mark: Calls(getattr, Calls(builtins.__import__, "os"), "system"),
    "subprocess.Popen": lambda mark: Calls(subprocess.Popen, ["touch", str(mark)]),
    "torch.serialization.load": lambda mark: Calls(torch.load, str(mark)),
    "torch.hub.load": lambda mark: Calls(torch.hub.load, "some/repository", "model"),
    "pickle.loads": lambda mark: Calls(pickle.loads, pickle.dumps(Calls(os.system, f"touch {mark}"))),
    "numpy": lambda mark: Calls(np.fromfile, str(mark)),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", DANGEROUS)
def test_a_call_of_anything_else_is_refused_by_name_and_not_made(tmp_path, name, protocol):
    mark = tmp_path / "was-here"
    path = tmp_path / "best_model"
    torch.save({"state_dict": DANGEROUS[name](mark)}, path, pickle_protocol=protocol)
    with pytest.raises(PaiNNFastError, match=rf"got: .*{name.rpartition('.')[2]}") as caught:
        pf.load(path, energy_unit="eV")
    assert "nothing was executed" in str(caught.value)
    assert str(path) in str(caught.value)
    assert not mark.exists()
    assert "antigravity" not in sys.modules


def test_a_dangerous_object_deep_inside_a_model_is_refused(spk, tmp_path):
    mark = tmp_path / "was-here"
    live = spk.model()
    live.representation.interactions[1].note = Calls(os.system, f"touch {mark}")
    path = spk.save(live, tmp_path / "best_model")
    with pytest.raises(PaiNNFastError, match=r"got: posix\.system"):
        pf.load(path, energy_unit="eV")
    assert not mark.exists()


REFUSED_NAMES = [
    ("os", "system"),
    ("builtins", "getattr"),
    ("__builtin__", "getattr"),
    ("builtins", "compile"),
    ("torch", "load"),
    ("torch", "jit"),
    ("torch._utils", "_rebuild_device_tensor_from_numpy"),
    ("torch._utils", "_rebuild_from_type_v2"),
    ("torch.storage", "_load_from_bytes"),
    ("torch._C", "_jit_clear_class_registry"),
    ("torchvision.models", "resnet18"),
    ("torch.nnx", "silu"),
    ("schnetpackx.nn", "Dense"),
    ("copyreg", "_reconstructor"),
    ("functools", "reduce"),
    ("operator", "attrgetter"),
    ("torch.nn", "functional.torch.os.system"),
    ("schnetpack.cli", "os.system"),
    ("schnetpack.nn base", "Dense"),
    ("", "x"),
    ("torch.nn..os", "system"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
    ("painn_fast.io", "load"),
]


@pytest.mark.parametrize(("module", "name"), REFUSED_NAMES, ids=str)
@pytest.mark.parametrize("opcode", ["GLOBAL", "STACK_GLOBAL"])
def test_names_outside_of_the_list_are_refused(tmp_path, module, name, opcode):
    if opcode == "GLOBAL":
        program = b"\x80\x02" + named(module, name) + STOP
    else:
        program = b"\x80\x04" + text(module) + text(name) + b"\x93" + STOP
    with pytest.raises(PaiNNFastError, match="asks for a name"):
        read(write(tmp_path / "file", program))


def test_a_name_cannot_write_to_the_terminal(tmp_path):
    program = b"\x80\x04" + text("os") + text("\x1b[2Jsystem" + "a" * 10_000) + b"\x93" + STOP
    with pytest.raises(PaiNNFastError) as caught:
        read(write(tmp_path / "file", program))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_listed_names_are_noted_and_not_looked_up(tmp_path):
    program = b"\x80\x02" + named("schnetpack.cli", "main") + b")R" + STOP
    got = read(write(tmp_path / "file", program))
    assert isinstance(got, Record)
    assert got.kind == Name("schnetpack.cli", "main")
    partial = b"\x80\x02" + named("functools", "partial") + named("torch.nn.init", "zeros_") + b"\x85R" + STOP
    got = read(write(tmp_path / "file", partial))
    assert (got.kind, got.arguments) == (Name("functools", "partial"), (Name("torch.nn.init", "zeros_"),))


ABUSES = {
    "a call of what was called": named("functools", "partial") + b")R)R",
    "a call of text": text("os.system") + b")R",
    "a call without a tuple": named("collections", "OrderedDict") + b"]R",
    "an object of text": text("x") + b")\x81",
    "state of a name": named("torch.nn", "Linear") + b"}" + text("__class__") + text("x") + b"sb",
    "state of a tensor": tensor() + b"}" + text("requires_grad_") + text("x") + b"sb",
    "state of a list": b"]}b",
    "state of a number": number(3) + b"}b",
    "items of a tensor": tensor() + text("a") + text("b") + b"s",
    "items of a number": number(3) + text("a") + text("b") + b"s",
    "entries of a dictionary": b"}" + text("a") + b"a",
    "elements of a list": b"](" + text("a") + b"\x90",
    "a key that is a list": b"}]" + text("a") + b"s",
    "a key that is a nested tuple": b"})\x85\x85" + text("a") + b"s",
    "an odd number of items": b"}(" + text("a") + b"u",
    "a set of lists": named("builtins", "set") + b"]]a\x85R",
    "a dictionary of three": named("collections", "OrderedDict") + b"](" + text("a") * 3 + b"ta\x85R",
    "a tuple of nothing": b"\x86",
    "a group without a beginning": b"t",
    "an empty stack": b"",
    "what was not remembered": b"h\x07",
    "a name of numbers": number(1) + number(2) + b"\x93",
    "an extension": b"\x82\x01",
    "a persistent text": b"Pos.system\n",
    "a persistent name": named("torch", "FloatStorage") + b"Q",
    "a persistent module": b"(" + text("module") + FLOATS + text("0") + text("cpu") + number(4) + b"tQ",
    "a storage of another class": storage(kind=named("torch.nn", "Linear")),
    "a storage in another folder": storage(key="../version"),
    "a storage of negative length": storage(length=-1),
    "a tensor of text": REBUILD + b"(" + text("x") + number(0) + numbers(4) + numbers(1) + b"\x89}tR",
    "a tensor with hooks": REBUILD
    + b"("
    + storage()
    + number(0)
    + numbers(4)
    + numbers(1)
    + b"\x89}"
    + text("a")
    + b"Nst"
    + b"R",
    "a tensor of lists": REBUILD + b"(" + storage() + number(0) + b"]" + numbers(1) + b"\x89}tR",
    "a tensor of truths": tensor().replace(numbers(4), b"(\x88t"),
    "a tensor of tuples": tensor().replace(numbers(4), b"))\x85"),
    "a parameter of text": named("torch._utils", "_rebuild_parameter") + b"(" + text("x") + b"\x88}tR",
    "a parameter with hooks": named("torch._utils", "_rebuild_parameter")
    + b"("
    + tensor()
    + b"\x88}"
    + text("a")
    + b"Nst"
    + b"R",
    "old-fashioned instances": b"(ios\nsystem\n",
    "old-fashioned objects": b"(" + named("torch.nn", "Linear") + b"o",
    "old-fashioned text": b"S'os'\n",
    "old-fashioned numbers": b"I1\n",
    "doubling": b"]2",
    "long numbers": b"\x8b" + struct.pack("<i", 3) + b"\x01\x02\x03",
}


@pytest.mark.parametrize("what", ABUSES)
def test_abuse_of_an_instruction_is_refused(tmp_path, what):
    path = write(tmp_path / "file", b"\x80\x02" + ABUSES[what] + STOP, FOUR)
    with pytest.raises(PaiNNFastError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_without_an_end_is_refused(tmp_path):
    with pytest.raises(PaiNNFastError, match="damaged pickle"):
        read(write(tmp_path / "file", b"\x80\x02]"))


def test_reading_takes_no_longer_than_the_file_is_long(tmp_path):
    """Tuples of tuples of tuples: a hash of the last one would take 2^60 steps, a copy 2^60 entries."""
    program = b"\x80\x02" + b")" + b"q\x00h\x00\x86" * 60 + b"q\x01}h\x01Ns" + STOP
    nested = b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + STOP
    remembered = b"\x80\x02]r\xff\xff\xff\xff" + STOP
    start = time.perf_counter()
    with pytest.raises(PaiNNFastError, match="tuple as a key"):
        read(write(tmp_path / "file", program))
    assert isinstance(read(write(tmp_path / "file", nested)), list)
    assert read(write(tmp_path / "file", remembered)) == []
    assert time.perf_counter() - start < 5.0


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


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(program=st.binary(max_size=60))
def test_noise_is_an_error_or_plain_data(tmp_path_factory, program):
    path = write(tmp_path_factory.getbasetemp() / "noise", b"\x80\x02" + program + STOP, FOUR)
    try:
        got = read(path)
    except PaiNNFastError:
        return
    assert isinstance(got, str | bytes | int | float | tuple | list | dict | set | None | Record | Name | TensorRecord)


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
