"""How much slower than profiled a machine is, and what that makes of a predicted time."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

_MOVED: Final = 0.05
"""By how much of itself a factor or its deviation moves until forecasts are worked out anew: each
of many waiting requests has one, and most observations change next to nothing."""


class Prediction(NamedTuple):
    """A time that is not known yet.

    Attributes:
        mean_s: expected seconds.
        sigma_s: standard deviation in seconds.
    """

    mean_s: float
    sigma_s: float

    def upper_s(self, sigmas: float) -> float:
        """The time that is exceeded only by a miss of more than `sigmas` deviations."""
        return self.mean_s + sigmas * self.sigma_s

    def then(self, other: Prediction) -> Prediction:
        """One piece of work after another.

        What slows one slows both, so that the deviations add up in full.
        """
        return Prediction(self.mean_s + other.mean_s, self.sigma_s + other.sigma_s)


class SlowDown:
    """How much slower than profiled the machine is now: a scalar Kalman filter.

    State x (the factor) with variance P; y = ratio - x is the innovation, K the gain:

        Q <- max(Q_min, a * Q + (1 - a) * (K * y)^2)      (ALERT, equation 5)
        K <- (P + Q) / (P + Q + R)
        x <- x + K * y,   P <- (1 - K) * (P + Q)
        R <- (1 - b) * R + b * max(y^2 - P, R_min)

    One outlier must not spoil the margins of the next twenty stages, so that y is cut at
    `_CUT` predicted deviations; a lasting jump still passes, as the deviation more than doubles
    with each cut observation.

    Args:
        mean: factor to start from; 1 means as fast as profiled.
        sigma: standard deviation to start from.
    """

    __slots__ = ("_gain", "_noise", "_process", "_reported", "_variance", "mean")

    _Q_MIN: Final = 1e-5
    _R_MIN: Final = 1e-4
    _Q_MEMORY: Final = 0.7
    _R_LEARNING: Final = 0.1
    _CUT: Final = 6.0

    def __init__(self, mean: float = 1.0, sigma: float = 0.1) -> None:
        self.mean = mean
        self._variance = sigma * sigma / 2.0
        self._noise = max(sigma * sigma / 2.0, self._R_MIN)
        self._process = self._Q_MIN
        self._gain = 0.5
        self._reported = (mean, sigma)

    @property
    def sigma(self) -> float:
        """Standard deviation of the next ratio that will be observed."""
        return math.sqrt(self._variance + self._process + self._noise)

    def predict(self, base_s: float) -> Prediction:
        """The time that work of this base time will take now."""
        return Prediction(base_s * self.mean, base_s * self.sigma)

    def has_moved(self) -> bool:
        """Whether mean or deviation have moved by `_MOVED` of the mean since this was last true."""
        now, before = (self.mean, self.sigma), self._reported
        if max(abs(new - old) for new, old in zip(now, before, strict=True)) <= _MOVED * self.mean:
            return False
        self._reported = now
        return True

    def observe(self, ratio: float) -> float:
        """Learns one ratio of measured to base time; returns the relative error of the guess."""
        error = (ratio - self.mean) / self.mean
        limit = self._CUT * self.sigma
        innovation = min(max(ratio - self.mean, -limit), limit)
        correction = self._gain * innovation
        self._process = max(
            self._Q_MIN,
            self._Q_MEMORY * self._process + (1.0 - self._Q_MEMORY) * correction * correction,
        )
        spread = self._variance + self._process
        self._gain = spread / (spread + self._noise)
        self.mean = max(self.mean + self._gain * innovation, 1e-3)
        self._variance = (1.0 - self._gain) * spread
        surplus = max(innovation * innovation - self._variance, self._R_MIN)
        self._noise += self._R_LEARNING * (surplus - self._noise)
        return error
