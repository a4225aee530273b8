"""What a replica served in the last while, beside its metrics."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from anytime_protocol.enums import ErrorCode, Reason
from anytime_server.core.decisions import Ending, JobFailed
from anytime_server.core.scaling import Served
from anytime_server.metrics import Metrics

if TYPE_CHECKING:  # it only looks at it
    from anytime_server.engine.base import ActiveRequest

WINDOW_S: Final = 10.0
"""That is looked back."""

_SHORT_WAIT: Final = 0.1
"""Share of its time that a request may wait without its answer being the worse for it."""

_LACK: Final = frozenset({ErrorCode.OVERLOADED, ErrorCode.DEADLINE_EXCEEDED})
"""Refusals that more replicas can avoid."""


class _Answer(NamedTuple):
    """One answer, or refusal.

    Attributes:
        at_s: when.
        quality: of the best that there is, 0 to 1.
        slack: share of its deadline that was left; None without a deadline.
        compute_s: seconds of network time.
    """

    at_s: float
    quality: float
    slack: float | None
    compute_s: float


class ServedMetrics(Metrics):
    """The server's metrics, and what autoscaling and routing look at.

    Args:
        executors: that compute at the same time.
        clock: monotonic seconds.
    """

    def __init__(self, executors: int, clock: Callable[[], float]) -> None:
        super().__init__()
        self._executors = executors
        self._clock = clock
        self._answers: deque[_Answer] = deque()
        self._active_by_executor: dict[int, int] = {}

    def active_requests(self, executor: int, count: int) -> None:
        """See `Metrics`."""
        super().active_requests(executor, count)
        self._active_by_executor[executor] = count

    def rejected(self, model: str, code: ErrorCode, elapsed_s: float) -> None:
        """See `Metrics`; a refusal by an idle replica says nothing about their number."""
        super().rejected(model, code, elapsed_s)
        if code in _LACK and any(self._active_by_executor.values()):
            self._add(_Answer(self._clock(), 0.0, 0.0, 0.0))

    def ended(self, request: ActiveRequest, ending: Ending, now: float) -> None:
        """See `Metrics`."""
        super().ended(request, ending, now)
        allowed_s = None if request.deadline_ms is None else request.deadline_ms / 1e3
        passed_s = now - request.job.arrival_s
        slack = None if allowed_s is None else max(1.0 - passed_s / allowed_s, 0.0)
        quality = _quality(request, ending, allowed_s or passed_s)
        if quality is not None:
            self._add(_Answer(now, quality, slack, request.compute_s))

    def served(self) -> Served:
        """In the last `WINDOW_S`."""
        answers = self._recent()
        slacks = [answer.slack for answer in answers if answer.slack is not None]
        return Served(
            len(answers) / WINDOW_S,
            sum(answer.quality for answer in answers) / len(answers) if answers else 1.0,
            sum(slacks) / len(slacks) if slacks else 1.0,
            sum(answer.compute_s for answer in answers) / (WINDOW_S * self._executors),
        )

    def mean_compute_s(self) -> float:
        """Seconds of network time of an answer, 0 before the first."""
        answers = self._recent()
        return sum(answer.compute_s for answer in answers) / max(len(answers), 1)

    def _add(self, answer: _Answer) -> None:
        self._recent()
        self._answers.append(answer)

    def _recent(self) -> deque[_Answer]:
        oldest_s = self._clock() - WINDOW_S
        while self._answers and self._answers[0].at_s < oldest_s:
            self._answers.popleft()
        return self._answers


def _quality(request: ActiveRequest, ending: Ending, allowed_s: float) -> float | None:
    """Of an answer, of the best that there is; None if it says nothing about the load."""
    if isinstance(ending, JobFailed):
        return 0.0 if ending.code in _LACK else None
    if ending.reason is Reason.CANCELLED or request.discarded:
        return None
    if ending.reason is not Reason.DEADLINE or request.queue_s <= _SHORT_WAIT * allowed_s:
        return 1.0
    quality = request.served.profile.quality or tuple(
        float(exit_) for exit_ in range(1, request.num_exits + 1)
    )
    return quality[ending.exit - 1] / max(quality) if ending.exit else 0.0
