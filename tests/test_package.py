"""The package as people get it: built, unpacked, imported."""

import ast
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import painn_fast

ROOT = Path(__file__).resolve().parents[1]
MODULES = {"torch-sim-atomistic": "torch_sim"}
"""Of distributions that are not called as their module."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel built from the source distribution, which is built from the tracked and new files of this checkout."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def in_repository(folder, pattern):
    return [path for path in (ROOT / folder).rglob(pattern) if "__pycache__" not in path.parts]


def test_wheel_has_no_top_level_name_but_ours(contents):
    top = {name.split("/")[0] for name in contents}
    assert top == {"painn_fast", f"painn_fast-{painn_fast.__version__}.dist-info"}


def test_wheel_holds_every_file_of_kernels(contents):
    expected = {
        f"painn_fast/kernels/{path.relative_to(ROOT / 'kernels').as_posix()}"
        for path in in_repository("kernels", "*")
        if path.is_file()
    }
    assert "painn_fast/kernels/__init__.py" in expected
    assert expected <= contents, f"missing: {expected - contents}"


def test_wheel_holds_every_module_and_data_file(contents):
    expected = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.py", "py.typed", "models/*", "train/configs/*")
        for path in in_repository("painn_fast", pattern)
    }
    assert {"painn_fast/py.typed", "painn_fast/models/ethanol.safetensors"} <= expected
    assert expected <= contents, f"missing: {expected - contents}"


def test_every_folder_with_code_is_a_package():
    for top in ("painn_fast", "kernels"):
        for path in in_repository(top, "*.py"):
            assert (path.parent / "__init__.py").is_file(), f"{path.parent} lacks __init__.py"


def test_version_is_the_installed_one():
    assert metadata.version("painn-fast") == painn_fast.__version__


def test_kernels_are_importable_in_this_installation():
    import painn_fast.kernels

    assert painn_fast.kernels.__name__ == "painn_fast.kernels"


def run_python(code, folder, *path):
    """Python without site-packages, so that no editable installation helps."""
    return subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=folder,
        env={"PYTHONPATH": ":".join(map(str, path))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_plain_kernels_cannot_be_imported():
    result = run_python("import kernels", ROOT)
    assert result.returncode == 1
    assert "painn_fast.kernels" in result.stderr.splitlines()[-1]


def test_source_folder_shadowing_a_wheel_says_how_to_mend_it(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    result = run_python("import painn_fast", ROOT, tmp_path)
    assert result.returncode == 1
    assert "pip install -e ." in result.stderr.splitlines()[-1]
    elsewhere = run_python("import painn_fast", tmp_path)
    assert elsewhere.returncode == 0, elsewhere.stderr


def test_import_is_light():
    code = "import sys, painn_fast; heavy = {'torch', 'numpy', 'ase'} & set(sys.modules); assert not heavy, heavy"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", painn_fast.__all__)
def test_curated_names_exist(name):
    assert getattr(painn_fast, name).__name__ == name


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="painns"):
        _ = painn_fast.painns


def imported_distributions():
    """Top-level modules that the package imports anywhere, without the standard library and itself."""
    found = set()
    for folder in ("painn_fast", "kernels"):
        for path in in_repository(folder, "*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"painn_fast"}


def test_declared_dependencies_are_those_that_are_imported():
    declared = {}
    for line in metadata.requires("painn-fast"):
        name = line.split(";")[0].split(">")[0].strip()
        declared[MODULES.get(name, name.replace("-", "_"))] = "extra" not in line
    required = {name for name, always in declared.items() if always}
    imported = imported_distributions()
    assert imported - set(declared) == set(), "imported but not declared"
    assert required - imported == set(), "declared but not imported"


def test_constraints_pin_every_dependency():
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    declared = {line.split(";")[0].split(">")[0].strip() for line in metadata.requires("painn-fast")}
    assert declared - pinned == set()
