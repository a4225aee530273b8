"""The Python client of an anytime server: better maps from exit to exit, within a budget.

    client = Client("http://127.0.0.1:8000")
    result = client.predict("street.jpg", deadline_ms=80)

    with client.stream("street.jpg") as stream:
        for update in stream:
            print(update.exit, update.confidence, update.map.shape)

    for frame in client.video(camera, deadline_ms=80, reuse=ReuseOptions()):
        print(frame.frame, frame.reused_share, frame.best.map.shape)

`AsyncClient` is the same with `await`. The package needs neither torch nor the server's source.

* `client`, `aio`: the blocking and the asynchronous client.
* `session`: the client's side of a connection, without a socket; `transport`: websocket and HTTP.
* `requests`, `images`: what is sent; `results`, `arrays`: what is received.
* `video`: streams of frames.
* `render`, `output`: maps drawn and written; `cli`: the program `anytime`.
"""

from anytime_client.aio import AsyncClient, AsyncStream
from anytime_client.client import Client, Stream, Video
from anytime_client.errors import (
    AnswerError,
    AnytimeError,
    BudgetError,
    ConnectError,
    ConnectionLostError,
    FieldError,
    ImageError,
    MissingArrayError,
    RequestError,
    SilenceError,
)
from anytime_client.images import ImageLike
from anytime_client.results import FrameResult, Result, Timing, Update, UpdateTimes
from anytime_client.transport import TransportKind
from anytime_client.video import AsyncVideo
from anytime_protocol.budget import Budget
from anytime_protocol.enums import ArrayName, Compression, Encoding, ErrorCode, Reason, Task
from anytime_protocol.messages import OutputOptions, ReuseOptions
from anytime_protocol.model_info import ModelInfo
from anytime_protocol.resources import ServerBudget, ServerBudgetStatus

__all__ = [
    "AnswerError",
    "AnytimeError",
    "ArrayName",
    "AsyncClient",
    "AsyncStream",
    "AsyncVideo",
    "Budget",
    "BudgetError",
    "Client",
    "Compression",
    "ConnectError",
    "ConnectionLostError",
    "Encoding",
    "ErrorCode",
    "FieldError",
    "FrameResult",
    "ImageError",
    "ImageLike",
    "MissingArrayError",
    "ModelInfo",
    "OutputOptions",
    "Reason",
    "RequestError",
    "Result",
    "ReuseOptions",
    "ServerBudget",
    "ServerBudgetStatus",
    "SilenceError",
    "Stream",
    "Task",
    "Timing",
    "TransportKind",
    "Update",
    "UpdateTimes",
    "Video",
]
