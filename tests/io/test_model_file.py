"""Our own model files: what is written is what is read, and an error names the key."""

import json
import random
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.io import convert, load_model, save_model
from painn_fast.io.find import MODELS, bundled
from painn_fast.io.model_file import VERSION, fingerprint
from painn_fast.nn import (
    DipoleHead,
    ElectronicConfig,
    EnergyHead,
    PolarizabilityHead,
    PotentialConfig,
    RepresentationConfig,
    ScalarHead,
    SpatialExtentHead,
)
from painn_fast.testing import random_potential

CONFIG = PotentialConfig(
    representation=RepresentationConfig(
        n_features=8, n_layers=2, n_rbf=5, charge_embedding=ElectronicConfig(), cutoff_function="switch", switch_on=2.0
    ),
    heads=(
        EnergyHead(hidden=(5, 3)),
        DipoleHead(magnitude=True),
        PolarizabilityHead(),
        SpatialExtentHead(),
        ScalarHead(name="gap", unit="eV", aggregation="mean"),
    ),
    energy_unit="kcal/mol",
    elements=(1, 6, 8),
    name="odd one",
    provenance={"data": "none", "level of theory": "é"},
)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(random_potential(CONFIG, dtype=torch.float32), path)
    return path


def header_of(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["painn_fast"])


def rewrite(path, *, header=None, change=None):
    """Write the file anew with another header, or after a change of its tensors, the SHA-256 left as it was."""
    tensors = load_file(path)
    header = header if header is not None else header_of(path)
    if change is not None:
        change(tensors)
    save_file(tensors, path, metadata={"painn_fast": header if isinstance(header, str) else json.dumps(header)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_what_is_written_is_read_bit_for_bit(tmp_path, dtype):
    potential = random_potential(CONFIG, dtype=dtype)
    save_model(potential, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.config == CONFIG
    assert again.dtype == dtype
    assert not again.training
    mine, theirs = potential.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(mine[name].dtype == theirs[name].dtype and torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("painn_fast.io.model_file.as_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(random_potential(CONFIG), saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def drop(name):
    return lambda tensors: tensors.pop(name)


def put(name, value):
    return lambda tensors: tensors.update({name: value})


def one_bit(tensors):
    tensors["representation.embedding.weight"].view(torch.int32)[6, 3] ^= 1


WEIGHT = "representation.filter.weight"
CHANGES = {
    "missing": (drop(WEIGHT), r"missing key.*'representation\.filter\.weight'"),
    "unexpected": (put("heads.energy.extra", torch.ones(2)), r"unexpected key.*'heads\.energy\.extra'"),
    "shape": (put(WEIGHT, torch.ones(3, 5)), r"wrong shape.*filter\.weight.*got: \(3, 5\).*expected: \(48, 5\)"),
    "dtype": (put(WEIGHT, torch.ones(48, 5, dtype=torch.int64)), r"wrong dtype.*filter\.weight.*int64"),
    "NaN": (put(WEIGHT, torch.full((48, 5), torch.nan)), r"not finite.*filter\.weight"),
    "infinite": (put("heads.gap.mean", torch.tensor(torch.inf, dtype=torch.float64)), r"not finite.*heads\.gap\.mean"),
    "one bit": (one_bit, r"not those that were written.*SHA-256"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_tensor_is_named(saved, what):
    change, message = CHANGES[what]
    rewrite(saved, change=change)
    with pytest.raises(PaiNNFastError, match=message) as caught:
        pf.load(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def with_config(**values):
    return lambda header: header["config"].update(values)


def with_representation(**values):
    return lambda header: header["config"]["representation"].update(values)


HEADERS = {
    "format": (lambda header: header.update(format="another"), r"not a painn-fast model.*another"),
    "later version": (lambda header: header.update(version=3), r"another version.*got: 3.*update painn-fast"),
    "no hash": (lambda header: header.pop("config_sha256"), r"without a hash of its configuration.*config_sha256"),
    "no hash of the file": (lambda header: header.pop("file_sha256"), r"without its hash.*file_sha256"),
    "another name": (lambda header: header.update(file_sha256="0" * 64), r"file is not the one that was written"),
    "no configuration": (lambda header: header.pop("config"), r"no configuration"),
    "unknown key": (with_config(cutof=3.0), r"unknown key 'cutof'"),
    "unknown head": (with_config(heads=[{"type": "spin"}]), r"heads"),
    "unknown unit": (with_config(energy_unit="foot-pound"), r"energy_unit.*foot-pound"),
    "changed cut-off": (with_representation(cutoff=6.0), r"configuration is not the one that was written"),
    "changed unit": (with_config(energy_unit="eV"), r"configuration is not the one that was written"),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_changed_header_is_named(saved, what):
    change, message = HEADERS[what]
    header = header_of(saved)
    change(header)
    rewrite(saved, header=header)
    with pytest.raises(PaiNNFastError, match=message):
        pf.load(saved)


@pytest.mark.parametrize("key", ["n_features", "n_layers", "n_rbf", "max_z"])
def test_a_header_cannot_ask_for_a_huge_network(saved, key):
    header = header_of(saved)
    header["config"]["representation"][key] = 10**12
    del header["config_sha256"]
    rewrite(saved, header=header)
    with pytest.raises(PaiNNFastError, match=r"configuration does not fit the weights.*1000000000000"):
        pf.load(saved)


def test_a_header_that_is_not_ours_is_refused(saved):
    rewrite(saved, header="{not json")
    with pytest.raises(PaiNNFastError, match="header is not JSON"):
        pf.load(saved)
    save_file({"a": torch.ones(1)}, saved)
    with pytest.raises(PaiNNFastError, match="without a painn-fast header"):
        pf.load(saved)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.01, 0.3, 0.999])
def test_a_truncated_file_is_one_clear_line(saved, part):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(part * len(data))])
    with pytest.raises(
        PaiNNFastError, match=r"not a readable safetensors|an empty file|neither a painn-fast"
    ) as caught:
        pf.load(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bit_flipped_in_any_byte_is_noticed(saved):
    """Of tensors, names, configuration, hashes, and what lies between them."""
    data, rng = saved.read_bytes(), random.Random(0)
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for place in (*range(8), *range(8, header, 17), *range(header, len(data), 397)):
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(8)
        saved.write_bytes(changed)
        with pytest.raises(PaiNNFastError):
            pf.load(saved)


def as_version_1(path, **changes):
    """The file as earlier versions wrote it."""
    header = header_of(path) | {"version": 1}
    del header["file_sha256"]
    rewrite(path, header={key: value for key, value in (header | changes).items() if value is not None})


@pytest.mark.parametrize("hashed", [True, False])
def test_a_file_of_version_1_is_read_with_a_note_and_rewritten_bit_for_bit(saved, tmp_path, hashed):
    expected = pf.load(saved)
    as_version_1(saved, **({} if hashed else {"config_sha256": None}))
    with pytest.warns(UserWarning, match=r"of version 1.*damage to it may go unnoticed.*convert"):
        old = pf.load(saved)
    save_model(old, tmp_path / "new.safetensors")
    new = pf.load(tmp_path / "new.safetensors")
    assert header_of(tmp_path / "new.safetensors")["version"] == 2
    assert old.config == new.config == expected.config
    mine = new.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in expected.state_dict().items())
    assert fingerprint(mine) == header_of(saved)["sha256"]


def test_convert_replaces_a_file_of_version_1(saved):
    as_version_1(saved)
    with pytest.warns(UserWarning, match="of version 1"):
        convert(saved, saved, overwrite=True)
    assert pf.load(saved).config == CONFIG


def test_a_hash_that_a_file_of_version_1_has_must_be_right(saved):
    as_version_1(saved, config_sha256="0" * 64)
    with pytest.raises(PaiNNFastError, match="configuration is not the one that was written"):
        pf.load(saved)


@pytest.mark.parametrize("name", bundled())
def test_bundled_models_are_of_the_present_version(name):
    assert header_of(MODELS / f"{name}.safetensors")["version"] == VERSION
