"""The one error class: what went wrong, where, what was got, what was expected and how to mend it, on one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LONGEST = 2000
"""Characters of a message: what a file contains goes into it, and a file may be large."""
CAPS = (1500, 1000, 700, 500, 380)
"""Characters of one part of a message that is too long as a whole."""


class PaiNNFastError(Exception):
    """Anything that a user can get wrong.

    Args:
        what: what went wrong, a short sentence without a full stop.
        where: file, key, frame or atom that it concerns.
        got: the offending value.
        expected: what would have been accepted.
        fix: what to do about it.

    The message has at most `LONGEST` characters; long parts are cut.

    Example:
        >>> import painn_fast as pf
        >>> try:
        ...     pf.load("etanol")
        ... except pf.PaiNNFastError as error:
        ...     print(error.what, error.got, sep=": ")
        no such model: etanol
    """

    def __init__(
        self, what: str, *, where: Any = None, got: Any = None, expected: Any = None, fix: str | None = None
    ) -> None:
        self.what, self.where, self.got, self.expected, self.fix = what, where, got, expected, fix
        parts = [("where", where), ("got", got), ("expected", expected), ("fix", fix)]
        texts = [what, *(f"{name}: {_text(value)}" for name, value in parts if value is not None)]
        lines = [one_line(text[: 10 * LONGEST]) for text in texts]
        sizes = [len(line) for line in lines]
        cap = next((cap for cap in (LONGEST, *CAPS) if sum(min(size, cap) + 2 for size in sizes) <= LONGEST), CAPS[-1])
        super().__init__("; ".join(line if len(line) <= cap else f"{line[: cap - 3]}..." for line in lines))

    def replaced(self, **parts: Any) -> PaiNNFastError:
        """The same error with other parts, such as `where`."""
        own = {name: getattr(self, name) for name in ("what", "where", "got", "expected", "fix")} | parts
        return PaiNNFastError(own.pop("what"), **own)


class UndefinedProperty(PaiNNFastError):
    """A property that the model does not give, or that is not defined for the structure."""


class UnitsError(PaiNNFastError):
    """Units that do not fit a file; `names` are their kinds, such as "energy"."""

    names: tuple[str, ...] = ()


class MissingUnits(UnitsError):
    """A file that does not state units that are needed."""


class SuperfluousUnits(UnitsError):
    """Units of properties that a file does not have."""


def one_line(text: str) -> str:
    """Without line breaks, and without what a file could make a terminal do."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))


def shown(value: Any, longest: int = 200) -> str:
    """A value from a file as Python writes it, cut to some characters."""
    try:
        text = repr(value)
    except Exception:  # Python refuses to write out an integer of some thousand digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _text(value: Any) -> str:
    """A value from a file as text; Python refuses to write out an integer of some thousand digits."""
    try:
        return str(value)
    except Exception:
        return f"a {type(value).__name__} that cannot be printed"


@contextmanager
def reading(what: str, where: Any, *, expected: Any = None, fix: str | None = None) -> Iterator[None]:
    """Around code that reads a file from elsewhere: whatever it raises becomes one `PaiNNFastError`.

    Decoders fail in their own ways on damaged bytes (struct.error, KeyError, RecursionError, MemoryError, ...), and a
    list of those is never complete. An error that is a PaiNNFastError already passes unchanged.

    Args:
        what: what the file then is, such as "not a readable .npz file".
        where: the file.
        expected: what would have been accepted.
        fix: what to do about it.

    Raises:
        PaiNNFastError: for any exception.
    """
    try:
        yield
    except PaiNNFastError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror and error.errno:
            got = error.strerror
        elif isinstance(error, MemoryError):
            got = "more memory would be needed than is available"
        else:
            got = f"{type(error).__name__}: {_text(error)[:LONGEST]}"
        raise PaiNNFastError(what, where=where, got=got, expected=expected, fix=fix) from error
