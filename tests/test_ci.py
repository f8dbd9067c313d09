"""The scripts of .ci/: lines of code are counted right, wordings are found in texts and names, good English is not."""

import runpy
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest

CI = Path(__file__).resolve().parents[1] / ".ci"
COUNT = runpy.run_path(str(CI / "count-lines"))["count"]
PHRASES = runpy.run_path(str(CI / "phrases"))


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("", 0),
        ("x = 1", 1),
        ("# a comment\n\nx = 1  # beside\n", 1),
        ('"""A docstring\n\nof three lines."""\n\nimport os\n', 1),
        ('def f():\n    """Says."""\n    return 1\n', 2),
        ('class A:\n    x: int = 1\n    """Of an attribute."""\n', 2),
        ('text = """two\n\nlines of a value"""\n', 2),
        ("value = [\n    1,  # one\n    # between\n    2,\n]\n", 4),
        ('def f(): "µ"; return 1\n', 1),
        ("x = 1; 'text'\n", 1),
        ('"""a""" \\\n"""b"""\nx = 1\n', 1),
    ],
)
def test_lines_of_code(source, lines):
    assert COUNT(source) == lines


@pytest.mark.parametrize(
    ("text", "wordings"),
    [
        ("What atom i hears from its neighbours j, with r_ij", ["What atom i hears from its neighbours j"]),
        ("a series that\nnobody announced", ["a series that nobody announced"]),
        ("not found, in place, there is one, found by name, gas phase, fine-tuning, broken bonds", []),
        ("memory that is there", ["is there"]),
        ("if there is a model; is there a file?; made of numbers; looks like a molecule", []),
        ("`broken` [S], `fine()`, nowhere.npz", []),
        ("for the way back", ["the way back"]),
    ],
)
def test_wordings_of_texts(text, wordings):
    assert [wording for _, wording, _ in PHRASES["in_text"](text)] == wordings


def test_wordings_of_python():
    source = (
        '"""Text."""\nsaid = 1  # kept\n# in place, that is for\n# a while\n'
        'fine = f"nobody {said}"\nlist_of_said = there_is = 0\n'
    )
    hits = [hit[:2] for hit in sorted(PHRASES["in_python"](source))]
    assert hits == [(2, "said"), (3, "for a while"), (5, "fine"), (5, "nobody"), (5, "said"), (6, "list_of_said")]


def test_common_names_are_fine_for_what_is_local():
    source = "def places(there):\n    found = place = there.found\n    self.found = 1\n\nclass A:\n    place: int\n"
    hits = [hit[:2] for hit in sorted(PHRASES["in_python"](source))]
    assert hits == [(1, "places"), (1, "there"), (3, "found"), (6, "place")]


def test_a_text_is_not_taken_for_a_format():
    assert [hit[1] for hit in PHRASES["in_python"]("x = 'for ever {nobody}'\n")] == ["nobody", "for ever"]


@pytest.mark.parametrize(("module", "ignored"), [("ase.atoms", True), ("painn_fast.graph.batch", False)])
def test_a_warning_of_numpy_that_ase_causes_is_no_error_and_the_same_of_ours_is(module, ignored):
    """With NumPy 2.5 no test that makes a structure could be collected."""
    text = "Setting the shape on a NumPy array has been deprecated in NumPy 2.5."
    with nullcontext() if ignored else pytest.raises(DeprecationWarning, match="Setting the shape"):
        warnings.warn_explicit(text, DeprecationWarning, f"{module}.py", 1, module=module)
