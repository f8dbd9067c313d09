"""A calculator whose process is killed at its first structure, once."""

import os
import signal
from pathlib import Path

from ase.calculators.emt import EMT


class DyingEMT(EMT):
    """EMT; `marker` is a file that is made by the process that dies."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = Path(marker)

    def calculate(self, *args: object, **keywords: object) -> None:
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().calculate(*args, **keywords)


class AlwaysDying(EMT):
    """Dies at each structure."""

    def calculate(self, *args: object, **keywords: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
