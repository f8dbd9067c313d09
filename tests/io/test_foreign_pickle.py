"""A pickle that asks for more than data is refused by name, and runs nothing."""

import builtins
import os
import pickle
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_pickles import FLOATS, FOUR, REBUILD, STOP, named, number, numbers, read, storage, tensor, text, write

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.io.foreign_pickle import Name, Record
from painn_fast.io.torch_archive import TensorRecord


class Calls:
    """Pickles into a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


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


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(program=st.binary(max_size=60))
def test_noise_is_an_error_or_plain_data(tmp_path_factory, program):
    path = write(tmp_path_factory.getbasetemp() / "noise", b"\x80\x02" + program + STOP, FOUR)
    try:
        got = read(path)
    except PaiNNFastError:
        return
    assert isinstance(got, str | bytes | int | float | tuple | list | dict | set | None | Record | Name | TensorRecord)
