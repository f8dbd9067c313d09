"""From one geometry to a model: sampling, rounds of labels and training, and what the model can be trusted for."""

from typing import TYPE_CHECKING

from painn_fast.runtime.lazy import lazy

if TYPE_CHECKING:
    from painn_fast.learn.sample import sample
    from painn_fast.learn.settings import SampleSettings

__all__ = ["SampleSettings", "sample"]

lazy(__name__)
