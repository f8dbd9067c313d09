"""Files that are either whole or not there, errors on one line, progress that can be read."""

import pytest

from painn_fast.atomic import atomic_write
from painn_fast.errors import PaiNNFastError
from painn_fast.progress import StatusLine, clock


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
        line.keep("the end, " + "however long " * 20)
    first, last = capsys.readouterr().err.splitlines()
    assert first == "step 0"
    assert last.endswith("however long ")


def test_narrow_terminal_shows_the_whole_line(monkeypatch, capsys):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "30"}.items():
        monkeypatch.setenv(name, value)
    with StatusLine() as line:
        line.update("run 2.195 of 3.000 ps | T 318 K | 0.277 ns/day | 4:12 left")
    assert "4:12 left" in capsys.readouterr().err
