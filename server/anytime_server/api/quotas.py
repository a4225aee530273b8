"""What the holder of a token may ask for: so many requests a second, so many at a time."""

from __future__ import annotations

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_server.engine.base import OnEvent, RequestEnded, RequestEvent
from anytime_server.errors import RefusedError
from anytime_server.tokens import TokenWithQuota

_WAIT_MS = 1000.0
"""After which asking again makes sense where a request has to end first."""


class Caller:
    """The holder of a token with a quota.

    Args:
        name: of the token.
        quota: what it may ask for.

    Attributes:
        in_flight: requests that have begun and not ended.
    """

    def __init__(self, name: str, quota: TokenWithQuota) -> None:
        self.name = name
        self.quota = quota
        self.in_flight = 0
        self._burst = max(quota.requests_per_s or 1.0, 1.0)
        self._allowance = self._burst
        self._counted_s = 0.0

    def check(self, now: float) -> None:
        """Lets a request pass that may begin.

        Args:
            now: monotonic seconds.

        Raises:
            RefusedError: there are too many.
        """
        most = self.quota.in_flight
        if most is not None and self.in_flight >= most:
            text = f"{self.in_flight} requests of {self.name} are under way, at most {most} may be"
            raise _refusal(text, _WAIT_MS)
        self._check_rate(now)

    def _check_rate(self, now: float) -> None:
        rate = self.quota.requests_per_s
        if rate is not None:
            gained = (now - self._counted_s) * rate
            self._allowance = min(self._allowance + gained, self._burst)
            self._counted_s = now
            if self._allowance < 1.0:
                text = f"{self.name} may ask for {rate:g} requests a second"
                raise _refusal(text, 1e3 * (1.0 - self._allowance) / rate)

    def begin(self, now: float) -> None:
        """Counts a request; see `check`."""
        self.check(now)
        self._allowance -= 1.0
        self.in_flight += 1

    def begin_frame(self, now: float) -> None:
        """Counts a frame of a stream, which itself has begun as one request.

        Args:
            now: monotonic seconds.

        Raises:
            RefusedError: there are too many.
        """
        self._check_rate(now)
        self._allowance -= 1.0

    def end(self) -> None:
        """A request that has begun has ended."""
        self.in_flight -= 1

    def ending(self, on_event: OnEvent) -> OnEvent:
        """A callback for the engine that counts the end of a request, before another one."""

        def count_end(event: RequestEvent) -> None:
            if isinstance(event, RequestEnded):
                self.end()
            on_event(event)

        return count_end


def _refusal(text: str, after_ms: float) -> RefusedError:
    return RefusedError(Problem(ErrorCode.TOO_MANY_REQUESTS, text, retry_after_ms=after_ms))
