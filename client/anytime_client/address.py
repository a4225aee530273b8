"""Where a server is, how it is reached, and what the end of a connection means.

Decides the URLs of a server from the one that the caller gave, the headers of every request and the
pauses between attempts. Opens nothing and waits for nothing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

from anytime_client.errors import AnswerError, ConnectError, RequestError
from anytime_protocol.enums import CloseCode, ErrorCode
from anytime_protocol.errors import ProtocolError, shorten
from anytime_protocol.http.problems import Problem

DEFAULT_URL: Final = "http://127.0.0.1:8000"

_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_PLAIN: Final = {"ws": "http", "wss": "https"}

_MEANINGS: Final[dict[int, str]] = {
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
    1006: "the connection broke off",
}

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0


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
        """Reads the URL that a caller gave: http, https, ws or wss; a bare host means http.

        Raises:
            ConnectError: it is no such URL.
        """
        split = urlsplit(url if "://" in url else f"http://{url}")
        if split.scheme not in _SCHEMES or not split.netloc:
            raise ConnectError(url, f"not a server's URL, expected one such as {DEFAULT_URL}")
        scheme = _PLAIN.get(split.scheme, split.scheme)
        path = split.path.rstrip("/").removesuffix("/v1/stream")
        return cls(urlunsplit((scheme, split.netloc, path, "", "")), token)

    @property
    def socket_url(self) -> str:
        """Of the websocket."""
        scheme, rest = self.base.split("://", 1)
        return f"{_SCHEMES[scheme]}://{rest}/v1/stream"

    @property
    def headers(self) -> dict[str, str]:
        """Of every request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def at(self, path: str) -> str:
        """The URL of a path that begins with a slash."""
        return self.base + path

    def predict(self, model: str) -> str:
        """The URL of a model's predictions."""
        return self.at(f"/v1/models/{quote(model, safe='')}/predict")

    def request(self, request_id: str) -> str:
        """The URL of a running request."""
        return self.at(f"/v1/requests/{quote(request_id, safe='')}")


def close_meaning(code: int, reason: str) -> str:
    """A close code in words."""
    meaning = _MEANINGS.get(code, "the server closed the connection")
    return f"{meaning} (close code {code}{': ' + reason if reason else ''})"


def may_be_sent(code: int) -> int:
    """The code, or 1000 for one that stands for a missing close frame (RFC 6455 section 7.4)."""
    return CloseCode.NORMAL if code in {1005, 1006, 1015} else code


def refusal(url: str, status: int, body: bytes) -> RequestError | AnswerError:
    """What an answer with an error status means: the server's problem, or somebody else's page."""
    text = body.decode("utf-8", "replace")
    try:
        return RequestError.of(Problem.parse(text))
    except ProtocolError:
        found = f"found status {status} with {shorten(text)!r}"
        return AnswerError(f"{url}: {found}; this is no anytime server, or no path of one")


def unreachable(address: Address, error: Exception) -> ConnectError:
    """The error for a server that nobody answers for, in the words of the system."""
    number = error.errno if isinstance(error, OSError) else None
    why = os.strerror(number) if number else str(error) or type(error).__name__
    return ConnectError(address.base, f"no connection ({why}); does the server run there?")


def is_worth_retrying(error: RequestError) -> bool:
    """Whether a server that refused a connection may accept one a little later."""
    return error.code in {ErrorCode.NOT_READY, ErrorCode.OVERLOADED, ErrorCode.DRAINING}


def pauses(within_s: float) -> Iterator[float]:
    """Seconds to wait between attempts to connect, `within_s` in all.

    Each is twice the one before, up to `LONGEST_PAUSE_S`, and shortened at random by up to a
    half, so that many clients of a restarted server do not return in step.
    """
    pause, left = FIRST_PAUSE_S, within_s
    while left > 0:
        step = min(pause * random.uniform(0.5, 1.0), left)  # noqa: S311 - no secret
        yield step
        left -= step
        pause = min(2 * pause, LONGEST_PAUSE_S)
