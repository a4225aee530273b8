"""What a caller asks, put into the words of the protocol.

Decides how the arguments of `predict` and `stream` become a budget and wishes. Does not know which
server they go to, nor whether it has the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from anytime_client.images import Image, as_file
from anytime_protocol.budget import Budget, tightest
from anytime_protocol.client_messages import DEFAULT_URGENCY, OutputOptions
from anytime_protocol.enums import Encoding

__all__ = ["DEFAULT_WANT", "Image", "Question", "Transport", "budget_of", "question_of"]

DEFAULT_WANT: Final = OutputOptions(encoding=Encoding.DELTA)
"""The class map alone, and of it what changed: the fewest bytes to write and to read."""


class Transport(StrEnum):
    """How a client talks to its server."""

    AUTO = "auto"
    """The websocket, or HTTP where something on the way does not let websockets through."""
    WEBSOCKET = "websocket"
    """One connection for all requests; a budget's change arrives at once."""
    HTTP = "http"
    """One HTTP request each, its updates as server-sent events."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request that has not been sent yet.

    Attributes:
        payload: the image file.
        media_type: of it.
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


def budget_of(
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


def question_of(
    image: Image,
    *,
    model: str | None = None,
    budget: Budget | None = None,
    deadline_ms: float | None = None,
    max_exit: int | None = None,
    want: OutputOptions | None = None,
    urgency: int = DEFAULT_URGENCY,
) -> Question:
    """A question from the arguments of `stream`.

    Raises:
        ImageError: the image cannot be sent.
        BudgetError: a limit is out of its range.
    """
    payload, media_type = as_file(image)
    return Question(
        payload,
        media_type,
        model,
        budget_of(budget, deadline_ms, max_exit),
        DEFAULT_WANT if want is None else want,
        urgency,
    )
