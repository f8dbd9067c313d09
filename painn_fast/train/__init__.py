"""Training: data with missing labels, joint loss, loop with exact resume, report."""

from typing import TYPE_CHECKING

from painn_fast.runtime.lazy import lazy

if TYPE_CHECKING:
    from painn_fast.train.loop import run
    from painn_fast.train.members import run_members
    from painn_fast.train.settings import TrainSettings, load_config, shipped

__all__ = ["TrainSettings", "load_config", "run", "run_members", "shipped"]

lazy(__name__)
