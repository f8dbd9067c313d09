"""Two versions beside each other: each runs its own code, and a slower one is found to be slower."""

import shutil
from pathlib import Path

import pytest
from bench_script import BENCH, bench_script

ROOT = BENCH.parent


@pytest.fixture(scope="module")
def against():
    with bench_script("against") as module:
        yield module


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A checkout with one change to its benchmark; its kernels are ours."""
    folder, changed_file = tmp_path_factory.mktemp("other"), Path("painn_fast") / "bench" / "sides.py"
    shutil.copytree(ROOT / "painn_fast", folder / "painn_fast", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "kernels").symlink_to(ROOT / "kernels")

    def changed(before, after):
        text = (ROOT / changed_file).read_text(encoding="utf-8")
        assert before in text
        (folder / changed_file).write_text(text.replace(before, after), encoding="utf-8")
        return folder

    return changed


CALL = "lambda: engine(workspace, batch.positions, names)"


def test_a_version_that_sleeps_takes_longer(against, other, capsys):
    folder = other(CALL, f"lambda: (__import__('time').sleep(0.05), {CALL.removeprefix('lambda: ')})[1]")
    against.main([str(folder), "ethanol-1:energy_forces", "--rounds", "3", "--threads", "1"])
    head, row = (line.split("  ") for line in capsys.readouterr().out.splitlines())
    values = dict(zip(*([cell.strip() for cell in cells if cell.strip()] for cells in (head, row)), strict=True))
    assert (values["case"], values["mode"]) == ("ethanol-1", "energy_forces")
    assert float(values["before / ms"]) > 50 > float(values["now / ms"])
    assert float(values["now / before"]) < float(values["now / ms"]) / 40


def test_a_version_with_wrong_numbers_has_no_time(against, other, capfd):
    folder = other(CALL, f"lambda: {{key: 1.01 * value for key, value in ({CALL.removeprefix('lambda: ')}).items()}}")
    with pytest.raises(SystemExit, match=r"does not run ethanol-1:energy_forces"):
        against.main([str(folder), "ethanol-1:energy_forces", "--rounds", "2", "--threads", "1"])
    assert "wrong numbers" in capfd.readouterr().err


def test_packages_are_those_of_the_folder(against, tmp_path):
    finder = against.Checkout(tmp_path)
    for name, origin in (("painn_fast", "painn_fast"), ("painn_fast.kernels", "kernels")):
        spec = finder.find_spec(name, None)
        assert Path(spec.origin) == tmp_path / origin / "__init__.py"
        assert spec.submodule_search_locations == [str(tmp_path / origin)]
    assert finder.find_spec("painn_fast.nn", None) is None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere", "ethanol-1:forward"], "no checkout of painn-fast"),
        ([str(ROOT), "ethanol-1"], "CASE:MODE expected"),
        ([str(ROOT), "ethanol-1:forward", "--rounds", "1"], "--rounds: 2 or more expected"),
    ],
)
def test_a_call_that_cannot_work_says_why(against, arguments, reason, capsys):
    with pytest.raises(SystemExit):
        against.main(arguments)
    assert reason in capsys.readouterr().err
