"""Files that are written whole or not at all, errors on one line, progress that can be read."""

import os

import pytest
import torch

from painn_fast.errors import PaiNNFastError
from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.progress import StatusLine, clock


def test_file_is_there_when_all_is_written(tmp_path):
    target = tmp_path / "new folder" / "file.txt"
    with atomic_write(target) as path:
        path.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_old_file_stays_when_writing_fails(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def write_half():
        with atomic_write(target) as path:
            path.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_error_is_one_line_whatever_it_is_about():
    error = PaiNNFastError("wrong", where="a\nb", got="\x1b[2Jx", expected=1, fix="mend it")
    assert str(error) == "wrong; where: a b; got: \\x1b[2Jx; expected: 1; fix: mend it"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3725, "1:02:05"), (-3, "0:00")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_log_gets_a_line_now_and_then_and_all_that_is_kept(capsys):
    with StatusLine(every=1000.0) as line:
        for k in range(5):
            line.update(f"step {k}")
        line.keep("the end, " + "however long it is, " * 20 + "stays")
    first, last = capsys.readouterr().err.splitlines()
    assert first == "step 0"
    assert last.endswith("however long it is, stays")


def test_narrow_terminal_shows_the_whole_line(monkeypatch, capsys):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "30"}.items():
        monkeypatch.setenv(name, value)
    with StatusLine() as line:
        line.update("run 2.195 of 3.000 ps | T 318 K | 0.277 ns/day | 4:12 left")
    assert "4:12 left" in capsys.readouterr().err


class Recorded:
    """The calls that make files durable, in order: ("fsync", path), ("replace", from, to)."""

    def __init__(self, monkeypatch):
        self.calls = []
        self._fsync, self._replace, self._open = os.fsync, os.replace, os.open
        for name in ("fsync", "replace"):
            monkeypatch.setattr(os, name, getattr(self, name))

    def fsync(self, descriptor):
        self.calls.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        self._fsync(descriptor)

    def replace(self, source, target):
        self.calls.append(("replace", str(source), str(target)))
        self._replace(source, target)

    def assert_durable(self, path):
        """The content before the name, then the folder: a power cut at any moment leaves the old file or the new."""
        folder = str(path.parent)
        renames = [k for k, call in enumerate(self.calls) if call[0] == "replace" and call[2] == str(path)]
        assert renames, f"nothing took the name {path}"
        source, name = self.calls[renames[-1]][1], str(path)
        while True:  # back to where the content was written
            first = self.calls.index(("replace", source, name))
            before = [call for call in self.calls[:first] if call[0] == "replace" and call[2] == source]
            if not before:
                break
            source, name = before[-1][1], source
        assert ("fsync", source) in self.calls[:first], f"{source} had its name before it was on the disk"
        assert ("fsync", folder) in self.calls[renames[-1] :], f"the name {path.name} is not on the disk"


OF_RUNS = ("restart.safetensors", "trajectory.h5", "settings.toml")


def write_restarts(folder):
    from ase import Atoms
    from force_fields import Morse

    from painn_fast.md import MDSettings, run

    values = {"output": str(folder / "run"), "duration": "1 fs", "energies_every": "0.5 fs", "checkpoint": "0 s"}
    run(MDSettings.parse(values), force_field=Morse(), atoms=Atoms("OH", positions=[[0, 0, 0], [1.4, 0, 0]]))
    return [folder / "run" / name for name in OF_RUNS]


def write_checkpoints(folder):
    from painn_fast.runtime import checkpoint

    for step in (1, 2):
        checkpoint.save_newest(folder / "checkpoint.safetensors", {"a": torch.ones(2)}, {"step": step})
    return [folder / "checkpoint.safetensors"]


def write_models(folder):
    from painn_fast.io import convert, save_model
    from painn_fast.nn import PotentialConfig, RepresentationConfig
    from painn_fast.testing import random_potential

    config = PotentialConfig(representation=RepresentationConfig(n_features=4, n_layers=1, n_rbf=3))
    save_model(random_potential(config), folder / "new" / "model.safetensors")
    convert(folder / "new" / "model.safetensors", folder / "state.pt")
    return [folder / "new" / "model.safetensors", folder / "state.pt"]


def write_correlations(folder):
    from painn_fast.correlation.series import SpectrumStreams

    SpectrumStreams({"dipole": 1.0}, 5.0).save(folder)
    return [folder / "correlations.npz"]


def write_hdf5(folder):
    from painn_fast.runtime.hdf5 import new_hdf5

    with new_hdf5(folder / "file.h5") as (file, _):
        file["a"] = 1.0
    return [folder / "file.h5"]


def write_text(folder):
    with atomic_write(folder / "one" / "two" / "file.txt") as path:
        path.write_text("whole")
    return [folder / "one" / "two" / "file.txt"]


WRITERS = (write_text, write_restarts, write_checkpoints, write_models, write_correlations, write_hdf5)
LINUX = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="names of open files come from /proc")


@LINUX
@pytest.mark.parametrize("writer", WRITERS)
def test_every_file_is_on_the_disk_before_its_name_and_its_name_before_anything_else(tmp_path, monkeypatch, writer):
    recorded = Recorded(monkeypatch)
    for path in writer(tmp_path):
        assert path.exists()
        recorded.assert_durable(path)


@LINUX
def test_a_new_folder_is_on_the_disk(tmp_path, monkeypatch):
    recorded = Recorded(monkeypatch)
    write_text(tmp_path)
    synced = [call[1] for call in recorded.calls if call[0] == "fsync"]
    assert synced[:2] == [str(tmp_path), str(tmp_path / "one")]


@LINUX
def test_every_line_of_a_journal_is_on_the_disk_before_the_next(tmp_path, monkeypatch):
    from painn_fast.label.journal import Journal

    recorded = Recorded(monkeypatch)
    path = tmp_path / "out.journal"
    with Journal(path, {"method": "none"}) as journal:
        assert recorded.calls == [("fsync", str(path)), ("fsync", str(tmp_path))]
        for k in range(3):
            journal.add(k, {"energy": 1.0})
            assert recorded.calls[2 + k :] == [("fsync", str(path))]
            assert path.read_bytes().count(b"\n") == 2 + k


@LINUX
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("lost", ["file", "folder"])
def test_a_sync_that_is_left_out_is_noticed(tmp_path, monkeypatch, writer, lost):
    recorded = Recorded(monkeypatch)
    paths = writer(tmp_path)
    folders = [str(path.parent) for path in paths]
    recorded.calls = [call for call in recorded.calls if call[0] != "fsync" or (call[1] in folders) == (lost == "file")]
    for path in paths:
        with pytest.raises(AssertionError, match="on the disk"):
            recorded.assert_durable(path)


@LINUX
def test_a_name_before_its_content_is_noticed(tmp_path, monkeypatch):
    recorded = Recorded(monkeypatch)
    (path,) = write_text(tmp_path)
    recorded.calls = [call for call in recorded.calls if call[0] == "replace"] + recorded.calls
    recorded.calls = [call for k, call in enumerate(recorded.calls) if call[0] != "replace" or k == 0]
    with pytest.raises(AssertionError, match="before it was on the disk"):
        recorded.assert_durable(path)


def test_an_error_names_the_file_that_the_user_named(tmp_path):
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory") as caught, atomic_write(tmp_path / "taken") as path:
        path.write_text("whole")
    assert caught.value.filename == str(tmp_path / "taken")
    assert caught.value.filename2 is None
