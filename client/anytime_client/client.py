"""The blocking client: the asynchronous one on an event loop in a thread of its own.

Its methods have the arguments, results and errors of `AsyncClient`'s and `AsyncStream`'s. In the
caller's thread remain reading and encoding the image, the loop over a stream, and `satisfied`.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from anytime_client.address import DEFAULT_URL
from anytime_client.aio import AsyncClient, AsyncStream
from anytime_client.images import ImageLike
from anytime_client.loop_thread import LoopThread
from anytime_client.requests import last_map_only
from anytime_client.results import FrameResult, Result, Update
from anytime_client.stream_state import Satisfied
from anytime_client.transport import TransportKind
from anytime_client.video import AsyncVideo, Frames
from anytime_protocol.messages import Accepted, BudgetApplied
from anytime_protocol.model_info import ModelInfo
from anytime_protocol.stream_answers import StreamClosed

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """The method that waits for this one of the asynchronous object that `self` stands for."""

    @wraps(method)
    def wait(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        loop: LoopThread
        loop, target = self._running()
        return loop.run(method(target, *args, **kwargs))

    return wait


def _with_arguments_of(
    method: Callable[Concatenate[Any, P], object],
) -> Callable[[Callable[..., T]], Callable[Concatenate[Any, P], T]]:
    """Gives the decorated method the arguments and the documentation of another."""

    def decorate(function: Callable[..., T]) -> Callable[Concatenate[Any, P], T]:
        returns = inspect.signature(function).return_annotation
        signature = inspect.signature(method).replace(return_annotation=returns)

        @wraps(function)
        def checked(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
            signature.bind(self, *args, **kwargs)
            return function(self, *args, **kwargs)

        checked.__doc__ = method.__doc__
        checked.__signature__ = signature  # type: ignore[attr-defined]
        return checked

    return decorate


class Stream:
    """The updates of one request, as they come. Iterate it; leaving the loop cancels the request.

    Use it in a `with` statement where the loop may be left in the middle and the server should
    stop at that very moment, whatever the garbage collector does.
    """

    def __init__(
        self, loop: LoopThread, stream: AsyncStream, satisfied: Satisfied | None = None
    ) -> None:
        self._loop = loop
        self._stream = stream
        self._satisfied = satisfied

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Update]:
        """Each exit's update as it comes, until the request is over.

        An iterator that is dropped before its end cancels the request: that is how a loop that is
        left does it, and `next(iter(stream))` would too.

        Raises:
            RequestError: the server failed or refused the request.
            ConnectionLostError: the connection ended before it did.
            SilenceError: the server sent nothing for too long.
        """
        try:
            while (update := self._next()) is not None:
                satisfied = self._satisfied is not None and self._satisfied(update)
                if satisfied:
                    self.enough()
                yield update
                if satisfied:
                    self.wait()
        finally:
            self.close()

    @property
    def accepted(self) -> Accepted | None:
        """The server's prediction, once it is in."""
        return self._stream.accepted

    @property
    def result(self) -> Result:
        """How the request ended.

        Raises:
            AnytimeError: the one that it ended with.
            RuntimeError: it is not over, or was given up.
        """
        return self._stream.result

    @property
    def applied(self) -> tuple[BudgetApplied, ...]:
        """The server's answers to changes of the budget, so far."""
        return self._stream.applied

    _next = _blocking(AsyncStream.next)
    set_budget = _blocking(AsyncStream.set_budget)
    enough = _blocking(AsyncStream.enough)
    cancel = _blocking(AsyncStream.cancel)
    wait = _blocking(AsyncStream.wait)

    def close(self) -> None:
        """Gives the request up, if it still runs, without waiting for its end."""
        if not self._stream.is_over:
            self._loop.finish(self._stream.close())

    def _running(self) -> tuple[LoopThread, AsyncStream]:
        return self._loop, self._stream


class Video:
    """A stream of frames, iterated for their results; leaving the loop ends it.

    Use it in a `with` statement where the server should stop at that very moment.
    """

    def __init__(self, loop: LoopThread, video: AsyncVideo) -> None:
        self._loop = loop
        self._video = video

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[FrameResult]:
        """Each frame's result, until the source or the stream ends.

        A frame that fails ends nothing: see `FrameResult.error`.

        Raises:
            RequestError: the server refused the stream, or a frame is larger than it takes.
            ConnectError: the connection was lost, and there is no other one.
            SilenceError: the server sent nothing for too long.
            ImageError: the source has given something that is no image.
        """
        try:
            while (result := self._next()) is not None:
                yield result
        finally:
            self.close()

    @property
    def sent(self) -> int:
        """Frames sent so far."""
        return self._video.sent

    @property
    def closed(self) -> StreamClosed | None:
        """The server's counts, once the stream has ended well."""
        return self._video.closed

    _next = _blocking(AsyncVideo.next)
    set_budget = _blocking(AsyncVideo.set_budget)
    finish = _blocking(AsyncVideo.finish)

    def close(self) -> None:
        """Ends the stream at once, if it still runs, without waiting for its end."""
        if not self._video.is_over:
            self._loop.finish(self._video.close())

    def _running(self) -> tuple[LoopThread, AsyncVideo]:
        return self._loop, self._video


class Client:
    """A client of one server. It connects with its first request, and again when it has to.

    A request that runs when the connection ends fails with `ConnectionLostError`: the server has
    cancelled it, and whether it is still worth repeating is for the caller to decide. The next
    request connects anew. A request that met the end of an idle connection (the server closed it
    in order and said nothing of the request, so it never read it) is sent once more.

    Threads may share a client, and any number of requests may be made together: those beyond what
    the server takes on a connection (`max_in_flight`) wait for a place here, before their deadline
    begins to count.

    Args:
        url: of the server, such as `http://127.0.0.1:8000`; a path is kept.
        token: bearer token, where the server has one.
        transport: websocket or HTTP; by default HTTP only where no websocket gets through.
        timeout_s: the longest silence of the server; also for connecting.
        reconnect_s: how long to try again after a connection that once worked. The first
            attempt is not repeated: a wrong URL fails at once.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        transport: TransportKind | str = TransportKind.AUTO,
        timeout_s: float = 30.0,
        reconnect_s: float = 10.0,
    ) -> None:
        self._make = partial(
            AsyncClient,
            url,
            token,
            transport=transport,
            timeout_s=timeout_s,
            reconnect_s=reconnect_s,
        )
        self._client = self._make()
        self._loop: LoopThread | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The models that the server has; the first is the default. Connects if need be."""
        loop, client = self._running()
        return loop.run(client.models())

    server_budget = _blocking(AsyncClient.server_budget)
    set_server_budget = _blocking(AsyncClient.set_server_budget)

    @_with_arguments_of(AsyncClient.predict)
    def predict(self, image: ImageLike, **options: Any) -> Result:  # noqa: D102
        loop, client = self._running()
        want = last_map_only(options.pop("want", None))
        return loop.run(_last(client.stream(image, want=want, **options)))

    @_with_arguments_of(AsyncClient.stream)
    def stream(  # noqa: D102
        self, image: ImageLike, *, satisfied: Satisfied | None = None, **options: Any
    ) -> Stream:
        loop, client = self._running()
        stream = client.stream(image, **options)
        loop.run(stream.start())
        return Stream(loop, stream, satisfied)

    @_with_arguments_of(AsyncClient.video)
    def video(self, frames: Frames, **options: Any) -> Video:  # noqa: D102
        loop, client = self._running()
        video = client.video(frames, **options)
        loop.run(video.start())
        return Video(loop, video)

    def close(self) -> None:
        """Closes the connection; requests that run are lost. The next request opens it anew."""
        with self._lock:
            client, self._client = self._client, self._make()
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.run(client.close())

    def _running(self) -> tuple[LoopThread, AsyncClient]:
        """The client and its thread, which ends when nothing refers to it any more."""
        with self._lock:
            if self._loop is None:
                self._loop = LoopThread()
            return self._loop, self._client


async def _last(stream: AsyncStream) -> Result:
    async with stream:
        return await stream.wait()
