"""Imports go down: the floors of the repository, and no circle between modules."""

import ast
import graphlib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = (
    {"errors", "units", "kernels", "runtime"},
    {"graph", "settings", "settings_errors"},
    {"nn"},
    {"io", "engine"},
    {"schnetpack", "ensemble", "evaluate", "correlation"},
    {"ase", "vibrations", "train", "md"},
    {"adapters", "label", "spectra", "testing", "select"},
    {"learn"},
    {"bench", "doctor", "warm"},
    {"cli"},
)
"""Rooms of painn_fast, from the ground: each imports from its own floor and from those below."""
ABOVE_ALL = {"painn_fast"}
"""The package itself, which exports from its rooms; its version is read everywhere."""
KERNELS = ({"jit", "simd", "threads", "mkl_warmup", "launch", "derivatives"}, set(), {"network"}, {"tools"})
"""Within kernels: what all share, the operations (all the rest), the whole network, tools."""


def modules():
    """Names of modules and their trees."""
    for package in ("painn_fast", "kernels"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts if package == "painn_fast" else ("painn_fast", *parts)).removesuffix(".__init__")
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree, known):
    """Modules that a tree imports when it runs; those for types alone do not count."""
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in set(ast.walk(tree)) - for_types:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from {name if name in known else node.module for name in inner}


TREES = dict(modules())
GRAPH = {name: set(imports(tree, TREES)) - {name} for name, tree in TREES.items()}


def floor(room):
    return next(k for k, rooms in enumerate(FLOORS) if room in rooms)


def test_every_module_has_a_floor_and_imports_nothing_from_above():
    upwards = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others - ABOVE_ALL
        if name not in ABOVE_ALL and floor(name.split(".")[1]) < floor(other.split(".")[1])
    ]
    assert not upwards


def test_kernels_is_a_leaf_whose_operations_know_no_tools():
    def level(name):
        return next((k for k, rooms in enumerate(KERNELS) if name.split(".")[2] in rooms), 1)

    inside = {name: others for name, others in GRAPH.items() if name.startswith("painn_fast.kernels.")}
    assert not [other for others in inside.values() for other in others if not other.startswith("painn_fast.kernels")]
    package = "painn_fast.kernels"
    upwards = [(a, b) for a, others in inside.items() for b in others - {package} if level(a) < level(b)]
    assert not upwards


def test_no_module_imports_itself_by_way_of_others():
    graphlib.TopologicalSorter({name: others - ABOVE_ALL for name, others in GRAPH.items()}).prepare()


def test_an_import_is_seen_and_one_for_types_alone_is_not():
    tree = ast.parse("from painn_fast import cli\nif TYPE_CHECKING:\n    from painn_fast import md")
    assert set(imports(tree, {"painn_fast", "painn_fast.cli", "painn_fast.md"})) == {"painn_fast.cli"}
