"""Learning-rate schedules: factors of the peak rate as functions of the step, without state."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Poly:
    """(1 - progress) ^ power, after a linear warm-up: the schedule of HRNet's segmentation."""

    power: float = 0.9
    warmup_steps: int = 0

    def factor(self, step: int, steps_per_epoch: int, steps: int) -> float:  # noqa: ARG002
        """Factor of the peak rate for the 0-based step of so many."""
        remaining = max(0.0, 1 - step / steps)
        return float(remaining**self.power * warmup(step, self.warmup_steps))


@dataclass(frozen=True, slots=True)
class Steps:
    """A tenth from each of the given epochs on: the schedule of HRNet's pose estimation."""

    epochs: tuple[int, ...]
    gamma: float = 0.1
    warmup_steps: int = 0

    def factor(self, step: int, steps_per_epoch: int, steps: int) -> float:  # noqa: ARG002
        """Factor of the peak rate for the 0-based step of so many."""
        passed = sum(step >= epoch * steps_per_epoch for epoch in self.epochs)
        return self.gamma**passed * warmup(step, self.warmup_steps)


@dataclass(frozen=True, slots=True)
class WarmStableDecay:
    """Warm up, stay at the peak, then fall linearly to zero over the last epochs.

    Until the fall the schedule does not depend on the length of the training. A checkpoint from
    there can be cooled down whenever weights are wanted, and trained further as well.
    """

    decay_epochs: float
    warmup_steps: int = 0

    def factor(self, step: int, steps_per_epoch: int, steps: int) -> float:
        """Factor of the peak rate for the 0-based step of so many."""
        left = steps - step
        fall = min(1.0, left / max(1, self.decay_epochs * steps_per_epoch))
        return max(0.0, fall) * warmup(step, self.warmup_steps)


Schedule = Poly | Steps | WarmStableDecay


def warmup(step: int, steps: int) -> float:
    """Linear from 1/steps to 1."""
    return min(1.0, (step + 1) / steps) if steps else 1.0
