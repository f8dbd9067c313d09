"""Progress of long work: a live line on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

T = TypeVar("T")


def _console() -> Console:
    """Standard error; rich is imported with the first line, which a single energy does not print."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False)


def _text(message: str, style: str = "") -> Text:
    """A message in which brackets are no markup."""
    from rich.text import Text

    return Text(message, style=style)


class StatusLine:
    """Shows the latest of many messages; `keep` leaves one standing.

    Args:
        every: seconds between lines where the output is not a terminal.
        silent: print nothing, as all but one of many processes do.
    """

    def __init__(self, every: float = 15.0, *, silent: bool = False) -> None:
        self.every, self.silent = every, silent
        self.console = _console()
        self._live: Live | None = None
        if self.console.is_terminal and not silent:
            from rich.live import Live

            self._live = Live(console=self.console, transient=True, refresh_per_second=4)
        self._last = -float("inf")

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, message: str) -> None:
        """Replace the line; in a log, print if enough time has passed."""
        if self._live:
            self._live.update(_text(message))
        elif time.monotonic() - self._last >= self.every:
            self.keep(message)

    def keep(self, message: str) -> None:
        """Print a line that stays."""
        self._last = time.monotonic()
        if self.silent:
            return
        self.console.print(_text(message), soft_wrap=True)


def warn(message: str) -> None:
    """A line on stderr about something that went wrong and does not stop the work, whichever process prints it."""
    _console().print(_text(f"warning: {message}", "yellow"), soft_wrap=True)


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    whole = round(max(seconds, 0.0))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def aligned(table: Sequence[Mapping[str, object]]) -> list[str]:
    """Lines of a table of rows: its columns, the first left, the others right aligned."""
    cells = [list(table[0]), *([str(value) for value in row.values()] for row in table)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    padded = [[text.rjust(width) for text, width in zip(row, widths, strict=True)] for row in cells]
    return ["  ".join([row[0].strip().ljust(widths[0]), *row[1:]]) for row in padded]


def counted(things: Iterable[T], what: str, total: int | None = None, patience: float = 3.0) -> Iterator[T]:
    """Pass `things` on and, once that has taken more than `patience` seconds, show how many there were."""
    start, of = time.monotonic(), f" of {total}" if total else ""
    iterator, k = iter(things), 0
    for thing in iterator:
        k += 1
        yield thing
        if k % 256 == 0 and time.monotonic() - start > patience:
            break
    else:
        return
    with StatusLine(silent=os.environ.get("RANK", "0") != "0") as status:
        for thing in iterator:
            k += 1
            yield thing
            if k % 256 == 0:
                status.update(f"{what}: {k}{of}, {clock(time.monotonic() - start)}")
        status.keep(f"{what}: {k} in {clock(time.monotonic() - start)}")
