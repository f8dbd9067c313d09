"""Checkpoints and other signed files: what is written is read bit for bit, and a bit flipped anywhere is noticed."""

import io
import json
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from painn_fast.errors import PaiNNFastError
from painn_fast.runtime import checkpoint
from painn_fast.runtime.signature import npz_intact, read_line, signed_line, signed_npz

TENSORS = {
    "state.0.positions": torch.linspace(-1, 1, 12, dtype=torch.float64).view(1, 2, 2, 3),
    "state.0.alive": torch.tensor([True, False]),
    "empty": torch.zeros(0, 0),
    "odd": torch.arange(3, dtype=torch.uint8),
    "number": torch.tensor(7),
}
NUMBERS = {"step": 3, "settings": {"model": 'é "file_sha256": "', "file_sha256": "0" * 64}, "model": "ab"}


def every_flip(data, seed=0):
    """The data with one bit flipped, in turn in every byte."""
    rng = random.Random(seed)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(8)
        yield place, bytes(changed)


def test_what_is_written_is_read_bit_for_bit(tmp_path):
    checkpoint.save(tmp_path / "one.safetensors", TENSORS, NUMBERS)
    tensors, numbers = checkpoint.load(tmp_path / "one.safetensors")
    assert numbers == NUMBERS
    assert tensors.keys() == TENSORS.keys()
    assert all(
        tensors[name].dtype == value.dtype and torch.equal(tensors[name], value) for name, value in TENSORS.items()
    )


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in "ab":
        checkpoint.save(tmp_path / name, TENSORS, NUMBERS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("bits", range(3))
def test_a_bit_flipped_in_any_byte_of_a_checkpoint_is_noticed(tmp_path, bits):
    path = tmp_path / "one.safetensors"
    checkpoint.save(path, TENSORS, NUMBERS)
    for place, changed in every_flip(path.read_bytes(), bits):
        path.write_bytes(changed)
        with pytest.raises(PaiNNFastError, match=r"one\.safetensors"):
            assert checkpoint.load(path) is None, f"the flip in byte {place} was not noticed"


def test_a_checkpoint_without_a_hash_is_refused_in_words(tmp_path):
    path = tmp_path / "old.safetensors"
    save_file(TENSORS, path, metadata={"numbers": json.dumps({"step": 3})})
    with pytest.raises(
        PaiNNFastError, match=r"a checkpoint without a hash; where: .*old\.safetensors.*expected: the SHA-256"
    ):
        checkpoint.load(path)


def test_two_checkpoints_are_kept_and_the_newest_that_can_be_read_is_taken(tmp_path):
    path = tmp_path / "run.safetensors"
    assert checkpoint.load_newest(path, checkpoint.load) == (None, [])
    for step in (1, 2, 3):
        checkpoint.save_newest(path, TENSORS, {"step": step})
    previous = tmp_path / "run.previous.safetensors"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["run.previous.safetensors", "run.safetensors"]
    (_, numbers), failed = checkpoint.load_newest(path, checkpoint.load)
    assert (numbers["step"], failed) == (3, [])
    path.write_bytes(path.read_bytes()[:-1])
    (_, numbers), failed = checkpoint.load_newest(path, checkpoint.load)
    assert numbers["step"] == 2
    assert [error.where for error in failed] == [path]
    checkpoint.set_aside(failed)
    checkpoint.save_newest(path, TENSORS, {"step": 4})  # the damaged one does not become the one before
    assert checkpoint.load(previous)[1]["step"] == 2
    for one in (path, previous):
        one.write_bytes(one.read_bytes()[:-1])
    with pytest.raises(PaiNNFastError, match=r"no checkpoint here can be read.*run\.safetensors.*run\.previous"):
        checkpoint.load_newest(path, checkpoint.load)


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_wherever_writing_the_newest_stops_one_can_be_read(tmp_path, monkeypatch, links):
    """After every call that changes a name, on file systems with and without hard links."""
    import os

    path = tmp_path / "run.safetensors"
    for step in (1, 2):
        checkpoint.save_newest(path, TENSORS, {"step": step})
    seen = []

    def watched(call):
        def run(*arguments):
            call(*arguments)
            seen.append(checkpoint.load_newest(path, checkpoint.load)[0][1]["step"])

        return run

    def refused(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "replace", watched(os.replace))
    monkeypatch.setattr(os, "link", os.link if links else refused)
    checkpoint.save_newest(path, TENSORS, {"step": 3})
    assert seen == [3, 3, 3]
    monkeypatch.undo()
    assert [checkpoint.load(one)[1]["step"] for one in checkpoint.existing(path)] == [3, 2]


def test_a_bit_flipped_in_any_byte_of_an_archive_is_noticed(tmp_path):
    data = signed_npz({"a": np.arange(5.0), "b": np.array("text")})
    assert np.load(io.BytesIO(data)).files == ["a", "b"]
    assert npz_intact(data)
    (tmp_path / "a.npz").write_bytes(data)
    with np.load(tmp_path / "a.npz") as file:
        assert file["a"].tolist() == [0, 1, 2, 3, 4]
    assert not any(npz_intact(changed) for _, changed in every_flip(data))


def test_a_bit_flipped_in_any_byte_of_a_line_is_noticed():
    values = {"structure": 3, "energy": -1.5e-7, "word": "é", "line_sha256": "x"}
    line = signed_line(values).encode()
    assert read_line(line) == values
    assert all(read_line(changed) is None for _, changed in every_flip(line))
