"""Stages of a run: each is known by the file that it ends with, and done once, whatever kills the process between."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from painn_fast.runtime.atomic import atomic_write
from painn_fast.runtime.progress import StatusLine, clock

TIMES, PLAN = "times.json", "plan.json"


class Stages:
    """Which stages of a folder are done, what they took, and what was decided on the way.

    Args:
        folder: of the run.
        status: for progress.
    """

    def __init__(self, folder: Path, status: StatusLine) -> None:
        self.folder, self.status = folder, status
        self.times: dict[str, float] = read_json(folder / TIMES)
        self._before, self._began = sum(self.times.values()), time.monotonic()
        self._plan: dict[str, Any] = read_json(folder / PLAN)

    @property
    def elapsed(self) -> float:
        """Seconds that the run took, with those of earlier processes as far as their stages ended."""
        return self._before + time.monotonic() - self._began

    def do(self, name: str, target: str, work: Callable[[Path], object]) -> Path:
        """Do the work that ends with a file, unless the file exists.

        Args:
            name: of the stage.
            target: the file, in the folder.
            work: called with its path, which it writes whole or not at all, as its last act.
        """
        path = self.folder / target
        if not path.exists():
            self.status.keep(f"[{clock(self.elapsed)}] {name}")
            start = time.monotonic()
            path.parent.mkdir(parents=True, exist_ok=True)
            work(path)
            self.times[name] = self.times.get(name, 0.0) + time.monotonic() - start
            write_json(self.folder / TIMES, self.times)
        return path

    def decide(self, name: str, make: Callable[[], Any]) -> Any:
        """A number that a resumed run takes over, such as one that was measured."""
        if name not in self._plan:
            self._plan[name] = make()
            write_json(self.folder / PLAN, self._plan)
        return self._plan[name]


def read_json(path: Path) -> Any:
    """Contents of a file; an empty dictionary if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_json(path: Path, value: Any) -> None:
    """Plain data, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
