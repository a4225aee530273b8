"""The Python client of an anytime server: better maps from exit to exit, within a budget.

    client = Client("http://127.0.0.1:8000")
    result = client.predict("street.jpg", deadline_ms=80)

    with client.stream("street.jpg") as stream:
        for update in stream:
            print(update.exit, update.confidence, update.map.shape)

`AsyncClient` is the same with `await`. The package needs neither torch nor the server's source.

* `conversation`: what is said on a connection and what comes of it; no socket, no clock.
* `links`: how it travels, over a websocket or HTTP.
* `asynchronous`: the client for event loops; `blocking`: the same for all others, on a
  `loop_thread`.
* `arrays`, `results`: payloads as numpy arrays, and what a caller sees.
* `images`, `questions`, `address`, `web`: what is asked, and of whom.
* `painting`, `saving`: maps as pictures and files; `cli` and `commands`: the program `anytime`.
"""

from anytime_client.asynchronous import AsyncClient, AsyncStream
from anytime_client.blocking import Client, Stream
from anytime_client.errors import (
    AnswerError,
    AnytimeError,
    ConnectError,
    ConnectionLostError,
    ImageError,
    MissingArrayError,
    RequestError,
    SilenceError,
)
from anytime_client.questions import Image, Transport
from anytime_client.results import Result, ServerBudget, Timing, Update, UpdateTimes
from anytime_protocol.budget import Budget
from anytime_protocol.client_messages import OutputOptions
from anytime_protocol.enums import ArrayName, Compression, Encoding, ErrorCode, Reason, Task
from anytime_protocol.resources import ModelInfo

__all__ = [
    "AnswerError",
    "AnytimeError",
    "ArrayName",
    "AsyncClient",
    "AsyncStream",
    "Budget",
    "Client",
    "Compression",
    "ConnectError",
    "ConnectionLostError",
    "Encoding",
    "ErrorCode",
    "Image",
    "ImageError",
    "MissingArrayError",
    "ModelInfo",
    "OutputOptions",
    "Reason",
    "RequestError",
    "Result",
    "ServerBudget",
    "SilenceError",
    "Stream",
    "Task",
    "Timing",
    "Transport",
    "Update",
    "UpdateTimes",
]
