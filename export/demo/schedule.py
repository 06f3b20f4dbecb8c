"""Learning rate over the length of the training."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Schedule:
    """A linear warm-up, then half a cosine down to zero."""

    steps: int
    learning_rate: float
    warm_up_steps: int = 50

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 1."""
        warm = min(1.0, step / self.warm_up_steps)
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def apply(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Set the rate of every parameter group."""
        for group in optimiser.param_groups:
            group["lr"] = self.rate(step)
