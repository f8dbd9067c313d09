"""Learning rate: warm-up, a drop whenever the smoothed validation loss stops falling (the paper's protocol), and for
trainings of a given length a linear cool-down over the last epochs."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from painn_fast.train.settings import TrainSettings


@dataclass
class Plateau:
    """State of the schedule; plain numbers, so that a resumed run continues exactly.

    The smoothed loss is an exponential average of validation losses; more than `patience` validations in turn without a
    new minimum multiply the learning rate by `factor`.
    """

    learning_rate: float
    factor: float
    patience: int
    smoothing: float
    smoothed: float | None = None
    best: float = float("inf")
    waited: int = 0
    """Validations since the last best one or the last drop."""
    stale: int = 0
    """Validations since the last best one."""

    @classmethod
    def of(cls, settings: TrainSettings) -> Plateau:
        """The schedule that the settings ask for."""
        return cls(settings.learning_rate, settings.plateau_factor, settings.plateau_patience, settings.loss_smoothing)

    def validate(self, loss: float) -> bool:
        """Take in a validation loss; True if the smoothed loss is the best so far."""
        self.smoothed = loss if self.smoothed is None else self.smoothing * self.smoothed + (1 - self.smoothing) * loss
        if self.smoothed < self.best:
            self.best, self.waited, self.stale = self.smoothed, 0, 0
            return True
        self.waited, self.stale = self.waited + 1, self.stale + 1
        if self.waited > self.patience:
            self.learning_rate *= self.factor
            self.waited = 0
        return False

    def at_step(self, step: int, epoch: int, settings: TrainSettings) -> float:
        """Learning rate of optimizer step `step` in epoch `epoch`, both counted from 0."""
        warmup = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
        over = min(settings.cooldown_epochs, settings.max_epochs - 1)  # a shorter training cools down over all of it
        cooldown = min(1.0, (settings.max_epochs - epoch) / (over + 1))
        return self.learning_rate * warmup * cooldown

    def state(self) -> dict[str, float | int | None]:
        """Numbers for a checkpoint."""
        return asdict(self)
