"""The comment line of a frame of extended XYZ, as wide as ASE reads it, in linear time.

`key=value` with spaces around `=`, values in quotes, braces or brackets, with commas between numbers, escaped quotes,
arrays in brackets or after `_JSON`, and keys without a value. What is no pair is kept, so that it can be reported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from painn_fast.errors import PaiNNFastError

SIMPLE = re.compile(r"""\s*+([^\s="'{}\[\]\\]++)=(?:"([^"\\]*+)"|([^\s="'{}\[\]\\]++))(?=\s|$)""")
"""A pair as nearly all files have it; possessive, so that nothing is tried twice."""
PIECE = re.compile(
    r"""(\s++)|(=)|([^\s="'{\[\\]++)|"((?:[^"\\]++|\\.?)*+)"?|'((?:[^'\\]++|\\.?)*+)'?|\{((?:[^}\\]++|\\.?)*+)\}?|\\(.?)""",
    re.DOTALL,
)
BRACKET = re.compile(r"[\[\]]")
ESCAPED = re.compile(r"\\(.?)", re.DOTALL)
FORTRAN = re.compile(r"([-+]?[\d.]++)[dD]([-+]?\d++)")
BETWEEN_NUMBERS = str.maketrans("[]{},", "     ")
JSON = "_JSON"
LONGEST = 1_000_000
"""Characters of a comment line."""
TRUTH = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}


class CommentLine(NamedTuple):
    """Pairs, and words that belong to none."""

    pairs: dict[str, str]
    words: list[str]


class _Item(NamedTuple):
    text: str
    equals: bool
    apart: bool  # white space before it


def parse(line: str, where: str) -> CommentLine:
    """The pairs of a comment line, without their quotes.

    Raises:
        PaiNNFastError: for a key with two values, and for a line that is too long to be one.
    """
    if len(line) > LONGEST:
        raise PaiNNFastError("not a comment line", where=where, got=f"{len(line)} characters", expected=LONGEST)
    found: list[tuple[str, str]] = []
    words: list[str] = []
    line = line.strip()
    at = 0
    while at < len(line):
        match = SIMPLE.match(line, at)
        if match is None:
            found += _pairs(list(_items(line, at)), words)
            break
        key, quoted, plain = match.groups()
        found.append((key, plain if quoted is None else quoted))
        at = match.end()
    pairs = dict(found)
    if len(pairs) < len(found):
        for key, value in found:
            if pairs[key] != value:
                got = f"{value[:40]!r} and {pairs[key][:40]!r}"
                raise PaiNNFastError(f"two values of {key[:40]}", where=where, got=got, expected="one")
    return CommentLine(pairs, words)


def numbers(text: str) -> np.ndarray | None:
    """The numbers [k] of a value, None if it is something else: text, truth values, nothing."""
    if text.startswith(JSON):
        return _of_json(text.removeprefix(JSON))
    words = text.translate(BETWEEN_NUMBERS).split()
    values = [real(word) for word in words]
    return np.array(values) if words and None not in values else None


def real(word: str) -> float | None:
    """A number, also as Fortran writes it (1D-3); None for another word."""
    try:
        return float(word) if "_" not in word else None
    except ValueError:
        match = FORTRAN.fullmatch(word)
    try:
        return float(f"{match[1]}e{match[2]}") if match else None
    except ValueError:
        return None


def truths(text: str) -> list[bool] | None:
    """Three truth values of "T T F", "1 1 0", "TTF" or, for all directions alike, "T"; None for anything else."""
    words = text.translate(BETWEEN_NUMBERS).lower().split()
    if len(words) == 1 and len(words[0]) == 3:
        words = list(words[0])
    values = [TRUTH[word] for word in words if word in TRUTH]
    if len(values) != len(words) or len(values) not in (1, 3):
        return None
    return values * 3 if len(values) == 1 else values


def _of_json(text: str) -> np.ndarray | None:
    try:
        values = np.asarray(json.loads(text))
        return values.astype(np.float64).ravel() if values.dtype.kind in "fi" and values.size else None
    except (ValueError, RecursionError, OverflowError):
        return None


def _items(line: str, at: int) -> Iterator[_Item]:
    """Words, each put together of plain, quoted and escaped pieces, and equals signs."""
    text: list[str] = []
    apart = began_apart = True

    def word() -> Iterator[_Item]:
        if text:
            yield _Item("".join(text), equals=False, apart=began_apart)
            text.clear()

    while at < len(line):
        if line[at] == "[":
            piece, at = _in_brackets(line, at)
        else:
            match = PIECE.match(line, at)
            assert match is not None, "every character begins a piece"
            at = match.end()
            if match[1] is not None or match[2] is not None:
                yield from word()
                if match[2] is not None:
                    yield _Item("=", equals=True, apart=apart)
                apart = match[1] is not None
                continue
            piece = next(group for group in match.groups()[2:] if group is not None)
            if match[3] is None and match[7] is None and "\\" in piece:
                piece = ESCAPED.sub(r"\1", piece)
        if not text:
            began_apart = apart
        text.append(piece)
        apart = False
    yield from word()


def _in_brackets(line: str, at: int) -> tuple[str, int]:
    """What stands between a bracket and its partner, inner brackets included, and where it ends."""
    depth, start = 0, at
    for match in BRACKET.finditer(line, at):
        depth += 1 if match[0] == "[" else -1
        if depth == 0:
            return line[start + 1 : match.start()], match.end()
    return line[start + 1 :], len(line)


def _pairs(items: list[_Item], words: list[str]) -> Iterator[tuple[str, str]]:
    """Keys and values; words without an equals sign, and keys without a value, go to `words`."""
    k = 0
    while k < len(items):
        item, k = items[k], k + 1
        if item.equals or k >= len(items) or not items[k].equals:
            words.append(item.text)
            continue
        k += 1
        value = items[k] if k < len(items) and not items[k].equals else None
        if value is not None and value.apart and k + 1 < len(items) and items[k + 1].equals:
            value = None  # "a= b=1": the next key
        if value is None:
            words.append(f"{item.text}=")
            continue
        parts, k = [value.text], k + 1
        while not value.apart and k < len(items) and items[k].equals and not items[k].apart:  # "url=a?b=c"
            parts.append("=")
            k += 1
            if k < len(items) and not items[k].equals and not items[k].apart:
                parts.append(items[k].text)
                k += 1
        yield item.text, "".join(parts)
