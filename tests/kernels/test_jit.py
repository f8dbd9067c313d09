"""Compilation, and where its results are kept."""

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from painn_fast.kernels import jit as module

ROOT = Path(__file__).resolve().parents[2]
CALL = """
import json, sys, time
import torch
from painn_fast.kernels import jit
from painn_fast.kernels.neighbors import cpu
kept = [jit.is_kept(cpu.count_kernel)]
positions = torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, 0, 5]], dtype=torch.float64)
start = time.perf_counter()
row_ptr, _, _ = cpu.neighbors(positions, torch.tensor([0, 3]), 2.0)
taken = time.perf_counter() - start
kernel = cpu.count_kernel
kept.append(jit.is_kept(kernel))
hits, misses = (sum(counts.values()) for counts in (kernel.stats.cache_hits, kernel.stats.cache_misses))
print(json.dumps([row_ptr.tolist(), hits, misses, kernel.stats.cache_path, taken, kept]))
"""


def test_compiles_without_a_cache_where_nothing_can_be_written(monkeypatch):
    def no_folder(_):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(module._Function, "enable_caching", no_folder)
    kernel = module.compiled()(twice)
    assert kernel(4) == 8
    assert kernel.stats.cache_path is None
    assert not module.is_kept(kernel)


def twice(number):
    return 2 * number


def run(code, path, home, **variables):
    """Standard output of a new interpreter that imports from `path` and keeps its caches under `home`."""
    process = start(code, path, home, **variables)
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    return printed.strip()


def start(code, path, home, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    environment |= {"PYTHONPATH": str(path), "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), **variables}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=home, env=environment, stdout=pipe, stderr=pipe, text=True
    )


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_a_second_process_reads_from_the_home_folder_where_the_package_cannot_be_written(tmp_path, home):
    package = tmp_path / "site" / "painn_fast"
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "painn_fast", package, ignore=skip)
    shutil.copytree(ROOT / "kernels", package / "kernels", ignore=skip)
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").touch()  # a file where a folder should be stops root as well
    first, second = (json.loads(run(CALL, tmp_path / "site", home)) for _ in range(2))
    assert first[0] == second[0] == [0, 1, 2, 2]
    assert (first[1], first[2]) == (0, 1)
    assert (second[1], second[2]) == (1, 0), "compiled again"
    assert Path(second[3]).is_relative_to(home)
    assert second[4] < first[4]
    assert (first[5], second[5]) == ([False, True], [True, True])


def toy(folder, number):
    """A package whose module `b` calls `a`, which returns `number`."""
    package = folder / "toy"
    package.mkdir(exist_ok=True)
    head = "from painn_fast.kernels.jit import compiled\n"
    (package / "__init__.py").touch()
    (package / "a.py").write_text(f"{head}\n@compiled()\ndef one():\n    return {number}\n")
    (package / "b.py").write_text(f"{head}from toy.a import one\n\n@compiled()\ndef two():\n    return 10 * one()\n")


RAISING = """from painn_fast.kernels.jit import compiled

@compiled()
def inner(number):
    if number < 0:
        raise ValueError("a negative number")
    return number

@compiled()
def outer(number):
    return inner(number) + 1
"""


def test_an_error_of_a_function_that_compiled_code_calls_arrives_from_the_cache_too(tmp_path, home):
    (tmp_path / "raising.py").write_text(RAISING)
    call = """
from raising import inner, outer
try:
    print(outer(1), outer(-1))
except ValueError as error:
    print(error, sum(outer.stats.cache_hits.values()), len(inner.overloads))
"""
    assert [run(call, tmp_path, home) for _ in range(2)] == ["a negative number 0 0", "a negative number 1 0"]


def test_what_python_and_compiled_code_call_is_compiled_for_both(tmp_path, home):
    (tmp_path / "raising.py").write_text(RAISING)
    call = "from raising import inner, outer; print(outer(1), inner(1), outer(2.5), inner(2.5))"
    assert [run(call, tmp_path, home) for _ in range(2)] == ["2 1 3.5 2.5"] * 2


TWO = "from toy.b import two; print(two(), sum(two.stats.cache_hits.values()))"


def test_a_change_in_another_file_is_noticed(tmp_path, home):
    printed = []
    for number in (1, 2, 2):
        toy(tmp_path, number)
        printed.append(run(TWO, tmp_path, home))
    assert printed == ["10 0", "20 0", "20 1"]


def test_each_processor_has_a_cache_of_its_own(tmp_path, home):
    toy(tmp_path, 1)
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    printed = [run(TWO, tmp_path, home, **variables) for variables in ({}, plain, {})]
    assert printed == ["10 0", "10 0", "10 1"]
    assert len(list((tmp_path / "toy" / "__pycache__").glob("b.two*.nbi"))) == 2


@pytest.mark.parametrize(
    ("features", "sizes"),
    [
        ("+avx,+avx2,+avx512f", "16 64"),
        ("+avx,+avx2,-avx512f", "8 16"),
        ("+sse2,-avx,-avx512f", "4 8"),
        ("+fp-armv8,+neon", "4 16"),
    ],
)
def test_vectors_and_tiles_follow_the_features_that_the_cache_is_kept_by(features, sizes, tmp_path, home):
    script = "from painn_fast.kernels.dense.cpu import LANES, panel_width; print(LANES, panel_width(384, 4))"
    assert run(script, tmp_path, home, NUMBA_CPU_FEATURES=features) == sizes


def test_two_processes_that_compile_at_once_never_find_each_others_code(tmp_path, monkeypatch):
    one, other = (module._CacheFile(str(tmp_path), "kernel", "stamp") for _ in range(2))
    before = one._load_index()
    other.save("theirs", b"code of theirs")
    monkeypatch.setattr(one, "_load_index", lambda: dict(before))  # read before the other wrote
    one.save("ours", b"code of ours")
    reader = module._CacheFile(str(tmp_path), "kernel", "stamp")
    assert reader.load("ours") == b"code of ours"
    assert reader.load("theirs") in (None, b"code of theirs")
    other.save("theirs", b"code of theirs")
    assert [reader.load(key) for key in ("ours", "theirs")] == [b"code of ours", b"code of theirs"]
    assert len(list(tmp_path.glob("*.nbc"))) == 2


def test_code_of_earlier_versions_is_removed(tmp_path, home):
    head = "from painn_fast.kernels.jit import compiled\n"
    call = "from pathlib import Path; from one import one; one(1); one(2.0); print(Path(one._cache._lock_path).parent)"
    for number, above in (1, ""), (2, ""), (2, "\n\n"):
        (tmp_path / "one.py").write_text(f"{head}{above}@compiled()\ndef one(x):\n    return {number} + x\n")
        folder = Path(run(call, tmp_path, home))
        assert [len(list(folder.glob(f"one.one*.{kind}"))) for kind in ("nbi", "nbc")] == [1, 2]


def test_of_two_processes_one_compiles_and_the_other_waits(tmp_path, home):
    toy(tmp_path, 1)
    call = "from toy.b import two; print(two(), sum(two.stats.cache_misses.values()))"
    with ThreadPoolExecutor(3) as pool:
        printed = list(pool.map(lambda _: run(call, tmp_path, home), range(3)))
    assert sorted(printed) == ["10 0", "10 0", "10 1"]


def test_a_function_that_cannot_be_compiled_leaves_no_lock(tmp_path, home):
    (tmp_path / "untyped.py").write_text("""from painn_fast.kernels.jit import compiled

@compiled()
def wrong(number):
    return number.nothing
""")
    call = """
from numba import TypingError
from untyped import wrong
for _ in range(2):
    try:
        wrong(1)
    except TypingError:
        print("refused", wrong._cache._lock)
"""
    assert run(call, tmp_path, home) == "refused None\nrefused None"


@pytest.mark.skipif(module.fcntl is None, reason="no locks here")
def test_a_wait_for_another_process_that_compiles_is_reported(tmp_path, home):
    head = "from painn_fast.kernels.jit import compiled\n@compiled(notice=('a slow kernel', 7.2))\n"
    (tmp_path / "slow.py").write_text(f"{head}def slow():\n    return 1\n")
    path = run("from slow import slow; print(slow._cache._lock_path)", tmp_path, home)
    call = "import sys; sys.stderr = sys.stdout; from slow import slow; print(slow())"
    with open(path, "w") as lock:
        module.fcntl.flock(lock, module.fcntl.LOCK_EX)
        process = start(call, tmp_path, home)
        first = process.stdout.readline()
    rest, _ = process.communicate()
    assert first == "waiting for another process that compiles a slow kernel\n"
    assert rest.splitlines()[-1] == "1"


def test_long_compilation_is_reported_once(tmp_path, home):
    (tmp_path / "slow.py").write_text("""from painn_fast.kernels.jit import compiled

@compiled(notice=("a slow kernel", 7.2))
def slow():
    return 1

@compiled(notice=("a fast kernel", 0.5))
def fast():
    return 1
""")
    call = "import sys; sys.stderr = sys.stdout; from slow import slow, fast; print(slow(), fast(), slow())"
    assert [run(call, tmp_path, home) for _ in range(2)] == [
        "compiling a slow kernel for this processor, once: about 7 s\n1 1 1",
        "1 1 1",
    ]


class Gone(NamedTuple):
    """A type that a later version of a package does not have."""

    number: int


def test_code_kept_for_a_type_that_no_longer_exists_is_compiled_anew(tmp_path, monkeypatch):
    cache = module._CacheFile(str(tmp_path), "kernel", "stamp")
    cache.save(Gone(1), b"code of before")
    assert cache.load(Gone(1)) == b"code of before"
    monkeypatch.delattr(sys.modules[__name__], "Gone")
    assert cache.load("now") is None
    cache.save("now", b"code of now")
    assert cache.load("now") == b"code of now"


def test_the_clock_of_limits_stands_during_compilation():
    kernel = module.compiled()(twice)
    start, working = time.monotonic(), module.working_time()
    assert kernel(2.5) == 5.0
    between, passed = time.monotonic() - start, module.working_time() - working
    compiling = module._compiling[-1]
    assert 0 < compiling <= between
    assert passed == pytest.approx(between - compiling, abs=0.01)


def test_code_shares_no_part_with_code_of_other_processes(home):
    """Whose parts can have the same names: the first that is loaded would be called by both."""
    code = """
import numpy as np
from painn_fast.kernels.dense.cpu import matmul, pack
a = np.ones((9, 48), np.float32)
matmul(a, pack(np.ones((48, 48), np.float32)), np.zeros(48, np.float32), np.empty((9, 48), np.float32))
(compiled,) = matmul.overloads.values()
print(*(one.name for one in compiled.library._final_module.functions if one.linkage.name in ("linkonce_odr", "weak")))
"""
    assert run(code, Path(module.__file__).parents[2], home) == ""
