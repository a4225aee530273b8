"""Progressive answers: a map for every exit, in one HTTP response.

One small writer for each format: server-sent events, lines of JSON, parts of a multipart body.
In multipart bodies the boundary stands behind each part, not before the next one, so that a reader
knows at once that a part is whole.
"""

from __future__ import annotations

import json
from typing import Final, Protocol

from anytime_protocol import codec
from anytime_protocol.http import headers
from anytime_protocol.http.headers import UpdateHeader
from anytime_protocol.messages import Accepted, Failed, Finished, Update
from anytime_server.api.formats import AnswerFormat

BOUNDARY: Final = "anytime-5a1c1e0f7d"

StreamMessage = Accepted | Update | Finished | Failed


class Writer(Protocol):
    """Writes messages as a body."""

    @property
    def content_type(self) -> str:
        """Of the response."""
        ...

    def opening(self) -> bytes:
        """What stands before the first message."""
        ...

    def write(self, message: StreamMessage) -> bytes:
        """One message."""
        ...


class EventWriter:
    """`text/event-stream`."""

    content_type = "text/event-stream"

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def write(self, message: StreamMessage) -> bytes:
        """An event named by the message's type, its data in one line."""
        return f"event: {message.type}\ndata: {_text(message)}\n\n".encode()


class LineWriter:
    """`application/x-ndjson`."""

    content_type = "application/x-ndjson"

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def write(self, message: StreamMessage) -> bytes:
        """The message in one line."""
        return f"{_text(message)}\n".encode()


class MixedWriter:
    """`multipart/mixed`: maps as files, the end as JSON."""

    content_type = f"multipart/mixed; boundary={BOUNDARY}"

    def opening(self) -> bytes:
        """The first boundary."""
        return f"--{BOUNDARY}".encode()

    def write(self, message: StreamMessage) -> bytes:
        """A part; `accepted` has none."""
        match message:
            case Accepted():
                return b""
            case Update() if message.keypoints is None:
                return _part("image/png", _progress(message), message.payload) + b"\r\n--" + _END
            case Update():
                body = _text(message).encode()
                return _part("application/json", _progress(message), body) + b"\r\n--" + _END
            case Finished() | Failed():
                body = json.dumps(message.to_json(), separators=(",", ":")).encode()
                return _part("application/json", "", body) + b"\r\n--" + _END + b"--\r\n"


class ReplaceWriter:
    """`multipart/x-mixed-replace`: maps only; a closing boundary means that all went well."""

    content_type = f"multipart/x-mixed-replace; boundary={BOUNDARY}"

    def opening(self) -> bytes:
        """The first boundary."""
        return f"--{BOUNDARY}".encode()

    def write(self, message: StreamMessage) -> bytes:
        """A part for an update, the closing of the boundary for the good end."""
        match message:
            case Update():
                return _part("image/png", _progress(message), message.payload) + b"\r\n--" + _END
            case Finished():
                return b"--\r\n"
            case Accepted() | Failed():
                return b""


_WRITERS: Final[dict[AnswerFormat, type[Writer]]] = {
    AnswerFormat.SSE: EventWriter,
    AnswerFormat.NDJSON: LineWriter,
    AnswerFormat.MIXED: MixedWriter,
    AnswerFormat.REPLACE: ReplaceWriter,
}

_END: Final = BOUNDARY.encode()


def writer(answer_format: AnswerFormat) -> Writer:
    """The writer of a progressive format."""
    return _WRITERS[answer_format]()


def _text(message: StreamMessage) -> str:
    payload = message.payload if isinstance(message, Update) else b""
    return codec.encode_text(message.to_json(), payload)


def _progress(update: Update) -> str:
    value = UpdateHeader(
        update.exit, update.exits, update.confidence, update.elapsed_ms, update.skipped
    )
    return f"{headers.UPDATE}: {value}\r\n"


def _part(media_type: str, line: str, body: bytes) -> bytes:
    head = f"\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n{line}\r\n"
    return head.encode() + body
