"""From one geometry to a model: sampling, rounds of labels and training, and what the model can be trusted for."""

from typing import TYPE_CHECKING

from painn_fast.runtime.lazy import lazy

if TYPE_CHECKING:
    from painn_fast.learn.predict import prediction
    from painn_fast.learn.run import learn
    from painn_fast.learn.sample import sample
    from painn_fast.learn.settings import LearnSettings, SampleSettings

__all__ = ["LearnSettings", "SampleSettings", "learn", "prediction", "sample"]

lazy(__name__)
