"""The one error class: what went wrong, where, what was got, what was expected and how to mend it, on one line."""

from __future__ import annotations

from typing import Any


class PaiNNFastError(Exception):
    """Anything that a user can get wrong.

    Args:
        what: what went wrong, a short sentence without a full stop.
        where: file, key, frame or atom that it concerns.
        got: the offending value.
        expected: what would have been accepted.
        fix: what to do about it.
    """

    def __init__(
        self, what: str, *, where: Any = None, got: Any = None, expected: Any = None, fix: str | None = None
    ) -> None:
        self.what, self.where, self.got, self.expected, self.fix = what, where, got, expected, fix
        parts = [("where", where), ("got", got), ("expected", expected), ("fix", fix)]
        said = [what, *(f"{name}: {value}" for name, value in parts if value is not None)]
        super().__init__("; ".join(one_line(text) for text in said))


class UndefinedProperty(PaiNNFastError):
    """A property that the model does not give, or that is not defined for the structure."""


class MissingUnits(PaiNNFastError):
    """A file that does not state units that are needed; `names` are their kinds, such as "energy"."""

    names: tuple[str, ...] = ()


def one_line(text: str) -> str:
    """Without line breaks, and without what a file could make a terminal do."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))
