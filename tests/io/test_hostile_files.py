"""Files made to take all time or memory, to open other files or to run code: each ends in one line of error."""

import json
import pickle
import struct
import time
import zipfile

import ase.io
import forked
import numpy as np
import pytest
import standin_schnetpack
import torch
from ase.build import molecule
from safetensors.torch import save_file

import painn_fast as pf
from painn_fast.errors import LONGEST, PaiNNFastError, reading
from painn_fast.io import save_model
from painn_fast.io.ase_formats import iread
from painn_fast.io.foreign_pickle import MAX_INSTRUCTIONS, read_torch_pickle
from painn_fast.io.structures import read_structures
from painn_fast.io.torch_archive import TorchArchive
from painn_fast.md import MDSettings
from painn_fast.nn import Potential, PotentialConfig
from painn_fast.runtime import numpy_files
from painn_fast.runtime.numpy_files import check_npz, load_npy, load_npz
from painn_fast.runtime.zip_directory import MAX_DIRECTORY
from painn_fast.settings import load_settings
from painn_fast.train.data import read_file
from painn_fast.train.settings import DataFile
from painn_fast.units import parse_quantity


def archive(path, program, storages=None, compressed=()):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", program)
        for name, data in (storages or {}).items():
            kind = zipfile.ZIP_DEFLATED if name in compressed else zipfile.ZIP_STORED
            file.writestr(f"archive/{name}", data, kind)
    return path


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value):
    return b"J" + struct.pack("<i", value)


def large(value):
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


BEGIN, END = b"\x80\x02", b"."
LIST = b"]q\x00(" + b"".join(integer(k) + b"N\x86" for k in range(5_000)) + b"e"
CALLS = {"dictionary": b"ccollections\nOrderedDict\nq\x01", "set": b"cbuiltins\nset\nq\x01"}
COSTLY = {
    "one list in many dictionaries": (LIST + CALLS["dictionary"] + b"h\x01h\x00\x85R" * 20_000, "too many"),
    "one list in many sets": (
        b"]q\x00(" + integer(7) * 5_000 + b"e" + CALLS["set"] + b"h\x01h\x00\x85R" * 20_000, "too many"
    ),
    "sets without end": (b"\x8f" * (MAX_INSTRUCTIONS + 9), "instructions"),
    "marks without end": (b"(" * (MAX_INSTRUCTIONS + 9), "instructions"),
    "objects without end": (b"ctorch.nn\nLinear\nq\x00" + b"h\x00)\x81" * MAX_INSTRUCTIONS, "instructions"),
    "keys of one hash": (b"}(" + b"".join(large(k * (2**61 - 1)) + b"N" for k in range(1, 30_000)) + b"u", "as a key"),
    "keys of one small hash": (b"}(" + b"".join(integer(k << 16) + b"N" for k in range(1, 20_000)) + b"u", "odd keys"),
    "one long tuple in many keys": (b"(" + b"N" * 20_000 + b"tq\x00}(" + b"h\x00N" * 20_000 + b"u", "as a key"),
    "one long name in many names": (
        text("torch.nn" + ".a" * 10**6) + b"q\x00" + text("x") + b"q\x01" + b"h\x00h\x01\x93" * 50_000, "too long"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", COSTLY)
def test_a_pickle_costs_no_more_than_a_model(tmp_path, what):
    program, message = COSTLY[what]
    path = archive(tmp_path / "file", b"\x80\x04" + program + END)

    def read(_):
        with TorchArchive(path) as opened:
            return read_torch_pickle(opened)

    [(kind, line)] = forked.outcomes([0], read)
    assert kind == "error", line
    assert str(path) in line
    assert message in line


def module(inside, kind=b"ctorch.nn\nModule\n"):
    """A pickled module with these things inside."""
    return kind + b")\x81}" + text("_modules") + b"}(" + inside + b"us" + b"b"


MODEL = b"cschnetpack.model\nNeuralNetworkPotential\n"
SHARED = {
    "many children that are the whole": (
        MODEL + b")\x81q\x00}" + text("_modules") + b"}(" + text("representation") + b"h\x00"
        + b"".join(text(str(k)) + b"h\x00" for k in range(9_000)) + b"usb"
    ),
    "a name of a million letters": module(text("representation") + b"N" + text("a" * 10**6) + b"N", MODEL),
}  # fmt: skip


@pytest.mark.parametrize("what", SHARED)
def test_modules_within_themselves_end_in_words(tmp_path, what):
    path = archive(tmp_path / "file", BEGIN + SHARED[what] + END)
    start = time.perf_counter()
    with pytest.raises(PaiNNFastError) as caught:
        pf.load(path, energy_unit="eV")
    assert time.perf_counter() - start < 5.0
    assert len(str(caught.value)) <= LONGEST


NUMBERED = {
    "layer": "representation.interactions.{}.x",
    "head": "output_modules.{}.outnet.0.weight",
    "layer of a head": "output_modules.0.outnet.{}.weight",
}


@pytest.mark.parametrize("what", NUMBERED)
def test_a_number_of_thousands_of_digits_in_a_name_is_no_number(tmp_path, what):
    state = standin_schnetpack.model().state_dict() | {NUMBERED[what].format("9" * 5000): torch.ones(1)}
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(PaiNNFastError) as caught:
        pf.load(tmp_path / "weights.pt", energy_unit="eV")
    assert len(str(caught.value)) <= LONGEST


def wide(n):
    """A state dict of some kB that looks like one of n features, whose matrices would take n^2 numbers."""
    shapes = {
        "embedding.weight": (4, n), "radial_basis.offsets": (4,), "radial_basis.widths": (4,), "cutoff_fn.cutoff": (1,),
        "filter_net.weight": (3 * n, 1), "filter_net.bias": (3 * n,), "interactions.0.x": (1,),
    }  # fmt: skip
    state = {f"representation.{name}": torch.ones(shape) for name, shape in shapes.items()}
    return state | {"output_modules.0.outnet.0.weight": torch.ones(1, n)}


def test_a_small_state_dict_cannot_ask_for_much_memory(tmp_path):
    torch.save(wide(16_000), tmp_path / "weights.pt")
    [(kind, line)] = forked.outcomes([0], lambda _: pf.load(tmp_path / "weights.pt", energy_unit="eV"))
    assert kind == "error", line
    assert "missing key" in line or "wrong shape" in line


def test_a_small_model_file_cannot_ask_for_much_memory(tmp_path):
    """The tensors in the file have the size of the configuration; the missing ones would take 3 GB and more."""
    n = 16_000
    settings = {"n_features": n, "n_layers": 1, "n_rbf": 4, "max_z": 4}
    config = PotentialConfig.parse({"representation": settings}).model_dump(mode="json")
    header = {"format": "painn-fast model", "version": 1, "config": config, "sha256": "0" * 64}
    path = tmp_path / "model.safetensors"
    tensors = {f"t{k}": torch.zeros(1) for k in range(40)} | {"representation.embedding.weight": torch.zeros(4, n)}
    save_file(tensors, path, {"painn_fast": json.dumps(header)})
    [(kind, line)] = forked.outcomes([0], lambda _: pf.load(path))
    assert kind == "error", line


def test_a_header_of_odd_json_ends_in_words(tmp_path):
    for header in ('{"format": ' + "9" * 5000 + "}", "[" * 100_000, '{"config": ' * 5_000, "null", '"x"'):
        path = tmp_path / "model.safetensors"
        save_file({"x": torch.zeros(1)}, path, {"painn_fast": header})
        with pytest.raises(PaiNNFastError) as caught:
            pf.load(path)
        assert str(path) in str(caught.value)


def test_torchscript_is_named_though_its_code_is_compressed(tmp_path):
    parts = {"code/__torch__.py": b"def f(): pass\n" * 50, "constants.pkl": b"\x80\x02)."}
    path = archive(tmp_path / "deployed_model", BEGIN + b")" + END, parts, compressed={"code/__torch__.py"})
    with pytest.raises(PaiNNFastError, match=r"TorchScript.*best_model"):
        pf.load(path, energy_unit="eV")


def test_a_zip_file_of_very_many_entries_is_refused_before_they_are_listed(tmp_path):
    path = tmp_path / "weights.pt"
    size = MAX_DIRECTORY + 1
    path.write_bytes(b"PK\x03\x04" + b"PK\x05\x06" + b"\0" * 8 + struct.pack("<II", size, 0) + b"\0\0")
    with pytest.raises(PaiNNFastError, match="too many entries"):
        pf.load(path, energy_unit="eV")


WRAPPED = {
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "parallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "Lightning": lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}, "epoch": 1},
    "compiled in Lightning": lambda s: {"state_dict": {f"model._orig_mod.{k}": v for k, v in s.items()}},
    "Lightning compiled": lambda s: {"state_dict": {f"_orig_mod.model.{k}": v for k, v in s.items()}},
    "parallel and compiled": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "a compiled part": lambda s: {
        k.replace("representation.", "representation._orig_mod.", 1): v for k, v in s.items()
    },
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {}, "param_groups": []}},
    "nested": lambda s: {"model": {"state_dict": {f"module.{k}": v for k, v in s.items()}}},
    "averaged": lambda s: {"n_averaged": torch.tensor(3)} | {f"module.{k}": v for k, v in s.items()},
    "weights": lambda s: {"weights": s, "epoch": 1},
    "of an average alone": lambda s: {"checkpoint": {"ema_state_dict": s}},
    "of an average beside it": lambda s: {"state_dict": s, "ema_state_dict": {k: v + 1 for k, v in s.items()}},
    "metrics beside it": lambda s: {
        "state_dict": {f"model.{k}": v for k, v in s.items()} | {"metric.n": torch.ones(1)}
    },
}


@pytest.mark.parametrize("how", WRAPPED)
def test_a_state_dict_is_found_however_the_model_was_wrapped(spk, tmp_path, how):
    state = spk.model().state_dict()
    torch.save(state, tmp_path / "plain.pt")
    torch.save(WRAPPED[how](dict(state)), tmp_path / "wrapped.pt")
    plain, wrapped = (pf.load(tmp_path / f"{name}.pt", energy_unit="eV") for name in ("plain", "wrapped"))
    for (name, want), (other, got) in zip(plain.state_dict().items(), wrapped.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(want, got), name


def test_a_model_in_data_parallel_is_that_model(spk, tmp_path):
    live = spk.model()
    spk.save(live, tmp_path / "plain")
    spk.save(torch.nn.DataParallel(live), tmp_path / "wrapped")
    plain, wrapped = (pf.load(tmp_path / name, energy_unit="eV").state_dict() for name in ("plain", "wrapped"))
    assert all(torch.equal(plain[name], wrapped[name]) for name in plain)


def test_two_models_in_one_file_are_not_chosen_between(spk, tmp_path):
    state = dict(spk.model().state_dict())
    two = {"state_dict": state, "model_state_dict": {name: value + 1 for name, value in state.items()}}
    torch.save(two, tmp_path / "two.pt")
    with pytest.raises(PaiNNFastError, match="2 models"):
        pf.load(tmp_path / "two.pt", energy_unit="eV")
    torch.save(state | {f"model.{name}": value for name, value in state.items()}, tmp_path / "both.pt")
    with pytest.raises(PaiNNFastError, match="several models"):
        pf.load(tmp_path / "both.pt", energy_unit="eV")


@pytest.mark.parametrize("number", ["900000000", "900_000_000", "9" * 30])
def test_a_number_that_an_xyz_file_does_not_keep_is_an_error_at_once(number, tmp_path):
    """ASE's reader takes a step for each atom and for each column that is promised."""
    many = "1\n\nH 0 0 0\n" + number + "\n\nH 0 0 0\n"
    wide = "1\nProperties=species:S:1:pos:R:3:forces:R:" + number + "\nH 0 0 0 0\n"
    for text, expected in ((many, f"got: 1 atoms; expected: {int(number)}"), (wide, "too many columns")):
        (tmp_path / "one.xyz").write_text(text)
        [(kind, line)] = forked.outcomes([0], lambda _: read_structures(tmp_path / "one.xyz"))
        assert kind == "error", line
        assert expected in line


def npy(header, data=b"", version=b"\x01\x00"):
    text = header.encode() if isinstance(header, str) else header
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def described(dtype="'<f8'", shape="(4,)", order="False"):
    return f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}}}\n"


ARRAYS = {
    "huge": npy(described(shape="(1000000000000,)"), b"\0" * 32),
    "overflow": npy(described(shape="(4611686018427387904, 4)"), b"\0" * 32),
    "negative": npy(described(shape="(-4, -1)"), b"\0" * 32),
    "too little": npy(described(), b"\0" * 31),
    "too much": npy(described(), b"\0" * 40),
    "objects": npy(described("'|O'"), pickle.dumps([1, 2, 3, 4])),
    "records": npy(described("[('a', '<f8')]"), b"\0" * 32),
    "subarrays": npy(described("('<f8', (1000000,))"), b"\0" * 32),
    "deep": npy("(" * 9000, b"\0" * 32),
    "signs": npy(described(shape="(" + "-" * 5000 + "4,)"), b"\0" * 32),
    "digits": npy(described(shape="(" + "9" * 5000 + ",)"), b"\0" * 32),
    "text": npy("import os", b"\0" * 32),
    "version": npy(described(), b"\0" * 32, version=b"\x09\x00"),
    "nothing": b"",
}


@pytest.mark.parametrize("what", ARRAYS)
def test_an_array_is_as_large_as_what_is_stored_of_it(tmp_path, what):
    (tmp_path / "a.npy").write_bytes(ARRAYS[what])
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("R.npy", ARRAYS[what])
    for read, name in ((load_npy, "a.npy"), (load_npz, "a.npz"), (check_npz, "a.npz")):
        with pytest.raises(PaiNNFastError, match=name):
            read(tmp_path / name)


def test_arrays_come_out_as_they_went_in(tmp_path):
    arrays = {
        "R": np.arange(12.0).reshape(2, 2, 3), "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"), "text": np.array("eV"), "texts": np.array(["å", "b"]),
        "empty": np.zeros((0, 3)), "flag": np.array(True),
    }  # fmt: skip
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = load_npz(tmp_path / "a.npz")
        assert found.keys() == arrays.keys()
        assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    np.save(tmp_path / "a.npy", arrays["fortran"])
    assert np.array_equal(load_npy(tmp_path / "a.npy"), arrays["fortran"])


def test_a_zip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(numpy_files, "SMALL", 2**20)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("R.npy", npy(described(shape="(1000000,)"), bytes(8 * 10**6)))
    with pytest.raises(PaiNNFastError, match="1 arrays, 80000"):
        load_npz(tmp_path / "a.npz")


def test_formats_that_hold_more_than_data_are_refused(tmp_path):
    for name, start in (("a.gpw", b""), ("octopus.inp", b"Coordinates\n"), ("inp", b"")):
        (tmp_path / name).write_bytes(start)
        with pytest.raises(PaiNNFastError, match=name):
            list(iread(tmp_path / name))
    (tmp_path / "inp").write_text('XYZCoordinates = "/etc/passwd"\n')
    with pytest.raises(PaiNNFastError, match=r"a format that is not read.*octopus-in"):
        read_structures(tmp_path / "inp")


def test_a_file_name_is_only_a_file_name(tmp_path):
    ase.io.write(tmp_path / "plain.xyz", [molecule("H2O")] * 3)
    (tmp_path / "plain.xyz").rename(tmp_path / "water@0.xyz")
    assert len(read_structures(tmp_path / "water@0.xyz")) == 3


def test_an_array_in_json_is_as_large_as_what_is_there(tmp_path):
    row = {"numbers": {"__ndarray__": [[10**12], "int64", [1]]}, "positions": [[0.0, 0.0, 0.0]]}
    (tmp_path / "set.json").write_text(json.dumps({"1": row, "ids": [1], "nextid": 2}))
    for read in (read_structures, lambda path: read_file(DataFile(file=str(path)))):
        [(kind, line)] = forked.outcomes([0], lambda _, read=read: read(tmp_path / "set.json"))
        assert kind == "error", line
        assert "array of shape" in line


def test_settings_and_quantities_of_odd_texts_end_in_words(tmp_path):
    for content in ("a = " + "9" * 5000, "a = " + "[" * 5000, "x." * 5000 + "y = 1", "\0", "# " + "x" * 2**21):
        (tmp_path / "settings.toml").write_text(content)
        with pytest.raises(PaiNNFastError, match=r"settings\.toml"):
            load_settings(MDSettings, tmp_path / "settings.toml")
    start = time.perf_counter()
    for content in ("1" * 100_000 + "\n1", "1 " + " " * 100_000 + "x\nx", "1" + "\n" * 50_000):
        with pytest.raises(PaiNNFastError):
            parse_quantity(content, "time")
    assert time.perf_counter() - start < 1.0


def test_an_error_is_one_line_of_bounded_length():
    error = PaiNNFastError(
        "x" * 5000, where="\n" * 9 + "y" * 5000, got=10**6000, expected=["z" * 900] * 90, fix="mend it"
    )
    assert len(str(error)) <= LONGEST
    assert "fix: mend it" in str(error)
    assert "cannot be printed" in str(error)
    assert len(str(PaiNNFastError("a" * 1900))) == 1900


@pytest.mark.parametrize(
    "error", [KeyError("x"), RecursionError(), MemoryError(), OverflowError("y"), struct.error("z")]
)
def test_whatever_a_decoder_raises_names_the_file(error):
    message = r"not a readable thing; where: file\.x; got: "
    with pytest.raises(PaiNNFastError, match=message) as caught, reading("not a readable thing", "file.x"):
        raise error
    assert caught.value.__cause__ is error
    own = PaiNNFastError("mine")
    with pytest.raises(PaiNNFastError) as passed, reading("other", "file.x"):
        raise own
    assert passed.value is own


def test_a_model_is_loaded_as_before(tmp_path):
    representation = {
        "n_features": 8,
        "n_layers": 2,
        "n_rbf": 4,
        "radial_basis": "gaussian",
        "shared_interactions": True,
    }
    potential = Potential(PotentialConfig.parse({"representation": representation}))
    save_model(potential, tmp_path / "model.safetensors")
    again = pf.load(tmp_path / "model.safetensors")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in potential.state_dict().items())
    assert torch.equal(potential.standard_masses, again.standard_masses)
