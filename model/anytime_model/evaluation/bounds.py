"""Bounds on a mean from a sample of independent losses, valid for any sample size.

Whether a mean is at most some risk is tested by betting (Waudby-Smith and Ramdas, "Estimating means
of bounded random variables by betting", JRSS B 2023): a gambler starts with 1 and bets against
"the mean is at least the risk". Under it his capital is a supermartingale, so that it ever reaches
1/p with probability p at most (Ville). How much he bets on the next loss follows from the mean and
variance of those before it, as in Bates et al., "Distribution-free, risk-controlling prediction
sets" (2021), section 3.1.3. For losses that vary little this needs far fewer images than
Hoeffding's inequality.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_model.errors import ConfigError

MOST_IMAGES: Final = 100_000
"""`images_needed` looks no further."""

_BISECTIONS: Final = 40


def p_value(losses: ArrayLike, risk: float, confidence: float, largest: float = 1.0) -> float:
    """The p-value, 0 to 1, of "the mean loss is at least `risk`".

    It is valid for any sample size; bets are placed so that it is small early if the confidence is
    the one that it will be compared with.

    Args:
        losses: (n,) independent draws, 0 to `largest`.
        risk: more than 0, less than `largest`.
        confidence: between 0 and 1.
        largest: that a loss can be, more than 0.

    Raises:
        ConfigError: a value is out of its range.
    """
    return float(_p_values(_shares(losses, largest), risk / largest, confidence)[-1])


def upper_bound(losses: ArrayLike, confidence: float, largest: float = 1.0) -> float:
    """What the mean loss is at most, with this confidence: 0 to `largest`.

    Args:
        losses: (n,) independent draws, 0 to `largest`.
        confidence: between 0 and 1.
        largest: that a loss can be, more than 0.

    Raises:
        ConfigError: a value is out of its range.
    """
    shares = _shares(losses, largest)
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _p_values(shares, middle, confidence)[-1] <= 1 - confidence:
            high = middle
        else:
            low = middle
    return high * largest


def images_needed(
    losses: ArrayLike, risk: float, confidence: float, largest: float = 1.0
) -> int | None:
    """How many images it takes until losses like these, one after the other, prove a mean below.

    Args:
        losses: (n,) draws, 0 to `largest`; they are repeated.
        risk: that the mean is to be below.
        confidence: between 0 and 1.
        largest: that a loss can be, more than 0.

    Returns:
        None where their mean is not below the risk, or more than `MOST_IMAGES` are needed.
    """
    shares = _shares(losses, largest)
    if shares.mean() >= risk / largest:
        return None
    count = len(shares)
    while count < 2 * MOST_IMAGES:
        repeated = np.resize(shares, min(count, MOST_IMAGES))
        proven = _p_values(repeated, risk / largest, confidence) <= 1 - confidence
        if proven[-1]:
            return int(proven.argmax()) + 1
        count *= 2
    return None


def _shares(losses: ArrayLike, largest: float) -> NDArray[np.float64]:
    """The losses as shares of the largest one."""
    found = np.asarray(losses, dtype=np.float64)
    if not largest > 0 or found.ndim != 1 or not len(found):
        raise ConfigError(f"{found.shape} losses up to {largest}; expected (n,) and more than 0.")
    if not ((found >= 0) & (found <= largest)).all():
        raise ConfigError(
            f"losses lie from {found.min()} to {found.max()}; expected 0 to {largest}."
        )
    return found / largest


def _p_values(shares: NDArray[np.float64], risk: float, confidence: float) -> NDArray[np.float64]:
    """The p-value after each of the losses, (n,), falling."""
    if not 0 < confidence < 1:
        raise ConfigError(f"the confidence is {confidence}; expected 0.95, say.")
    count = np.arange(1, len(shares) + 1)
    mean = (0.5 + shares.cumsum()) / (1 + count)
    variance = (0.25 + ((shares - mean) ** 2).cumsum()) / (1 + count)
    known = np.concatenate([[0.25], variance[:-1]])  # before each loss
    bets = np.minimum(np.sqrt(2 * math.log(1 / (1 - confidence)) / (len(shares) * known)), 1.0)
    capital = np.log1p(-bets * (shares - risk)).cumsum()
    highest: NDArray[np.float64] = np.maximum.accumulate(capital)
    return np.exp(-np.maximum(highest, 0.0))
