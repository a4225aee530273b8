"""A server's address: its URLs, and what the end of a connection to it means."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from anytime_client.errors import AnswerError, ConnectError, ConnectionLostError, RequestError
from anytime_protocol.enums import CloseCode, ErrorCode
from anytime_protocol.errors import ProtocolError, shorten
from anytime_protocol.http.problems import Problem

DEFAULT_URL: Final = "http://127.0.0.1:8000"
ABNORMAL_CLOSURE: Final = 1006
"""Stands for a connection that ended without a close frame (RFC 6455 section 7.4)."""

_WEBSOCKET_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_HTTP_SCHEMES: Final = {"ws": "http", "wss": "https"}

_CLOSE_CODES: Final[dict[int, str]] = {
    CloseCode.NORMAL: "the server closed the connection",
    CloseCode.GOING_AWAY: "the server is shutting down",
    CloseCode.UNSUPPORTED_DATA: "the server did not understand a frame",
    CloseCode.INVALID_TEXT: "the server found text that is not UTF-8",
    CloseCode.POLICY: "the server's rules forbid it",
    CloseCode.TOO_BIG: "the image or message is larger than the server allows",
    CloseCode.INTERNAL: "the server made a mistake",
    CloseCode.RESTART: "the server restarts",
    CloseCode.TRY_AGAIN_LATER: "answers were read too slowly",
    CloseCode.BAD_MESSAGE: "a message was malformed or out of order",
    CloseCode.UNAUTHORIZED: "the token is not valid any more",
    CloseCode.FORBIDDEN: "not allowed",
    CloseCode.TIMEOUT: "pings were not answered in time",
    CloseCode.DUPLICATE_ID: "a request's id was used twice",
    CloseCode.TOO_MANY_IN_FLIGHT: "too many requests at a time",
    ABNORMAL_CLOSURE: "the connection broke off",
}

_FIRST_DELAY_S: Final = 0.1
_LONGEST_DELAY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Address:
    """A server and the right to use it.

    Attributes:
        base: the server's HTTP URL without a slash at its end; a path is kept (behind a proxy).
        token: bearer token, or None.
    """

    base: str
    token: str | None = None

    @classmethod
    def parse(cls, url: str, token: str | None = None) -> Address:
        """Reads a URL with the scheme http, https, ws or wss; a bare host means http.

        Raises:
            ConnectError: it is no such URL.
        """
        split = urlsplit(url if "://" in url else f"http://{url}")
        if split.scheme not in _WEBSOCKET_SCHEMES or not split.netloc:
            raise ConnectError(url, f"not a server's URL, expected one such as {DEFAULT_URL}")
        scheme = _HTTP_SCHEMES.get(split.scheme, split.scheme)
        path = split.path.rstrip("/").removesuffix("/v1/stream")
        return cls(urlunsplit((scheme, split.netloc, path, "", "")), token)

    @property
    def websocket_url(self) -> str:
        """The URL of the websocket."""
        scheme, rest = self.base.split("://", 1)
        return f"{_WEBSOCKET_SCHEMES[scheme]}://{rest}/v1/stream"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def connection_lost(self, code: int, reason: str) -> ConnectionLostError:
        """The error for a websocket that was closed with this code and reason."""
        return ConnectionLostError(self.base, describe_close_code(code, reason), code)

    def unreachable(self, error: Exception) -> ConnectError:
        """The error for a server that cannot be connected to, with the system's reason."""
        number = error.errno if isinstance(error, OSError) else None
        if number is not None and number > 0:  # those of name resolution are negative
            why = os.strerror(number)
        else:
            why = str(error) or type(error).__name__
        return ConnectError(self.base, f"no connection ({why}); does the server run there?")


def describe_close_code(code: int, reason: str) -> str:
    """A websocket's close code as text for people."""
    meaning = _CLOSE_CODES.get(code, "the server closed the connection")
    return f"{meaning} (close code {code}{': ' + reason if reason else ''})"


def sendable_close_code(code: int) -> int:
    """The code, or 1000 for one that stands for a missing close frame (RFC 6455 section 7.4)."""
    return CloseCode.NORMAL if code in {1005, ABNORMAL_CLOSURE, 1015} else code


def error_of_response(url: str, status: int, body: bytes) -> RequestError | AnswerError:
    """The error for an HTTP status that is none of success.

    Returns:
        A `RequestError` for a problem of the protocol, an `AnswerError` for any other body.
    """
    text = body.decode("utf-8", "replace")
    try:
        return RequestError.from_wire(Problem.parse(text))
    except ProtocolError:
        found = f"found status {status} with {shorten(text)!r}"
        return AnswerError(f"{url}: {found}; this is no anytime server, or no path of one")


def is_worth_retrying(error: RequestError) -> bool:
    """Whether a server that refused a connection may accept one a little later."""
    return error.code in {ErrorCode.NOT_READY, ErrorCode.OVERLOADED, ErrorCode.DRAINING}


def retry_delays(total_s: float) -> Iterator[float]:
    """Seconds to wait between attempts to connect, `total_s` in all.

    Exponential back-off from 0.1 s to 5 s; each delay is shortened at random by up to a half, so
    that many clients of a restarted server do not return in step.
    """
    delay, left = _FIRST_DELAY_S, total_s
    while left > 0:
        step = min(delay * random.uniform(0.5, 1.0), left)  # noqa: S311 - no secret
        yield step
        left -= step
        delay = min(2 * delay, _LONGEST_DELAY_S)
