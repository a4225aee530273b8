"""The state of one stream of updates, as its caller sees it; no input or output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from anytime_client.errors import AnswerError, AnytimeError
from anytime_client.results import Result, Update
from anytime_client.session import RequestEvent
from anytime_protocol.budget import Budget
from anytime_protocol.enums import Effect
from anytime_protocol.messages import Accepted, BudgetApplied

Satisfied: TypeAlias = Callable[[Update], bool]
"""Called with each update; returns true once an update is good enough."""

SATISFIED_BUDGET: Final = Budget(min_confidence=0.0)
"""The budget that any map satisfies: the server ends with what it has, reason `satisfied`."""


class StreamState:
    """What is known of one request so far.

    Attributes:
        accepted: the server's prediction, once it is in.
        result: how it ended well.
        error: how it ended otherwise.
        applied: answers to changes of the budget, in order.
        abandoned: the caller gave the request up before its end.
    """

    def __init__(self) -> None:
        self.accepted: Accepted | None = None
        self.result: Result | None = None
        self.error: AnytimeError | None = None
        self.applied: list[BudgetApplied] = []
        self.abandoned = False

    @property
    def is_over(self) -> bool:
        """Whether no more events are to be handled."""
        return self.result is not None or self.error is not None or self.abandoned

    def handle(self, event: RequestEvent) -> Update | None:
        """Notes an event; returns the update to hand to the caller, if it is one.

        Raises:
            AnytimeError: the request failed, the connection was lost, or the server rejected a
                budget as malformed.
        """
        match event:
            case Update():
                return event
            case Accepted():
                self.accepted = event
            case BudgetApplied():
                self.applied.append(event)
                if event.effect is Effect.REJECTED:
                    raise AnswerError(f"the server rejected a budget: {event.detail}")
            case Result():
                self.result = event
            case AnytimeError():
                self.error = event
                raise event
        return None

    def outcome(self) -> Result:
        """The result.

        Raises:
            AnytimeError: the one that the request ended with.
            RuntimeError: it is not over, or was given up.
        """
        if self.error is not None:
            raise self.error
        if self.abandoned:
            raise RuntimeError("the stream was given up when its loop or `with` was left")
        if self.result is None:
            raise RuntimeError("the stream is not over: iterate it to its end, or call wait()")
        return self.result
