"""An inference request as the caller states it, before it is sent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from anytime_client.errors import FieldError
from anytime_client.images import ImageLike, encode_image
from anytime_protocol.budget import Budget, tightest
from anytime_protocol.enums import Encoding
from anytime_protocol.errors import describe
from anytime_protocol.messages import DEFAULT_URGENCY, OutputOptions, ReuseOptions
from anytime_protocol.validation import is_whole

DEFAULT_WANT: Final = OutputOptions(encoding=Encoding.DELTA)
"""The class map alone, and of it what changed: the fewest bytes to write and to read."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One request that has not been sent yet.

    Attributes:
        payload: the image file.
        media_type: of the image file.
        model: name; None for the server's first.
        budget: limits.
        want: what to send back.
        urgency: 0 (most) to 7 (least).
    """

    payload: bytes
    media_type: str
    model: str | None
    budget: Budget
    want: OutputOptions
    urgency: int

    @classmethod
    def make(
        cls,
        image: ImageLike,
        *,
        model: str | None = None,
        budget: Budget | None = None,
        deadline_ms: float | None = None,
        max_exit: int | None = None,
        want: OutputOptions | None = None,
        urgency: int = DEFAULT_URGENCY,
    ) -> InferRequest:
        """A request from the arguments of `AsyncClient.stream`.

        Raises:
            ImageError: the image cannot be sent.
            BudgetError: a limit is out of its range.
            FieldError: another argument is not of its kind or range.
        """
        _check("model", model, isinstance(model, str | None), "a name")
        _check("budget", budget, isinstance(budget, Budget | None), "a Budget")
        _check("want", want, isinstance(want, OutputOptions | None), "OutputOptions")
        _check("urgency", urgency, is_whole(urgency) and 0 <= urgency <= 7, "a whole number, 0..7")
        payload, media_type = encode_image(image)
        limits = merge_limits(budget, deadline_ms, max_exit)
        return cls(payload, media_type, model, limits, want or DEFAULT_WANT, urgency)


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """A stream of frames that has not been opened yet.

    Attributes:
        model: name; None for the server's first.
        budget: limits of each frame.
        want: what to send back for each frame: its last map alone.
        urgency: 0 (most) to 7 (least).
        share: of the machine's time that the stream may take.
        reuse: what may be taken from earlier frames; None computes each frame alone.
    """

    model: str | None
    budget: Budget
    want: OutputOptions
    urgency: int
    share: float
    reuse: ReuseOptions | None

    @classmethod
    def make(
        cls,
        *,
        model: str | None = None,
        budget: Budget | None = None,
        deadline_ms: float | None = None,
        max_exit: int | None = None,
        want: OutputOptions | None = None,
        urgency: int = DEFAULT_URGENCY,
        share: float = 1.0,
        reuse: ReuseOptions | None = None,
    ) -> VideoRequest:
        """A request from the arguments of `AsyncClient.video`.

        Raises:
            BudgetError: a limit is out of its range.
            FieldError: another argument is not of its kind or range.
        """
        limits = merge_limits(budget, deadline_ms, max_exit)
        return cls(model, limits, last_map_only(want), urgency, share, reuse)


def merge_limits(
    budget: Budget | None, deadline_ms: float | None = None, max_exit: int | None = None
) -> Budget:
    """The tightest of a budget and the limits that were given beside it.

    Raises:
        BudgetError: a limit is out of its range.
    """
    limits = Budget(deadline_ms=deadline_ms, max_exit=max_exit)
    if budget is None:
        return limits
    return budget if limits == Budget() else tightest(budget, limits)


def _check(name: str, value: object, is_valid: bool, expected: str) -> None:
    if not is_valid:
        raise FieldError(name, describe(value), expected)


def last_map_only(want: OutputOptions | None) -> OutputOptions:
    """The same output options without updates of exits before the last one served."""
    return replace(want or DEFAULT_WANT, progress=False)
