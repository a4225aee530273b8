"""Progressive answers: a map for every exit, in one HTTP response.

Decides how messages are written as server-sent events, as lines of JSON and as parts of a multipart
body; one small writer for each. Knows neither the engine nor when a message comes.

In multipart bodies the boundary stands behind each part, not before the next one, so that a reader
knows at once that a part is whole.
"""

from __future__ import annotations

import json
from typing import Final, Protocol

from anytime_protocol import codec
from anytime_protocol.http import headers
from anytime_protocol.http.headers import Progress
from anytime_protocol.messages import Accepted, Failed, Finished, Update
from anytime_server.api.predict_request import Form

BOUNDARY: Final = "anytime-5a1c1e0f7d"

Told = Accepted | Update | Finished | Failed


class Writer(Protocol):
    """Writes messages as a body."""

    @property
    def content_type(self) -> str:
        """Of the response."""
        ...

    def opening(self) -> bytes:
        """What stands before the first message."""
        ...

    def write(self, message: Told) -> bytes:
        """One message."""
        ...


class EventWriter:
    """`text/event-stream`."""

    content_type = "text/event-stream"

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def write(self, message: Told) -> bytes:
        """An event named by the message's type, its data in one line."""
        return f"event: {message.TYPE}\ndata: {_text(message)}\n\n".encode()


class LineWriter:
    """`application/x-ndjson`."""

    content_type = "application/x-ndjson"

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def write(self, message: Told) -> bytes:
        """The message in one line."""
        return f"{_text(message)}\n".encode()


class MixedWriter:
    """`multipart/mixed`: maps as files, the end as JSON."""

    content_type = f"multipart/mixed; boundary={BOUNDARY}"

    def opening(self) -> bytes:
        """The first boundary."""
        return f"--{BOUNDARY}".encode()

    def write(self, message: Told) -> bytes:
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

    def write(self, message: Told) -> bytes:
        """A part for an update, the closing of the boundary for the good end."""
        match message:
            case Update():
                return _part("image/png", _progress(message), message.payload) + b"\r\n--" + _END
            case Finished():
                return b"--\r\n"
            case Accepted() | Failed():
                return b""


_WRITERS: Final[dict[Form, type[Writer]]] = {
    Form.SSE: EventWriter,
    Form.NDJSON: LineWriter,
    Form.MIXED: MixedWriter,
    Form.REPLACE: ReplaceWriter,
}

_END: Final = BOUNDARY.encode()


def writer(form: Form) -> Writer:
    """The writer of a progressive form."""
    return _WRITERS[form]()


def _text(message: Told) -> str:
    payload = message.payload if isinstance(message, Update) else b""
    return codec.encode_text(message.to_json(), payload)


def _progress(update: Update) -> str:
    value = Progress(
        update.exit, update.exits, update.confidence, update.elapsed_ms, update.skipped
    )
    return f"{headers.UPDATE}: {value}\r\n"


def _part(media_type: str, line: str, body: bytes) -> bytes:
    head = f"\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n{line}\r\n"
    return head.encode() + body
