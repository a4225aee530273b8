"""A stream of frames as its caller sees it: images go out, each frame's best map comes back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
)
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, Self, TypeAlias

from anytime_client.address import is_worth_retrying, retry_delays
from anytime_client.errors import (
    AnswerError,
    AnytimeError,
    ConnectionLostError,
    RequestError,
    SilenceError,
)
from anytime_client.images import ImageLike, encode_image
from anytime_client.requests import VideoRequest
from anytime_client.results import FrameResult
from anytime_client.session import VideoEvent
from anytime_client.transport import VideoStream
from anytime_protocol.budget import Budget
from anytime_protocol.enums import CloseReason, Effect
from anytime_protocol.messages import BudgetApplied
from anytime_protocol.stream_answers import StreamClosed

Frames: TypeAlias = Iterable[ImageLike] | AsyncIterable[ImageLike]
"""Where frames come from: anything that is iterated, with `for` (in a thread) or `async for`."""

_END: Final = object()
_MOST_UNREAD: Final = 2
"""Results that may wait for the caller while further frames are sent."""


class AsyncVideo:
    """A stream of frames, iterated for their results. It is opened when the loop begins.

    Frames are read from their source and sent while results are waited for. The server computes the
    latest one; those that a newer one overtakes are skipped. While two results wait for a slow
    caller no frame is read, so that results are never old. Where the connection is lost the stream
    is opened again on another one, and the frames under way are lost.

    Args:
        open_: opens the stream; connects if need be.
        frames: the source.
        request: what to ask for.
        every: send a frame only when the one before has ended, so that none is skipped.
        timeout_s: the longest silence of the server while a frame is under way.
        reconnect_s: how long to try again while the server shuts down or starts.
    """

    def __init__(
        self,
        open_: Callable[[VideoRequest], Awaitable[VideoStream]],
        frames: Frames,
        request: VideoRequest,
        *,
        every: bool = False,
        timeout_s: float = 30.0,
        reconnect_s: float = 10.0,
    ) -> None:
        self._open = open_
        self._frames = frames
        self._request = request
        self._every = every
        self._timeout_s = timeout_s
        self._reconnect_s = reconnect_s
        self._delays: Iterator[float] | None = None
        self._stream: VideoStream | None = None
        self._sender: asyncio.Task[None] | None = None
        self._awaits_frame = asyncio.Event()
        self._was_taken = asyncio.Event()
        self._sent = self._ended = 0
        self._images: dict[int, ImageLike] = {}
        self._closed: StreamClosed | None = None
        self._is_over = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[FrameResult]:
        """Each frame's result, until the source or the stream ends; errors are those of `next`."""
        try:
            while (result := await self.next()) is not None:
                yield result
        finally:
            await self.close()

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended, or was given up."""
        return self._is_over

    @property
    def sent(self) -> int:
        """Frames sent so far."""
        return self._sent

    @property
    def unread(self) -> int:
        """Results that have come and wait for the caller."""
        return 0 if self._stream is None else self._stream.unread

    @property
    def closed(self) -> StreamClosed | None:
        """The server's counts, once the stream has ended well."""
        return self._closed

    async def start(self) -> None:
        """Opens the stream and begins to send, rather than when the first result is waited for.

        Raises:
            ConnectError, RequestError, AnswerError: it cannot be opened.
        """
        if self._stream is None and not self._is_over:
            self._stream = await self._open(self._request)
            self._awaits_frame.set()
            self._sender = asyncio.create_task(self._send_all(), name="anytime-client-video")

    async def next(self) -> FrameResult | None:
        """Waits for the next frame's result; None at the end of the stream.

        A frame that fails ends nothing: see `FrameResult.error`.

        Raises:
            RequestError: the server refused the stream, or a frame is larger than it takes.
            ConnectError: the connection was lost, and there is no other one.
            SilenceError: the server sent nothing for too long.
            ImageError: the source has given something that is no image.
        """
        await self.start()
        try:
            while not self._is_over:
                result = await self._handle(await self._event())
                if result is not None:
                    return result
        except BaseException:
            await self.close()
            raise
        return None

    async def set_budget(self, budget: Budget) -> None:
        """Replaces the budget of the frame under way and of all that follow.

        Args:
            budget: the new one; limits that it does not name no longer hold.
        """
        self._request = replace(self._request, budget=budget)
        if self._stream is not None:
            await self._stream.set_budget(budget)

    async def finish(self) -> None:
        """Sends no more frames; the loop goes on until those that were sent are answered."""
        await self.start()
        if self._sender is not None:
            self._sender.cancel()
        if self._stream is not None:
            await self._stream.finish()

    async def close(self) -> None:
        """Ends the stream at once, if it still runs, without waiting for its end."""
        if self._is_over:
            return
        self._is_over = True
        if self._sender is not None:
            self._sender.cancel()
        if self._stream is not None:
            await self._stream.cancel()

    async def _event(self) -> VideoEvent:
        """The next event; a fault of the source is raised here."""
        stream, sender = self._stream, self._sender
        if stream is None or sender is None:
            raise RuntimeError("the stream is not open")
        while True:
            if sender.done() and not sender.cancelled():
                sender.result()
            event = asyncio.ensure_future(stream.next())
            is_due = sender.done() or self._ended < self._sent
            waited = {event} if sender.done() else {event, sender}
            try:
                done, _ = await asyncio.wait(
                    waited, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                event.cancel()
            if event in done:
                self._was_taken.set()
                return event.result()
            if not done and is_due:
                raise SilenceError(self._timeout_s)

    async def _handle(self, event: VideoEvent) -> FrameResult | None:
        match event:
            case FrameResult():
                self._ended, self._delays = event.frame, None
                self._awaits_frame.set()
                image = self._images[event.frame]
                self._images = {n: later for n, later in self._images.items() if n > event.frame}
                return replace(event, image=image)
            case StreamClosed(reason=CloseReason.DRAINING) if self._is_sending:
                self._delays = retry_delays(self._reconnect_s)
                await self._reopen()
            case StreamClosed():
                self._closed = event
                self._is_over = True
            case BudgetApplied(effect=Effect.REJECTED):
                raise AnswerError(f"the server rejected a budget: {event.detail}")
            case ConnectionLostError() if self._is_sending:
                await self._reopen()
            case RequestError() if is_worth_retrying(event) and self._delays is not None:
                delay_s = next(self._delays, None)
                if delay_s is None:
                    raise event
                await asyncio.sleep(delay_s)
                await self._reopen()
            case AnytimeError():
                self._is_over = True
                raise event
        return None

    @property
    def _is_sending(self) -> bool:
        return self._sender is not None and not self._sender.done()

    async def _reopen(self) -> None:
        self._stream = await self._open(self._request)
        self._ended = self._sent  # what was sent meanwhile went to the stream before
        self._awaits_frame.set()
        if not self._is_sending:
            await self._stream.finish()

    async def _send_all(self) -> None:
        """Sends the source's frames, and then says that there are no more."""
        async with aclosing(_read(self._frames)) as images:
            while (image := await self._read_next(images)) is not _END:
                payload, media_type = await asyncio.to_thread(encode_image, image)
                if self._every:
                    await self._awaits_frame.wait()
                    self._awaits_frame.clear()
                if self._stream is None:
                    return
                self._sent += 1
                self._images[self._sent] = image
                await self._stream.send_frame(self._sent, payload, media_type)
        if self._stream is not None:
            await self._stream.finish()

    async def _read_next(self, images: AsyncGenerator[ImageLike, None]) -> Any:
        """The source's next frame, once the caller has taken results; `_END` at its end."""
        while self.unread >= _MOST_UNREAD:
            self._was_taken.clear()
            await self._was_taken.wait()
        return await anext(images, _END)


async def _read(frames: Frames) -> AsyncGenerator[ImageLike, None]:
    """The frames of any source. One that blocks is read in a thread that holds up no exit."""
    if isinstance(frames, AsyncIterable):
        async for image in frames:
            yield image
        return
    loop, requested = asyncio.get_running_loop(), threading.Semaphore(0)
    queue: asyncio.Queue[object] = asyncio.Queue()
    given_up = threading.Event()

    def read() -> None:
        last: object = _END
        try:
            for image in frames:
                requested.acquire()
                if given_up.is_set():
                    return
                loop.call_soon_threadsafe(queue.put_nowait, image)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where it is awaited
            last = _Fault(error)
        requested.acquire()
        if not given_up.is_set():
            loop.call_soon_threadsafe(queue.put_nowait, last)

    threading.Thread(target=read, name="anytime-client-frames", daemon=True).start()
    try:
        while True:
            requested.release()
            found = await queue.get()
            if isinstance(found, _Fault):
                raise found.error
            if found is _END:
                return
            yield found  # type: ignore[misc]
    finally:
        given_up.set()
        requested.release()


class _Fault:
    """What the source has raised."""

    def __init__(self, error: Exception) -> None:
        self.error = error
